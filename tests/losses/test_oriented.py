"""The loss of oriented boxes against the float64 loops, and what a turned box adds."""

import math
from typing import Any

import pytest
import torch

from compiled_loss import (
    BinaryCrossEntropy,
    DenseLoss,
    OrientedLoss,
    Predictions,
    TargetPlan,
    Targets,
    TaskAligned,
)
from tests.losses.scenes import Scene, assert_equal, make_scene, outcome, positives
from tests.reference.batches import KINDS, LAYOUTS

TOLERANCE = {torch.float64: {"items": 2e-6, "gradients": 2e-5}, torch.float32: {"items": 1e-5, "gradients": 5e-5}}


def check(criterion: DenseLoss, scene: Scene) -> None:
    for dtype, tolerance in TOLERANCE.items():
        assert_equal(criterion, scene.to(dtype), **tolerance)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_oriented_boxes_on_every_kind_of_batch(layout, kind):
    criterion = OrientedLoss(3)
    for seed in (5, 6):
        check(criterion, make_scene(seed, criterion, layout=layout, kind=kind))


@pytest.mark.parametrize(
    "criterion",
    [
        OrientedLoss(3, reg_max=1),
        OrientedLoss(3, reg_max=8, assigner=TaskAligned(7, 1, 1.0, 4.0)),
        OrientedLoss(3, classification=BinaryCrossEntropy([0.25, 1.0, 4.0])),
        OrientedLoss(1, strides=(10, 20, 40)),
        OrientedLoss(2, strides=(20,), reg_max=6),
    ],
)
def test_every_option_of_the_head_and_of_the_loss(criterion):
    for seed in (1, 2):
        check(criterion, make_scene(seed, criterion, size=(160, 160), counts=(4, 0, 9)))


@pytest.mark.parametrize("counts", [(1,), (0, 0, 1), (60,)])
def test_few_and_many_objects(counts):
    criterion = OrientedLoss(3)
    check(criterion, make_scene(4, criterion, counts=counts))


def test_rows_below_two_pixels_count_nothing_and_rows_of_two_do():
    criterion = OrientedLoss(1, strides=(8, 16))
    predictions = Predictions(
        torch.zeros(1, 64, 20), torch.zeros(1, 1, 20), ((4, 4), (2, 2)), angles=torch.zeros(1, 1, 20)
    )
    for side, counts in ((2.0, True), (1.99, False)):
        boxes = torch.tensor([[0.5, 0.5, 0.5, side / 32], [0.5, 0.5, side / 32, 0.5]])
        targets = Targets(torch.tensor([0, 0]), torch.tensor([0, 0]), boxes, angles=torch.tensor([0.4, 1.0]))
        found = criterion.assign(predictions, targets)
        assert sorted(set(found.row[found.valid].tolist())) == ([0, 1] if counts else [])
        assert criterion(predictions, targets).total.isfinite()


def test_the_same_boxes_turned_by_a_half_turn_give_the_same_loss():
    criterion = OrientedLoss(3)
    scene = make_scene(3, criterion, layout="spread")
    assert scene.targets.angles is not None
    turned = scene.targets._replace(angles=scene.targets.angles + math.pi)
    # Distances along the box's own axes swap sides, so the distance term alone may differ.
    one, other = criterion(*scene).terms, criterion(scene.predictions, turned).terms
    for name in ("box", "cls", "angle"):
        torch.testing.assert_close(one[name], other[name], rtol=1e-4, atol=0)


def test_a_planned_batch_gives_the_same_loss():
    criterion = OrientedLoss(3)
    scene = make_scene(2, criterion, layout="tiny")
    height, width = (8 * n for n in scene.predictions.grid_sizes[0])
    planned = TargetPlan((height, width)).apply(scene.targets)
    assert isinstance(planned.pages, torch.Tensor)
    out, same = criterion(scene.predictions, planned), criterion(*scene)
    assert (out.overflow, out.num_positives) == (0, same.num_positives)
    torch.testing.assert_close(out.total, same.total)


def test_dense_boxes_carry_the_angle():
    criterion = OrientedLoss(3)
    scene = make_scene(1, criterion)
    dense = criterion.assign_dense(*scene)
    assert dense.boxes.shape[2] == 5
    assert scene.targets.angles is not None
    at = dense.foreground
    assert torch.equal(dense.boxes[at][:, 4], scene.targets.angles[dense.row[at]])
    assert len(positives(criterion, scene)) == at.sum()


@pytest.mark.parametrize("value", [0.0, 1e4, -1e4])
@pytest.mark.parametrize("reg_max", [1, 16])
def test_gradients_are_finite_at_boxes_without_extent_and_far_away(value, reg_max):
    criterion = OrientedLoss(2, strides=(8, 16), reg_max=reg_max, check_values=False)  # of angles beyond a turn
    boxes = torch.full((1, 4 * reg_max, 20), value)
    maps = Predictions(boxes, torch.zeros(1, 2, 20), ((4, 4), (2, 2)), angles=torch.full((1, 1, 20), value))
    rows = torch.tensor([[0.5, 0.5, 0.5, 0.5], [0.5, 0.5, 0.0, 0.0], [0.3, 0.3, 1.0, 0.1]])
    targets = Targets(torch.zeros(3).long(), torch.tensor([0, 1, 1]), rows, angles=torch.tensor([0.0, 0.3, 9.0]))
    out, gradients = outcome(criterion, Scene(maps, targets).to(torch.float32))
    assert out.total.isfinite()
    assert all(x.isfinite().all() for x in gradients)


def test_what_an_oriented_head_lacks_is_named():
    criterion = OrientedLoss(2, strides=(8, 16))
    maps: dict[str, Any] = {
        "boxes": torch.zeros(1, 64, 20),
        "scores": torch.zeros(1, 2, 20),
        "grid_sizes": ((4, 4), (2, 2)),
    }
    rows: dict[str, Any] = {
        "batch_idx": torch.zeros(1).long(),
        "labels": torch.zeros(1).long(),
        "boxes": torch.full((1, 4), 0.5),
    }
    angles, turned = {"angles": torch.zeros(1, 1, 20)}, {"angles": torch.zeros(1)}
    cases: list[tuple[dict[str, Any], dict[str, Any], str]] = [
        ({}, turned, "predictions.angles: expected a tensor, got None"),
        (angles, {}, "targets.angles: expected a tensor, got None"),
        (
            {"angles": torch.zeros(1, 2, 20)},
            turned,
            r"predictions.angles: expected shape \[1, 1, 20\], got \(1, 2, 20\)",
        ),
        ({"angles": torch.zeros(1, 1, 20).int()}, turned, "predictions.angles: expected a floating-point dtype"),
        ({"angles": torch.zeros(1, 1, 20, device="meta")}, turned, "angles: expected device cpu, like boxes, got meta"),
    ]
    for p, t, message in cases:
        with pytest.raises(ValueError, match=message):
            criterion(Predictions(**maps, **p), Targets(**rows, **t))
