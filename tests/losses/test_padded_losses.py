"""Every loss takes targets in slots of each image, with the very numbers that flat rows give."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from compiled_loss import DetectionLoss, EndToEndLoss, PaddedTargets, Predictions, TargetPlan, Targets
from compiled_loss.data.targets import ROW_FIELDS
from tests.contract.cases import CASES, GRIDS, IMAGES, SIZE, head_of, rows_of
from tests.contract.checks import Case, batch_of

LOSSES = {name: case for name, case in CASES.items() if isinstance(getattr(case.function, "loss", None), nn.Module)}


def placed(rows: Targets, slots: int) -> Targets:
    """Flat rows in the order of slots, padding between the images, by a loop."""
    source = [-1] * (IMAGES * slots)
    for image in range(IMAGES):
        for m, n in enumerate((rows.batch_idx == image).nonzero().flatten().tolist()):
            source[image * slots + m] = n
    index = torch.tensor(source)
    fields = {name: x for name in ROW_FIELDS if isinstance(x := getattr(rows, name), Tensor)}
    longer = {name: torch.cat([x, x.new_full((1, *x.shape[1:]), -(name == "batch_idx"))]) for name, x in fields.items()}
    changed: Any = {name: x[index] for name, x in longer.items()}
    return rows._replace(**changed, is_sorted=False, pages=None, mask_tiles=None)


def padded_of(rows: Targets, planned: bool) -> PaddedTargets:
    if planned:
        return TargetPlan(SIZE).apply(rows, IMAGES, padded=True)
    return PaddedTargets.from_rows(rows, IMAGES, 31)._replace(pages=None, mask_tiles=None)


def given(case: Case, change: Callable[[Targets], Targets | PaddedTargets]) -> Case:
    """A case whose loss is given other targets."""
    function: Any = copy.deepcopy(case.function)
    forward = function.loss.forward
    function.loss.forward = lambda *arguments: forward(*arguments[:-1], change(arguments[-1]))
    return case._replace(function=function)


def answer(case: Case, rows: int) -> list[Tensor]:
    """The total, terms and counts, and the gradient of the total for every map."""
    inputs = batch_of(case, rows, padded=False)
    out = case.function(*inputs)
    leaves = inputs[: case.learnt]
    return [*out, *torch.autograd.grad(out[0], leaves, allow_unused=True, materialize_grads=True)]


@pytest.mark.parametrize("planned", [False, True], ids=["unplanned", "planned"])
@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_has_the_same_numbers_to_the_bit(name, planned):
    case = LOSSES[name]
    padded = given(case, lambda rows: padded_of(rows, planned))
    same_places = given(case, lambda rows: placed(rows, padded_of(rows, planned).labels.shape[1]))
    for rows in (17, 0):
        got = answer(padded, rows)
        for x, right in zip(got, answer(same_places, rows), strict=True):
            assert torch.equal(x, right)
        # In other places a sine or an exponential may be rounded otherwise: the gradients of some terms show it.
        for i, (x, right) in enumerate(zip(got, answer(case, rows), strict=True)):
            atol = 1e-7 * right.abs().max().item() if i >= len(got) - case.learnt else 0
            torch.testing.assert_close(x, right, rtol=0, atol=atol)


LOSS = DetectionLoss(2)


def scene(rows: int = 17) -> tuple[Predictions, Targets]:
    return Predictions(*head_of(rows), grid_sizes=GRIDS), rows_of(rows, padded=False)


@pytest.mark.parametrize("kept", [slice(0, 2), slice(2, 3), torch.tensor([2, 0])], ids=["first", "last", "swapped"])
@pytest.mark.parametrize("planned", [False, True], ids=["unplanned", "planned"])
def test_some_images_of_a_batch_have_the_loss_of_those_images(kept, planned):
    predictions, rows = scene()
    padded = PaddedTargets.from_rows(rows, IMAGES)
    if planned:
        padded = TargetPlan(SIZE).apply(rows, IMAGES, padded=True)
    part: Any = tree_map_only(Tensor, lambda x: x[kept], (predictions, padded))
    # The rows of these images, by a loop.
    images = torch.arange(IMAGES)[kept].tolist()
    of_image = [(rows.batch_idx == i).nonzero().flatten() for i in images]
    batch_idx = torch.cat([torch.full_like(x, b) for b, x in enumerate(of_image)])
    order = torch.cat(of_image)
    out, wanted = LOSS(*part), LOSS(part[0], Targets(batch_idx, rows.labels[order], rows.boxes[order]))
    assert torch.equal(out.total, wanted.total)
    assert (out.num_positives, out.overflow) == (wanted.num_positives, 0)


def test_assignments_tell_slot_m_of_image_b_as_row_b_times_slots_plus_m():
    predictions, rows = scene()
    padded = PaddedTargets.from_rows(rows, IMAGES, 12)
    slot_of = torch.full((len(rows.labels) + 1,), -1)
    for image in range(IMAGES):
        place = (rows.batch_idx == image).nonzero().flatten()
        slot_of[place] = image * 12 + torch.arange(len(place))

    def positives(targets: Targets | PaddedTargets) -> dict[tuple[int, int], tuple[int, float]]:
        a = LOSS.assign(predictions, targets)
        return {(i, n): (r, s) for i, n, r, v, s in zip(*(x.tolist() for x in a[:5]), strict=True) if v}

    flat = positives(rows)
    assert flat
    assert positives(padded) == {place: (int(slot_of[row]), score) for place, (row, score) in flat.items()}
    dense, wanted = LOSS.assign_dense(predictions, padded), LOSS.assign_dense(predictions, rows)
    assert torch.equal(dense.row, slot_of[wanted.row])
    for got, right in zip(dense[:4], wanted[:4], strict=True):
        assert torch.equal(got, right)


@pytest.mark.parametrize("criterion", [LOSS, EndToEndLoss(DetectionLoss(2))], ids=["one branch", "two branches"])
def test_objects_without_a_slot_are_counted(criterion):
    predictions, rows = scene()
    arguments = [predictions] * (2 if isinstance(criterion, EndToEndLoss) else 1)
    padded = PaddedTargets.from_rows(rows, IMAGES)
    assert padded.counts.tolist() == [12, 0, 5]
    short = padded._replace(labels=padded.labels[:, :4], boxes=padded.boxes[:, :4])
    assert short.dropped().tolist() == [8, 0, 1]
    assert criterion(*arguments, padded).overflow == 0
    with pytest.warns(UserWarning, match="9 objects of PaddedTargets have no slot"):
        assert copy.deepcopy(criterion)(*arguments, short).overflow == 9
    with pytest.warns(UserWarning, match="9 objects of PaddedTargets have no slot"):
        assert copy.deepcopy(LOSS).assign(predictions, short).overflow == 9


def test_images_that_the_predictions_do_not_have_are_refused():
    predictions, rows = scene()
    padded = PaddedTargets.from_rows(rows, IMAGES + 1)
    for given in (padded, tree_map_only(Tensor, lambda x: x[:2], padded)):
        images = len(given.counts)
        with pytest.raises(ValueError, match=rf"targets.counts: expected shape \[3\], got \({images},\)"):
            LOSS(predictions, given)
    with pytest.raises(ValueError, match="predictions: expected Predictions, got tuple"):
        LOSS((), padded)  # type: ignore[arg-type]
