"""Anchor points and the codes of boxes and keypoints, by hand and there and back."""

import pytest
import torch

from compiled_loss.grid import (
    boxes_to_distances,
    decode_distances,
    decode_keypoints,
    distances_to_boxes,
    make_anchors,
)
from tests.reference.losses import anchor_grid


def test_anchors_lie_in_the_middle_of_cells_row_by_row_finest_level_first():
    anchors = make_anchors([(2, 3), (1, 2)], [8, 16])
    expected = [(0.5, 0.5), (1.5, 0.5), (2.5, 0.5), (0.5, 1.5), (1.5, 1.5), (2.5, 1.5), (0.5, 0.5), (1.5, 0.5)]
    assert anchors.points.tolist() == [list(p) for p in expected]
    assert anchors.strides.tolist() == [8] * 6 + [16] * 2


@pytest.mark.parametrize(
    ("grid_sizes", "strides"),
    [(((12, 16), (6, 8), (3, 4)), (8, 16, 32)), (((5, 7),), (7,)), (((8, 4), (4, 2)), (10, 20)), (((0, 3),), (8,))],
)
def test_anchors_equal_the_reference_loop(grid_sizes, strides):
    points, steps = anchor_grid(grid_sizes, strides)
    anchors = make_anchors(grid_sizes, strides)
    assert torch.equal(anchors.points, torch.from_numpy(points).reshape(-1, 2))
    assert torch.equal(anchors.strides, torch.from_numpy(steps))


def test_anchors_take_the_dtype_and_the_device_asked_for():
    anchors = make_anchors([(2, 2)], [8], dtype=torch.float64, device="meta")
    assert {(x.dtype, x.device.type) for x in anchors} == {(torch.float64, "meta")}


def test_levels_that_do_not_match_are_named():
    with pytest.raises(ValueError, match="grid_sizes: expected 3 levels as strides, got 2"):
        make_anchors([(2, 2), (1, 1)], [8, 16, 32])


def test_a_distance_is_the_expected_bin():
    logits = torch.full((1, 4, 16), -100.0)
    for side, (low, high) in enumerate(((0, 0), (3, 4), (15, 15), (7, 9))):
        logits[0, side, [low, high]] = 0
    torch.testing.assert_close(decode_distances(logits), torch.tensor([[0.0, 3.5, 15.0, 8.0]]))
    assert decode_distances(torch.zeros(2, 3, 4, 16)).tolist() == torch.full((2, 3, 4), 7.5).tolist()


def test_with_one_bin_the_raw_value_is_the_distance():
    raw = torch.tensor([[[-1.0], [2.0], [0.0], [3.5]]])
    assert decode_distances(raw).tolist() == [[-1, 2, 0, 3.5]]


def test_distances_and_boxes_turn_into_each_other():
    point = torch.tensor([[2.5, 3.5]])
    assert distances_to_boxes(point, torch.tensor([[1.0, 2, 3, 4]])).tolist() == [[1.5, 1.5, 5.5, 7.5]]
    points = torch.rand(30, 2, dtype=torch.float64) * 20
    distances = torch.randn(30, 4, dtype=torch.float64)
    back = boxes_to_distances(points, distances_to_boxes(points, distances))
    torch.testing.assert_close(back, distances, rtol=0, atol=1e-13)
    assert torch.autograd.gradcheck(distances_to_boxes, (points[:3], distances[:3].requires_grad_()))


def test_keypoints_are_twice_the_raw_value_from_the_corner_of_the_cell():
    raw = torch.tensor([[[0.0, 0.0], [0.25, -1.0]]])
    assert decode_keypoints(raw, torch.tensor([[2.5, 3.5]])).tolist() == [[[2.0, 3.0], [2.5, 1.0]]]
    assert decode_keypoints(torch.zeros(2, 3, 5, 2), torch.zeros(2, 3, 2)).shape == (2, 3, 5, 2)
