"""Derivatives of the losses in every layout of a head's output and in every way that torch takes them."""

import pytest
import torch
from torch import Tensor

from compiled_loss import DetectionLoss, Predictions, SegmentationLoss, Targets
from compiled_loss.grid import decode_sides
from compiled_loss.terms.box import read_sides
from compiled_loss.types import Assignment

GRIDS, STRIDES, CLASSES = ((4, 4), (2, 2)), (8, 16), 2
TARGETS = Targets(
    torch.tensor([0, 1, 1]),
    torch.tensor([1, 0, 1]),
    torch.tensor([[0.5, 0.5, 0.5, 0.5], [0.3, 0.3, 0.4, 0.4], [0.6, 0.7, 0.5, 0.3]]),
)


CRITERION = DetectionLoss(CLASSES, STRIDES)


def total_of(boxes: Tensor, scores: Tensor) -> Tensor:
    return CRITERION(Predictions(boxes, scores, GRIDS), TARGETS).total


def split(joined: Tensor) -> tuple[Tensor, Tensor]:
    """Of a head that writes boxes and scores side by side: neither is contiguous."""
    boxes, scores = joined.split([64, CLASSES], 1)
    return boxes, scores


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("permuted", [False, True], ids=["split", "split and permuted"])
def test_heads_that_are_not_contiguous_get_the_same_numbers_and_gradients(permuted, compiled):
    joined = torch.randn(2, 64 + CLASSES, 20)
    expected = joined.clone().requires_grad_()
    wanted = total_of(*(x.contiguous() for x in split(expected)))
    given = (joined.transpose(1, 2).contiguous() if permuted else joined.clone()).requires_grad_()

    def run(x: Tensor) -> Tensor:
        return total_of(*split(x.transpose(1, 2) if permuted else x))

    got = (torch.compile(run, fullgraph=True, backend="aot_eager") if compiled else run)(given)
    torch.testing.assert_close(got, wanted)
    (gradient,), (right,) = torch.autograd.grad(got, given), torch.autograd.grad(wanted, expected)
    torch.testing.assert_close(gradient.transpose(1, 2) if permuted else gradient, right)


def some_positives() -> Assignment:
    image, anchor, row = torch.tensor([[0, 0, 1, 0], [3, 1, 2, 0], [0, 1, 2, 3]])
    return Assignment(image, anchor, row, row < 3, torch.ones(4), torch.tensor(0))


def read(logits: Tensor, distances: Tensor) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        sides = decode_sides(logits.unflatten(1, (4, 4)), 2)
    return read_sides(logits, sides, some_positives(), distances)


def test_first_and_second_derivatives_of_read_distances_are_those_of_differences():
    logits = torch.randn(2, 16, 5, dtype=torch.float64, requires_grad=True)
    distances = torch.rand(4, 4, dtype=torch.float64) * 2.9
    assert torch.autograd.gradcheck(lambda x: read(x, distances), logits)
    assert torch.autograd.gradgradcheck(lambda x: read(x, distances), logits)


def test_true_distances_have_a_gradient_too_where_one_is_asked_for():
    logits = torch.randn(2, 16, 5, dtype=torch.float64, requires_grad=True)
    distances = (torch.tensor([0.3, 1.2, 2.4, 0.7], dtype=torch.float64).repeat(4, 1)).requires_grad_()
    assert torch.autograd.gradcheck(lambda t: read(logits, t), distances)


def test_jacobians_by_torch_func_and_by_batched_gradients_are_those_of_one_at_a_time():
    scores = torch.randn(2, CLASSES, 20)

    def terms(boxes: Tensor) -> Tensor:
        return torch.stack(list(CRITERION(Predictions(boxes, scores, GRIDS), TARGETS).terms.values()))

    boxes = torch.randn(2, 64, 20)
    leaf = boxes.clone().requires_grad_()
    rows = terms(leaf)
    expected = torch.stack([torch.autograd.grad(rows[i], leaf, retain_graph=True)[0] for i in (0, 2)])
    torch.testing.assert_close(torch.func.jacrev(terms)(boxes)[[0, 2]], expected)
    both = torch.autograd.grad(rows, leaf, torch.eye(3)[[0, 2]], is_grads_batched=True)[0]
    torch.testing.assert_close(both, expected)


def test_an_infinite_box_is_not_picked_for_its_mask():
    criterion = SegmentationLoss(CLASSES, strides=STRIDES, reg_max=1, mask_overlap=True)
    boxes = torch.full((2, 4, 20), 0.7)
    boxes[:, 0, 5] = torch.inf
    maps = {"coefficients": torch.ones(2, 1, 20), "prototypes": torch.ones(2, 1, 8, 8)}
    predictions = Predictions(boxes, torch.zeros(2, CLASSES, 20), GRIDS, **maps)
    found = criterion.assign(predictions, TARGETS._replace(index_map=torch.ones(2, 8, 8, dtype=torch.int64)))
    assert found.valid.any()
    assert 5 not in found.anchor[found.valid].tolist()


def test_no_image_and_no_anchor_are_refused_by_name():
    none = Targets(torch.zeros(0).long(), torch.zeros(0).long(), torch.zeros(0, 4))
    with pytest.raises(ValueError, match=r"predictions\.boxes: expected at least one image"):
        DetectionLoss(2, STRIDES)(Predictions(torch.zeros(0, 64, 20), torch.zeros(0, 2, 20), GRIDS), none)
    empty = ((0, 0), (0, 0))
    with pytest.raises(ValueError, match=r"predictions\.boxes: expected at least one image and one anchor"):
        DetectionLoss(2, STRIDES)(Predictions(torch.zeros(1, 64, 0), torch.zeros(1, 2, 0), empty), none)
