"""Candidates are the anchors that a plain in-box test finds, whatever the box."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compiled_loss.assign.regions import enlarge_small_sides
from compiled_loss.pages import PAGE, pages_of
from tests.assign.scenes import anchors_of, candidates_of, cells_of
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
    real = torch.ones(len(boxes), dtype=torch.bool)
    assert cells_of(boxes, real, grids, strides).counts.tolist() == [*truth.sum(1).tolist(), 0]
    found = candidates_of(boxes, real, grids, strides)
    assert len(found.anchor) == max(-(-truth.sum(1) // PAGE).sum(), 1)
    for n in range(len(boxes)):
        assert anchors_of(found, n) == np.flatnonzero(truth[n]).tolist(), boxes[n]
    assert (found.anchor[~found.inside] == 0).all()


@levels
@pytest.mark.parametrize("layout", LAYOUTS)
def test_candidates_of_hard_batches_equal_a_plain_search(layout, grids, strides):
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
def test_candidates_of_any_boxes_equal_a_plain_search_reversed_and_on_grid_lines_too(boxes, name):
    check(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), *LEVELS[name])


@levels
def test_boxes_that_are_not_numbers_have_no_candidates_and_whole_planes_have_all(grids, strides):
    nan, inf = float("nan"), float("inf")
    broken = torch.tensor([[nan] * 4, [nan, 0, 50, 50], [0, 0, nan, 50], [0, 0, 50, nan], [inf] * 4, [-inf] * 4])
    real = torch.ones(len(broken), dtype=torch.bool)
    assert cells_of(broken, real, grids, strides).counts.tolist() == [0] * (len(broken) + 1)
    assert not candidates_of(broken, real, grids, strides).inside.any()
    everything = torch.tensor([[-1e30, -1e30, 1e30, 1e30]])
    assert cells_of(everything, real[:1], grids, strides).counts.tolist() == [sum(h * w for h, w in grids), 0]


def test_padding_rows_have_no_candidates():
    grids, strides = LEVELS["three levels"]
    boxes = torch.tensor([[0.0, 0, 64, 64]]).repeat(3, 1)
    real = torch.tensor([True, False, True])
    assert cells_of(boxes, real, grids, strides).counts.tolist() == [84, 0, 84, 0]
    assert candidates_of(boxes, real, grids, strides).layout.group.tolist() == [0, 0, 2, 2]


@levels
def test_too_few_pages_keep_the_first_candidates_and_too_many_are_empty(grids, strides):
    height, width = grids[0][0] * strides[0], grids[0][1] * strides[0]
    boxes = torch.from_numpy(pixel_boxes(make_batch(5, counts=(40,), size=(height, width)).boxes, height, width))
    real = torch.ones(40, dtype=torch.bool)
    full = candidates_of(boxes, real, grids, strides)
    needed = len(full.anchor)
    for pages in (1, needed // 2, needed - 1, needed, needed + 3):
        some = candidates_of(boxes, real, grids, strides, pages=pages)
        kept = min(pages, needed)
        assert torch.equal(some.anchor[:kept], full.anchor[:kept])
        assert torch.equal(some.inside[:kept], full.inside[:kept])
        assert not some.inside[kept:].any()
        ends = pages_of(cells_of(boxes, real, grids, strides).counts[:-1]).cumsum(0)
        assert some.layout.fits.tolist() == (ends <= pages).tolist()


def test_only_short_sides_are_enlarged():
    boxes = torch.tensor([[10.0, 10, 14, 30], [1.0, 2.0, 90.5, 18.0], [5.0, 5, 5, 5]])
    expected = [[4, 10, 20, 30], boxes[1].tolist(), [-3, -3, 13, 13]]
    assert enlarge_small_sides(boxes, 16).tolist() == expected


def test_no_rows_give_no_candidates():
    grids, strides = LEVELS["two levels"]
    found = candidates_of(torch.zeros(0, 4), torch.zeros(0, dtype=torch.bool), grids, strides)
    assert (found.anchor.shape, found.inside.any().item()) == ((1, PAGE), False)
