"""Batches on which the oracle raises or answers for another image's rows, and the edge beside them.

It needs rows sorted by image; it raises on image numbers beyond the batch, takes -1 for the last image in the masks
and raises in pose, and raises on pixel classes outside `[0, C)`.
"""

import pytest
import torch
from torch import Tensor

from compiled_loss import Predictions, Targets
from compiled_loss.exporting.corpus.golden import FAMILIES
from compiled_loss.losses.segmentation import SegmentationLoss
from tests.golden.cases import Case, load_cases
from tests.golden.test_golden import loss_of, predictions_of, targets_of
from tests.reference.any_head import reference_loss
from tests.reference.batches import make_batch, make_predictions
from tests.reference.mask_batches import add_mask_predictions, add_masks

CASES = [case for family in FAMILIES for case in load_cases(family) if not case.ties and case.positives]
# An index map's ids are places among the image's rows, so it has an order of its own.
ORDERLESS = [case for case in CASES if case.batch.masks is None or case.batch.masks.is_floating_point()]
ROWS = ("batch_idx", "labels", "boxes", "keypoints", "angles", "masks")


def with_rows(targets: Targets, change) -> Targets:
    given = {name: getattr(targets, name) for name in ROWS}
    return targets._replace(**{name: change(name, x) for name, x in given.items() if x is not None})


def assert_answer_is_that_stored(case: Case, targets: Targets) -> None:
    loss = loss_of(case)
    loss.check_values = False  # as in a graph, where every row of no image is padding
    out = loss(*predictions_of(case, case.leaves), targets)
    names = [name.removesuffix("_loss") for name in case.items]
    torch.testing.assert_close(torch.stack([out.terms[name] for name in names]), case.vector, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", ORDERLESS, ids=repr)
def test_rows_in_reverse_order_give_the_answer_of_sorted_ones(case: Case):
    assert_answer_is_that_stored(case, with_rows(targets_of(case), lambda _, x: x.flip(0)))


@pytest.mark.parametrize("case", CASES, ids=repr)
@pytest.mark.parametrize("image", [-1, 1000])
def test_rows_of_no_image_count_nothing(case: Case, image: int):
    def padded(name: str, x: Tensor) -> Tensor:
        extra = torch.full_like(x[:2], image) if name == "batch_idx" else x[:2]
        return torch.cat([extra, x, extra])

    assert_answer_is_that_stored(case, with_rows(targets_of(case), padded))


@pytest.mark.parametrize("stacked", [False, True])
def test_pixel_classes_that_do_not_exist_are_as_if_no_instance_covered_the_pixel(stacked: bool):
    batch = add_masks(3, make_batch(3, counts=(3, 4), size=(64, 96)), stacked=stacked)
    assert batch.class_map is not None
    class_map = batch.class_map.clone()
    class_map[:, ::2, ::3], class_map[:, 1::4] = -1, 255
    batch = batch._replace(class_map=class_map)
    raw = add_mask_predictions(4, batch, make_predictions(4, batch, reg_max=1), semantic=True)
    wanted = reference_loss(batch, raw)
    predictions = Predictions(**raw._asdict())
    masks = {"masks" if stacked else "index_map": batch.masks, "class_map": class_map}
    out = SegmentationLoss(3, reg_max=1)(predictions, Targets(*batch[2:5])._replace(**masks))
    assert {name: x.item() for name, x in out.terms.items()} == pytest.approx(wanted.terms, rel=1e-5)
    assert wanted.terms["sem"] > 0


def test_a_positive_whose_box_holds_no_mask_pixel_adds_nothing_and_counts():
    # Between two columns of the mask, whose pixels begin at multiples of 4; enlarged it has candidates.
    batch = make_batch(5, counts=(2,), size=(64, 96))
    boxes = torch.tensor([[34 / 96, 32 / 64, 2 / 96, 40 / 64], [0.5, 0.5, 0.5, 0.5]])
    batch = add_masks(5, batch._replace(boxes=boxes))
    raw = add_mask_predictions(6, batch, make_predictions(6, batch, kind="truth", reg_max=1))
    for y in (2, 3, 4, 5):  # the anchors at x = 36 pixels predict the first box exactly
        raw.boxes[0, :, y * 12 + 4] = torch.tensor([3.0, y * 8 + 4 - 12, -1, 52 - y * 8 - 4]) / 8
    wanted = reference_loss(batch, raw)
    assert {p.row for p in wanted.positives} == {0, 1}
    leaves = {name: x.clone().requires_grad_() for name, x in raw._asdict().items() if isinstance(x, Tensor)}
    targets = Targets(*batch[2:5])._replace(index_map=batch.masks)
    out = SegmentationLoss(3, reg_max=1)(Predictions(**leaves, grid_sizes=raw.grid_sizes), targets)
    assert {name: x.item() for name, x in out.terms.items()} == pytest.approx(wanted.terms, rel=1e-5)
    for name, gradient in zip(leaves, torch.autograd.grad(out.total, list(leaves.values())), strict=True):
        expected = wanted.gradients[name]
        atol = 2e-5 * expected.abs().max().item()
        torch.testing.assert_close(gradient.double(), expected, rtol=0, atol=atol)
