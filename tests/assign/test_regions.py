"""Regions hold what they say, none is larger than a plan thinks, and limited distances leave no row without anchors."""

import numpy as np
import pytest
import torch

from compiled_loss import (
    ATSS,
    DetectionLoss,
    InBox,
    NearCentre,
    Predictions,
    Scheduled,
    SimOTA,
    TargetPlan,
    Targets,
    TaskAligned,
)
from compiled_loss.assign.candidates import find_cells
from compiled_loss.assign.centres import Nearest
from compiled_loss.assign.keys import descending
from compiled_loss.assign.regions import WholeImage, candidates_in, of_levels
from compiled_loss.data.needs import needed_pages
from compiled_loss.geometry.boxes import cxcywh_to_xyxy
from compiled_loss.grid import make_anchors
from compiled_loss.losses.scene import to_pixels
from compiled_loss.pages import pages_of
from tests.reference.batches import LAYOUTS, make_batch

SIZE, STRIDES = (96, 128), (8, 16, 32)
GRIDS = ((12, 16), (6, 8), (3, 4))
REGIONS = {
    "in box": InBox(),
    "near sides": InBox(farthest=2.99),
    "in box as it is": InBox(grown=False),
    "near sides of the box as it is": InBox(farthest=2.99, grown=False),
    "whole image": WholeImage(),
    "near centre": NearCentre(1.5),
    "near centre or inside": NearCentre(2.5, or_inside=True),
    "nearest": Nearest(9),
    "nearest of many": Nearest(30),
    "one nearest": Nearest(1),
}
regions = pytest.mark.parametrize("region", REGIONS.values(), ids=REGIONS.keys())


def found(region, boxes: torch.Tensor, sizes=GRIDS, strides=STRIDES, **options):
    """The candidates of rows of one image, as lists."""
    points, steps = make_anchors(sizes, strides)
    image = torch.zeros(len(boxes), dtype=torch.int64)
    anchors = points * steps[:, None]
    c = candidates_in(region, boxes, image == 0, image, anchors, sizes, strides, **options)
    return [c.anchor[c.layout.group == n][c.inside[c.layout.group == n]].tolist() for n in range(len(boxes))], c


def boxes_of(seed: int, shift: float = 0.0) -> torch.Tensor:
    """Normalised centres and sides; shifted, some lie partly or wholly beyond the image."""
    boxes = torch.cat([make_batch(seed + i, layout=x, counts=(12,), size=SIZE).boxes for i, x in enumerate(LAYOUTS)])
    return boxes + torch.tensor([shift, -shift, 0, 0])


@regions
@pytest.mark.parametrize("shift", [0.0, 0.4, 1.0, -3.0])
def test_a_plan_keeps_room_for_every_region(region, shift):
    for seed in range(4):
        boxes = boxes_of(seed, shift)
        targets = Targets(torch.zeros(len(boxes), dtype=torch.int64), torch.zeros(len(boxes)).long(), boxes)
        needed = needed_pages(targets, SIZE, STRIDES, region=region)
        _, candidates = found(region, cxcywh_to_xyxy(to_pixels(boxes, SIZE)))
        assert (pages_of(torch.bincount(candidates.layout.group, minlength=99)[: len(boxes)] * 64) <= needed).all()
        if shift == 0:
            assert needed.sum() <= pages_of(torch.full((len(boxes),), sum(h * w for h, w in GRIDS))).sum()


def test_a_plan_of_a_schedule_keeps_room_for_both():
    boxes = boxes_of(1)
    targets = Targets(torch.zeros(len(boxes), dtype=torch.int64), torch.zeros(len(boxes)).long(), boxes)
    both = Scheduled(ATSS(), TaskAligned()).region
    alone = [needed_pages(targets, SIZE, STRIDES, region=x) for x in (Nearest(9, 3), InBox())]
    assert torch.equal(needed_pages(targets, SIZE, STRIDES, region=both), torch.maximum(*alone))
    assert (alone[0] > alone[1]).any()
    assert (alone[0] < alone[1]).any()


