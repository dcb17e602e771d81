"""Overlaps of boxes against float64 loops and against cases worked by hand."""

import math

import pytest
import torch

from compiled_loss.geometry.boxes import ciou, cxcywh_to_xyxy, diou, giou, iou, xyxy_to_cxcywh
from tests.reference import geometry as reference

FAMILY = [iou, giou, diou, ciou]
UNIT = [0.0, 0.0, 1.0, 1.0]


def random_boxes(n: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(n, 2, generator=generator) * 20
    side = 0.1 + torch.rand(n, 2, generator=generator) ** 2 * 20
    return torch.cat([low, low + side], 1).double()  # exact in float32 too


def aspect_penalty(first: float, second: float, overlap: float) -> float:
    """`alpha v` of the aspect ratios width / height of two boxes."""
    v = 4 / math.pi**2 * (math.atan(first) - math.atan(second)) ** 2
    return v * v / (v - overlap + 1)


@pytest.mark.parametrize("overlap", FAMILY)
def test_every_overlap_equals_the_float64_loop_in_value_and_gradient(overlap):
    a, b = (random_boxes(500, seed).requires_grad_() for seed in (1, 2))
    expected = getattr(reference, overlap.__name__)(a, b)
    gradients = torch.autograd.grad(expected.sum(), (a, b))
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 2e-6)):
        x, y = (t.detach().to(dtype).requires_grad_() for t in (a, b))
        got = overlap(x, y)
        assert got.dtype == dtype
        torch.testing.assert_close(got.double(), expected, rtol=0, atol=tolerance)
        for z, expected_gradient in zip(torch.autograd.grad(got.sum(), (x, y)), gradients, strict=True):
            scale = expected_gradient.abs().max().item()
            torch.testing.assert_close(z.double(), expected_gradient, rtol=0, atol=20 * tolerance * scale)


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        # identical, side by side with a gap of 1, touching along a side, touching in a corner
        (UNIT, (1, 1, 1, 1)),
        ([2.0, 0, 3, 1], (0, -1 / 3, -4 / 10, -4 / 10)),
        ([1.0, 0, 2, 1], (0, 0, -1 / 5, -1 / 5)),
        ([1.0, 1, 2, 2], (0, -1 / 2, -2 / 8, -2 / 8)),
        # overlapping by half; a quarter of the area nested in the middle
        ([0.5, 0, 1.5, 1], (1 / 3, 1 / 3, 1 / 3 - 0.25 / 3.25, 1 / 3 - 0.25 / 3.25)),
        ([0.25, 0.25, 0.75, 0.75], (1 / 4, 1 / 4, 1 / 4, 1 / 4)),
        # nested, of another shape: half as wide
        ([0.25, 0, 0.75, 1], (1 / 2, 1 / 2, 1 / 2, 1 / 2 - aspect_penalty(1, 0.5, 0.5))),
        # a line through the middle, and a point there: no area
        ([0.5, 0, 0.5, 1], (0, 0, 0, -aspect_penalty(1, 0, 0))),
    ],
)
def test_cases_worked_by_hand(other, expected):
    a, b = torch.tensor(UNIT, dtype=torch.float64), torch.tensor(other, dtype=torch.float64)
    for overlap, value in zip(FAMILY, expected, strict=True):
        assert overlap(a, b).item() == pytest.approx(value, abs=1e-6)
        assert overlap(b, a).item() == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize("overlap", FAMILY)
@pytest.mark.parametrize("other", [UNIT, [0.5, 0.5, 0.5, 0.5], [2.0, 2, 2, 2], [0.0, 0, 1, 0], [-1e4, -1e4, 1e4, 1e4]])
def test_values_and_gradients_are_finite_for_boxes_without_size_too(overlap, other):
    for first in (UNIT, [0.5, 0.5, 0.5, 0.5]):
        a, b = (torch.tensor(x, requires_grad=True) for x in (first, other))
        value = overlap(a, b)
        assert value.isfinite()
        assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(value, (a, b)))


def test_overlaps_stay_within_their_bounds():
    a, b = random_boxes(20000, 3).float(), random_boxes(20000, 4).float()
    near = a + torch.randn(a.shape, generator=torch.Generator().manual_seed(0)) * 1e-2
    for other in (a, b, near):
        plain = iou(a, other)
        assert plain.min() >= 0
        for overlap in FAMILY:
            assert overlap(a, other).max() <= 1 + 1e-6
            assert overlap(a, other).min() >= {"iou": 0, "giou": -1, "diou": -1, "ciou": -2}[overlap.__name__] - 1e-6
        assert (ciou(a, other) <= diou(a, other) + 1e-6).all()


def test_the_weight_of_the_aspect_term_carries_no_gradient():
    a = torch.tensor([0.0, 0, 2, 1], dtype=torch.float64, requires_grad=True)
    b = torch.tensor([0.0, 0, 1, 1.5], dtype=torch.float64)
    (got,) = torch.autograd.grad(ciou(a, b), a)
    step = 1e-6

    def with_frozen_weight(x):
        overlap = reference.iou(a.detach(), b)
        v0, v = (4 / math.pi**2 * (math.atan(2 / 3) - torch.atan(y[2] / y[3])) ** 2 for y in (a.detach(), x))
        return reference.diou(x, b) - v * (v0 / (v0 - overlap + 1 + 1e-7))

    for i in range(2, 4):
        nudge = torch.zeros(4, dtype=torch.float64)
        nudge[i] = step
        slope = (with_frozen_weight(a.detach() + nudge) - with_frozen_weight(a.detach() - nudge)) / (2 * step)
        assert got[i].item() == pytest.approx(slope.item(), abs=1e-5)


@pytest.mark.parametrize("overlap", FAMILY)
def test_pairs_broadcast(overlap):
    a, b = random_boxes(5, 5), random_boxes(7, 6)
    table = overlap(a[:, None], b)
    assert table.shape == (5, 7)
    for i in range(5):
        torch.testing.assert_close(table[i], overlap(a[i].expand(7, 4), b), rtol=0, atol=1e-14)
    assert overlap(a[:0], b[:0]).shape == (0,)


def test_corners_and_centres_turn_into_each_other():
    assert cxcywh_to_xyxy(torch.tensor([[5.0, 6, 4, 2]])).tolist() == [[3, 5, 7, 7]]
    assert xyxy_to_cxcywh(torch.tensor([[3.0, 5, 7, 7]])).tolist() == [[5, 6, 4, 2]]
    boxes = random_boxes(50, 7)
    torch.testing.assert_close(cxcywh_to_xyxy(xyxy_to_cxcywh(boxes)), boxes, rtol=0, atol=1e-13)
    assert torch.autograd.gradcheck(cxcywh_to_xyxy, boxes[:2].requires_grad_())
