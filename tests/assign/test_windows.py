"""Candidate windows list the anchors that a plain in-box test finds, whatever the box."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compiled_loss.assign.windows import candidate_counts, candidate_windows, enlarge_small_sides
from tests.reference.assigner import candidates, pixel_boxes
from tests.reference.batches import LAYOUTS, make_batch
from tests.reference.losses import anchor_grid

LEVELS = {
    "three levels": (((12, 16), (6, 8), (3, 4)), (8, 16, 32)),
    "odd strides": (((9, 12), (5, 6), (3, 3)), (10, 20, 40)),
    "a single level": (((7, 5),), (7,)),
    "an empty level": (((8, 8), (4, 4), (0, 0)), (8, 16, 128)),
    "two levels": (((3, 8), (1, 4)), (16, 32)),
}
levels = pytest.mark.parametrize(("grids", "strides"), LEVELS.values(), ids=LEVELS)


def in_box(boxes: torch.Tensor, grids, strides) -> np.ndarray:
    """Every anchor against every box, `[N, A]`."""
    points, steps = anchor_grid(grids, strides)
    anchors = points.reshape(-1, 2) * steps[:, None]
    small = strides[min(1, len(strides) - 1)]
    with np.errstate(over="ignore", invalid="ignore"):
        found = [candidates(anchors, box, small) for box in boxes.numpy()]
    return np.array(found, bool).reshape(len(boxes), len(anchors))


def check(boxes: torch.Tensor, grids, strides) -> None:
    truth = in_box(boxes, grids, strides)
    windows = candidate_windows(boxes, torch.ones(len(boxes), dtype=torch.bool), grids, strides, None)
    assert windows.anchor.shape == truth.shape
    assert windows.counts.tolist() == truth.sum(1).tolist()
    assert torch.equal(candidate_counts(boxes, grids, strides), windows.counts)
    for n in range(len(boxes)):
        assert windows.anchor[n, windows.inside[n]].tolist() == np.flatnonzero(truth[n]).tolist(), boxes[n]
        assert windows.inside[n].tolist() == sorted(windows.inside[n].tolist(), reverse=True)
    assert (windows.anchor[~windows.inside] == 0).all()


@levels
@pytest.mark.parametrize("layout", LAYOUTS)
def test_windows_of_hard_batches_equal_a_plain_search(layout, grids, strides):
    height, width = grids[0][0] * strides[0], grids[0][1] * strides[0]
    batch = make_batch(3, layout=layout, counts=(60,), size=(height, width))
    check(torch.from_numpy(pixel_boxes(batch.boxes, height, width)), grids, strides)


# Sides on anchors and between them, to the pixel, to a quarter, and a rounding step beside.
coordinates = st.one_of(
    st.integers(-160, 640).map(lambda q: q / 4),
    st.integers(-40, 160).map(lambda q: float(np.nextafter(np.float32(q), np.float32(1e9)))),
    st.integers(-40, 160).map(lambda q: float(np.nextafter(np.float32(q), np.float32(-1e9)))),
    st.floats(-1000, 1000, width=32),
)


@settings(deadline=None, max_examples=150)
@given(st.lists(st.tuples(coordinates, coordinates, coordinates, coordinates), max_size=6), st.sampled_from([*LEVELS]))
def test_windows_of_any_boxes_equal_a_plain_search_reversed_and_on_grid_lines_too(boxes, name):
    check(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), *LEVELS[name])


@levels
def test_boxes_that_are_not_numbers_have_no_candidates_and_whole_planes_have_all(grids, strides):
    nan, inf = float("nan"), float("inf")
    broken = torch.tensor([[nan] * 4, [nan, 0, 50, 50], [0, 0, nan, 50], [0, 0, 50, nan], [inf] * 4, [-inf] * 4])
    real = torch.ones(len(broken), dtype=torch.bool)
    windows = candidate_windows(broken, real, grids, strides, None)
    assert not windows.inside.any()
    assert windows.counts.tolist() == [0] * len(broken)
    everything = torch.tensor([[-1e30, -1e30, 1e30, 1e30]])
    assert candidate_counts(everything, grids, strides).tolist() == [sum(h * w for h, w in grids)]


def test_padding_rows_have_no_candidates():
    grids, strides = LEVELS["three levels"]
    boxes = torch.tensor([[0.0, 0, 64, 64]]).repeat(3, 1)
    windows = candidate_windows(boxes, torch.tensor([True, False, True]), grids, strides, 100)
    assert windows.counts.tolist() == [84, 0, 84]
    assert not windows.inside[1].any()


@levels
def test_a_planned_window_keeps_the_first_slots_and_counts_the_rest(grids, strides):
    height, width = grids[0][0] * strides[0], grids[0][1] * strides[0]
    boxes = torch.from_numpy(pixel_boxes(make_batch(5, counts=(40,), size=(height, width)).boxes, height, width))
    real = torch.ones(40, dtype=torch.bool)
    full = candidate_windows(boxes, real, grids, strides, None)
    for window in (1, 6, int(full.counts.max())):
        cut = candidate_windows(boxes, real, grids, strides, window)
        assert torch.equal(cut.counts, full.counts)
        assert torch.equal(cut.anchor, full.anchor[:, :window])
        assert torch.equal(cut.inside, full.inside[:, :window])


def test_only_short_sides_are_enlarged():
    boxes = torch.tensor([[10.0, 10, 14, 30], [1.0, 2.0, 90.5, 18.0], [5.0, 5, 5, 5]])
    expected = [[4, 10, 20, 30], boxes[1].tolist(), [-3, -3, 13, 13]]
    assert enlarge_small_sides(boxes, 16).tolist() == expected


def test_no_rows_give_no_windows():
    grids, strides = LEVELS["two levels"]
    windows = candidate_windows(torch.zeros(0, 4), torch.zeros(0, dtype=torch.bool), grids, strides, None)
    assert [x.shape for x in windows] == [(0, 28), (0, 28), (0,)]