def test_a_plan_keeps_room_for_all_that_ignored_boxes_hold():
    boxes = boxes_of(1)
    targets = Targets(torch.zeros(len(boxes), dtype=torch.int64), torch.zeros(len(boxes)).long(), boxes)
    ignored = torch.arange(len(boxes)) % 3 == 0
    inside, near = (needed_pages(targets, SIZE, STRIDES, region=x) for x in (None, NearCentre(1.0)))
    both = needed_pages(targets._replace(ignore=ignored), SIZE, STRIDES, region=NearCentre(1.0))
    assert torch.equal(both, torch.where(ignored, inside, near))
    assert (inside > near).any()


def test_plans_of_a_data_set_follow_the_region():
    boxes = torch.tensor([[0.5, 0.5, 0.9, 0.9]])
    one = Targets(torch.tensor([0]), torch.tensor([0]), boxes)
    options = {"batch_size": 200, "image_size": (640, 640)}
    wide = TargetPlan.from_dataset([one] * 200, **options)
    small = TargetPlan.from_dataset([one] * 200, region=SimOTA().region, margin=0.25, **options)
    assert (wide.pages, small.pages) == (22528, 256)
    with pytest.raises(ValueError, match=r"region: expected a region, such as loss\.region, got str"):
        TargetPlan((64, 64), region="centre")  # type: ignore[arg-type]


@pytest.mark.parametrize("number", [1, 2, 5, 9, 13, 30])
def test_the_nearest_of_a_centre_in_the_image_are_no_more_than_said(number):
    strides, grids, region = (8, 16, 32), [(80, 80), (40, 40), (20, 20)], Nearest(number, 3)
    draw = np.random.default_rng(number)
    centres = np.concatenate([draw.uniform(0, 640, (4000, 2)), draw.choice([0, 4, 8, 12, 320, 636, 640], (400, 2))])
    boxes = torch.as_tensor(np.concatenate([centres - 3, centres + 3], 1), dtype=torch.float32)
    counts = find_cells(region.reach(boxes, strides, grids), boxes[:, 0] > -9, grids, strides).counts
    assert region.most is not None
    assert 0.5 * region.most < counts.max() <= region.most


def test_a_schedule_counts_rows_far_from_the_image_that_take_the_pages_of_others():
    """Around a centre far beyond a side the nearest anchors lie in a long strip."""
    boxes = torch.tensor([[-3.9, 0.4, 0.1, 0.1], [0.4, 0.4, 0.1, 0.1], [-3.9, 0.6, 0.1, 0.1]])
    targets = Targets(torch.zeros(3, dtype=torch.int64), torch.zeros(3).long(), boxes)
    maps = torch.zeros(1, 64, 8400), torch.zeros(1, 1, 8400)
    predictions = Predictions(*maps, ((80, 80), (40, 40), (20, 20)))

    def of(assigner):
        found = DetectionLoss(1, assigner=assigner, check_values=False).assign(predictions, targets._replace(pages=40))
        return found.overflow.item(), found.valid.view(3, -1).sum(1).tolist()

    assert of(ATSS()) == (0, [0, 9, 0])
    assert of(Scheduled(ATSS(), TaskAligned())) == (1, [0, 9, 0])
    assert of(Scheduled(ATSS(), TaskAligned(), second=True))[0] == 0


