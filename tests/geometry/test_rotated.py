"""Oriented boxes: cases worked by hand, float64 loops, and gradients at boxes without extent."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compiled_loss.geometry.rotated import decode_rotated, inside_rotated, probiou, rotated_distances, rotated_hull
from tests.reference import rotated as reference

QUARTER = math.pi / 2
sides = st.one_of(st.floats(0, 300), st.sampled_from([0.0, 1e-6, 1.0, 1e4]))
boxes = st.tuples(st.floats(-50, 50), st.floats(-50, 50), sides, sides, st.floats(-4, 4))


def some_boxes(n: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    box = torch.rand(n, 5, generator=generator, dtype=torch.float64)
    return box * torch.tensor([40, 40, 60, 20, 6.0]) + torch.tensor([0, 0, 0.5, 0.5, -3.0])


def test_distances_along_turned_axes_decode_to_the_box_that_they_came_from():
    box, points = some_boxes(50), torch.rand(50, 2, dtype=torch.float64) * 80
    torch.testing.assert_close(decode_rotated(points, rotated_distances(points, box), box[:, 4]), box)
    torch.testing.assert_close(rotated_distances(points, box), reference.encode(points, box))


def test_a_quarter_turn_moves_the_centre_along_the_turned_axis():
    # Two to the right along the width, which a quarter turn points downwards.
    box = decode_rotated(torch.zeros(2), torch.tensor([0.0, 1.0, 4.0, 1.0]), torch.tensor(QUARTER))
    torch.testing.assert_close(box, torch.tensor([0.0, 2.0, 4.0, 2.0, QUARTER]))
    hull = rotated_hull(box)
    torch.testing.assert_close(hull, torch.tensor([-1.0, 0.0, 1.0, 4.0]))


def test_a_hull_touches_the_outermost_corners():
    box = some_boxes(40)
    half = box[:, 2:4] / 2
    cos, sin = box[:, 4].cos(), box[:, 4].sin()
    corners = []
    for x, y in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
        u, v = x * half[:, 0], y * half[:, 1]
        corners.append(box[:, :2] + torch.stack([u * cos - v * sin, u * sin + v * cos], 1))
    low, high = torch.stack(corners).aminmax(dim=0)
    torch.testing.assert_close(rotated_hull(box), torch.cat([low, high], 1))


def test_points_on_a_side_are_inside_and_those_beyond_are_not():
    diamond = torch.tensor([0.0, 0.0, 2.0, 2.0, QUARTER / 2])
    points = torch.tensor([[0.0, 0.0], [0.0, 1.41], [0.0, 1.42], [0.9, 0.9], [0.7, 0.7]])
    assert inside_rotated(points, diamond).tolist() == [True, True, False, False, True]
    upright = torch.tensor([10.0, 10.0, 6.0, 4.0, 0.0])
    assert inside_rotated(torch.tensor([[7.0, 8.0], [13.0, 12.0], [13.5, 10.0]]), upright).tolist() == [1, 1, 0]
    assert not inside_rotated(torch.zeros(2), torch.tensor([0.0, 0.0, 2.0, 2.0, math.nan])).any()


def test_the_overlap_of_concentric_squares_is_what_their_variances_say():
    # Variances p and 4p: S = 25 p^2, sqrt(det det) = 4 p^2, so D = ln(25 / 16) / 2 and exp(-D) = 4 / 5.
    one, double = torch.tensor([3.0, 4, 6, 6, 0.3]).double(), torch.tensor([3.0, 4, 12, 12, 0.3]).double()
    assert probiou(one, double).item() == pytest.approx(1 - math.sqrt(0.2), abs=1e-6)


def test_the_overlap_of_shifted_squares_is_what_their_distance_says():
    # Variance 3 each, 2 apart: D = 2^2 / (8 * 3).
    one, other = torch.tensor([0.0, 0, 6, 6, 0]).double(), torch.tensor([2.0, 0, 6, 6, 0]).double()
    assert probiou(one, other).item() == pytest.approx(1 - math.sqrt(1 - math.exp(-1 / 6)), abs=1e-6)


def test_a_square_overlaps_itself_however_it_is_turned_and_a_box_a_half_turn_on():
    square, long = torch.tensor([5.0, 5, 8, 8, 0.2]), torch.tensor([5.0, 5, 20, 2, 0.2])
    for turn in (0.3, QUARTER, 2.0):
        assert probiou(square, square + torch.tensor([0, 0, 0, 0, turn])).item() > 0.999
    assert probiou(long, long + torch.tensor([0, 0, 0, 0, math.pi])).item() > 0.999
    assert probiou(long, long + torch.tensor([0, 0, 0, 0, QUARTER])).item() < 0.5


@pytest.mark.parametrize("floor", [0.0, 0.01])
def test_overlaps_equal_the_plain_formula_in_float64(floor):
    first, second = some_boxes(400, 1), some_boxes(400, 2)
    first[::3, :2] = second[::3, :2] + 0.1  # near ones too
    expected = reference.probiou(first, second, floor)
    torch.testing.assert_close(probiou(first, second, floor), expected, rtol=0, atol=1e-9)
    # Terms are sums of squares, so float32 stays close where the plain formula cancels.
    torch.testing.assert_close(probiou(first.float(), second.float(), floor).double(), expected, rtol=0, atol=2e-5)


def test_thin_boxes_keep_their_overlap_in_float32():
    thin = torch.tensor([[300.0, 200.0, 800.0, 2.0, 0.7]])
    other = thin + torch.tensor([0.3, 0.2, 5.0, 0.1, 2e-4])
    expected = reference.probiou(thin.double(), other.double())
    assert abs(probiou(thin, other).item() - expected.item()) < 1e-4


@settings(deadline=None, max_examples=200)
@given(boxes, boxes, st.sampled_from([0.0, 0.01]))
def test_every_pair_has_a_finite_overlap_below_one_and_a_finite_gradient(first, second, floor):
    leaves = [torch.tensor(x, dtype=torch.float32, requires_grad=True) for x in (first, second)]
    overlap = probiou(leaves[0], leaves[1], floor)
    assert -1e-3 <= overlap.item() <= 1
    for gradient in torch.autograd.grad(overlap, leaves):
        assert gradient.isfinite().all(), gradient


def test_an_overlap_is_the_same_either_way_round():
    first, second = some_boxes(100, 3), some_boxes(100, 4)
    torch.testing.assert_close(probiou(first, second), probiou(second, first), rtol=0, atol=1e-12)


def test_gradients_equal_those_of_the_plain_formula():
    def gradient(function):
        leaves = [x.requires_grad_() for x in (some_boxes(60, 5), some_boxes(60, 6))]
        return torch.autograd.grad(function(*leaves, 0.01).sum(), leaves)

    for got, expected in zip(gradient(probiou), gradient(reference.probiou), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-8)
