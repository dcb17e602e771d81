"""Candidates of oriented boxes are the anchors that a plain search finds, and the plan makes room for them."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compiled_loss.assign.candidates import Candidates
from compiled_loss.assign.rotated import keep_inside, rotated_reach
from compiled_loss.data.plan import TargetPlan
from compiled_loss.data.targets import Targets
from compiled_loss.pages import pages_of
from tests.assign.scenes import anchors_of, candidates_of, cells_of
from tests.reference.batches import LAYOUTS, make_batch
from tests.reference.losses import anchor_grid
from tests.reference.rotated import candidates, pixel_rboxes

LEVELS = {
    "three levels": (((12, 16), (6, 8), (3, 4)), (8, 16, 32)),
    "odd strides": (((9, 12), (5, 6), (3, 3)), (10, 20, 40)),
    "a single level": (((7, 5),), (7,)),
}
levels = pytest.mark.parametrize(("grids", "strides"), LEVELS.values(), ids=LEVELS)


def found_in(boxes: torch.Tensor, grids, strides, pages: int | None = None) -> Candidates:
    points, steps = anchor_grid(grids, strides)
    real = torch.ones(len(boxes), dtype=torch.bool)
    around = candidates_of(rotated_reach(boxes, strides), real, grids, strides, pages=pages)
    return keep_inside(around, boxes, torch.from_numpy(points * steps[:, None]), strides)


def cells_around(boxes: torch.Tensor, grids, strides) -> torch.Tensor:
    real = torch.ones(len(boxes), dtype=torch.bool)
    return cells_of(rotated_reach(boxes, strides), real, grids, strides).counts[:-1]


def check(boxes: torch.Tensor, grids, strides) -> None:
    points, steps = anchor_grid(grids, strides)
    found = found_in(boxes, grids, strides)
    for n, box in enumerate(boxes.numpy()):
        wanted = candidates(points * steps[:, None], box, strides[min(1, len(strides) - 1)]).nonzero()[0].tolist()
        assert anchors_of(found, n) == wanted, box
        assert cells_around(boxes, grids, strides)[n] >= len(wanted)
    assert not found.anchor[~found.inside].any()


@levels
@pytest.mark.parametrize("layout", LAYOUTS)
def test_candidates_of_hard_batches_equal_a_plain_search(layout, grids, strides):
    size = grids[0][0] * strides[0], grids[0][1] * strides[0]
    for seed in range(3):
        batch = make_batch(seed, layout=layout, counts=(60,), size=size, oriented=True)
        check(torch.from_numpy(pixel_rboxes(batch.boxes, *size)), grids, strides)


quarters = st.integers(-80, 600).map(lambda q: q / 4)
turns = st.one_of(st.integers(-4, 4).map(lambda q: q * math.pi / 4), st.floats(-6.25, 6.25, width=32))


@settings(deadline=None, max_examples=150)
@given(st.lists(st.tuples(quarters, quarters, quarters.map(abs), quarters.map(abs), turns), max_size=6))
def test_candidates_of_any_boxes_equal_a_plain_search(boxes):
    check(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 5), *LEVELS["three levels"])


def test_broken_and_padded_rows_have_no_candidates():
    grids, strides = LEVELS["three levels"]
    box = torch.tensor([48.0, 48, 60, 30, 0.5])
    rows = box.repeat(6, 1)
    rows[torch.arange(5), torch.arange(5)] = math.nan
    found = found_in(rows, grids, strides)
    assert [bool(anchors_of(found, n)) for n in range(6)] == [False] * 5 + [True]


def test_too_few_pages_keep_the_first_candidates():
    grids, strides = LEVELS["three levels"]
    boxes = torch.tensor([[64.0, 48, 90, 20, 0.6], [30.0, 30, 10, 10, 0.0]])
    full, cut = found_in(boxes, grids, strides), found_in(boxes, grids, strides, 1)
    assert torch.equal(cut.inside, full.inside[:1])
    assert cut.layout.fits.tolist() == [False, False]


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(quarters, quarters, quarters.map(abs), quarters.map(abs), turns), min_size=1, max_size=6))
def test_the_plan_holds_every_slot_of_a_turned_box(boxes):
    grids, strides = LEVELS["three levels"]
    rows = torch.tensor(boxes, dtype=torch.float64)
    exact = rows[:, :4] / torch.tensor([128, 96, 128, 96])
    zeros = torch.zeros(len(rows), dtype=torch.int64)
    targets = Targets(zeros, zeros, exact.float(), angles=rows[:, 4].float())
    plan = TargetPlan((96, 128), strides)
    planned = plan.apply(targets).pages
    assert isinstance(planned, torch.Tensor)
    for found in (rows.float(), torch.cat([targets.boxes * torch.tensor([128, 96, 128, 96]), rows[:, 4:].float()], 1)):
        assert pages_of(cells_around(found, grids, strides)).sum() <= len(planned)


def test_an_upright_box_needs_a_cell_more_at_most_on_the_sides():
    grids, strides = LEVELS["three levels"]
    box, real = torch.tensor([[13.0, 14.0, 71.0, 55.0]]), torch.tensor([True])
    turned = torch.tensor([[42.0, 34.5, 58.0, 41.0, 0.0]])
    assert anchors_of(found_in(turned, grids, strides), 0) == anchors_of(candidates_of(box, real, grids, strides), 0)
    assert torch.equal(cells_around(turned, grids, strides), cells_of(box, real, grids, strides).counts[:-1])