@pytest.mark.parametrize("shift", [0.0, 0.5, -2.0])
@pytest.mark.parametrize("number", [1, 4, 9, 30])
@pytest.mark.parametrize("sizes", [GRIDS, ((1, 16), (2, 8), (3, 4)), ((4, 4), (2, 2), (1, 1))])
def test_nearest_anchors_are_those_of_a_sort(sizes, number, shift):
    boxes = cxcywh_to_xyxy(to_pixels(boxes_of(2, shift), SIZE))
    points, steps = make_anchors(sizes, STRIDES)
    points = (points * steps[:, None]).numpy()
    got, _ = found(Nearest(number), boxes, sizes)
    for box, mine in zip(boxes.numpy(), got, strict=True):
        centre = ((box[:2] + box[2:]) / np.float32(2)).astype(np.float64)
        expected = []
        for stride in STRIDES:
            level = np.flatnonzero(steps.numpy() == stride)
            away = ((points[level].astype(np.float64) - centre) ** 2).sum(1).astype(np.float32)
            expected += level[np.argsort(away, kind="stable")[:number]].tolist()
        assert mine == sorted(expected)


@pytest.mark.parametrize("farthest", [1.0, 2.99, 6.99])
def test_limited_distances_are_those_that_a_head_can_tell(farthest):
    boxes = cxcywh_to_xyxy(to_pixels(boxes_of(3), SIZE))
    points, steps = make_anchors(GRIDS, STRIDES)
    anchors = points * steps[:, None]
    got, _ = found(InBox(farthest=farthest), boxes)
    all_of_them, _ = found(InBox(), boxes)
    for box, mine, every in zip(boxes, got, all_of_them, strict=True):
        sides = torch.cat([anchors - box[:2], box[2:] - anchors], 1) / steps[:, None]
        allowed = [a for a in every if sides[a].max() < farthest]
        assert set(allowed) <= set(mine)
        assert mine, "a row has no anchor"
        # Beyond the limit there are but those of the coarsest level, next to the centre.
        for a in set(mine) - set(allowed):
            assert steps[a] == 32
            assert ((anchors[a] - (box[:2] + box[2:]) / 2).abs() < 64).all()


def test_a_box_too_large_for_every_level_has_the_anchor_at_its_centre():
    # Sides of 128 by 96; with less than one cell of 32 to each side no anchor is near enough.
    got, _ = found(InBox(farthest=1.0), torch.tensor([[0.0, 0, 128, 96]]))
    coarsest = 12 * 16 + 6 * 8
    assert got == [[coarsest + 4 + 1, coarsest + 4 + 2]]  # 48, 48 and 80, 48: half a cell from the centre


def test_squares_and_boxes_about_a_centre_by_hand():
    box = torch.tensor([[0.0, 0.0, 64.0, 8.0]])  # centre 32, 4: in the first row of cells of 8
    got, _ = found(NearCentre(1.5), box, ((4, 8),), (8,))
    assert got == [[3, 4, 11, 12]]  # 20 to 44 along x, -8 to 16 along y
    got, _ = found(NearCentre(1.5, or_inside=True), box, ((4, 8),), (8,))
    assert got == [[0, 1, 2, 3, 4, 5, 6, 7, 11, 12]]


def test_numbers_of_levels_reach_their_anchors():
    assert of_levels([5, 6, 7], torch.tensor([[0, 191], [192, 240]]), GRIDS).tolist() == [[5, 5], [6, 7]]


@pytest.mark.parametrize("exporting", [False, True])
def test_smaller_costs_become_larger_numbers_exactly(exporting, monkeypatch):
    monkeypatch.setattr(torch.compiler, "_is_exporting_flag", exporting)
    generator = torch.Generator().manual_seed(0)
    bits = torch.randint(0x21800000 + 1, 0x60800000, (20000,), dtype=torch.int32, generator=generator)
    near = torch.stack([bits, bits - 1, bits + 1]).flatten().view(torch.float32)
    costs = torch.cat([near, torch.tensor([2.0**-60, 2.0**66, 1.0, 2.0, 1e5])]).unique()  # sorted
    merits = descending(costs)
    assert merits.isfinite().all()
    assert (merits >= torch.finfo(torch.float32).tiny).all()
    assert (merits.diff() < 0).all()
    assert torch.equal(
        descending(torch.tensor([0.0, 1e-30, 1e30])), descending(torch.tensor([2.0**-60] * 2 + [2.0**66]))
    )
