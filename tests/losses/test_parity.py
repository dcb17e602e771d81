"""Detection and pose losses against the float64 loops: items, gradients and positives."""

from typing import Any

import pytest
import torch

from compiled_loss import BinaryCrossEntropy, DenseLoss, DetectionLoss, PoseLoss, TaskAligned
from tests.losses.scenes import Scene, assert_equal, make_scene
from tests.reference.batches import KINDS, LAYOUTS

# Float64 predictions bring out the formulas: the assigner alone is float32 then. It takes an overlap of pixel boxes to
# the sixth power, so a small box at 320 pixels from the origin has a target score that is off by some 1e-5.
TOLERANCE = {torch.float64: {"items": 2e-6, "gradients": 2e-5}, torch.float32: {"items": 1e-5, "gradients": 2e-5}}
SIGMAS = torch.linspace(0.03, 0.3, 5)


def check(criterion: DenseLoss, scene: Scene) -> None:
    for dtype, tolerance in TOLERANCE.items():
        assert_equal(criterion, scene.to(dtype), **tolerance)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_detection_on_every_kind_of_batch(layout, kind):
    criterion = DetectionLoss(3)
    check(criterion, make_scene(5, criterion, layout=layout, kind=kind))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_pose_on_every_kind_of_batch(layout, kind):
    criterion = PoseLoss(2, 5)
    check(criterion, make_scene(6, criterion, layout=layout, kind=kind))


@pytest.mark.parametrize(
    "criterion",
    [
        DetectionLoss(3, reg_max=1),
        DetectionLoss(3, reg_max=8, assigner=TaskAligned(top_k=4, alpha=1.0, beta=4.0)),
        DetectionLoss(3, classification=BinaryCrossEntropy([0.25, 1.0, 4.0])),
        DetectionLoss(1, strides=(10, 20, 40)),
        DetectionLoss(3, strides=(16, 32), reg_max=1),
        DetectionLoss(2, strides=(20,), reg_max=6),
        PoseLoss(1, 17),
        PoseLoss(1, 17, keypoint_dims=2),
        PoseLoss(2, 5, sigmas=SIGMAS),
        PoseLoss(2, 5, keypoint_dims=2, reg_max=1, sigmas=SIGMAS),
        PoseLoss(3, 5, classification=BinaryCrossEntropy([0.5, 1.0, 2.0])),
    ],
)
@pytest.mark.parametrize("seed", [1, 2])
def test_every_option_of_the_head_and_of_the_loss(criterion, seed):
    check(criterion, make_scene(seed, criterion, size=(160, 160), counts=(4, 0, 9)))


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("values", [2, 3])
def test_keypoints_of_two_and_of_three_values(values, dims):
    criterion = PoseLoss(2, 5, keypoint_dims=dims)
    check(criterion, make_scene(9, criterion, values=values))


@pytest.mark.parametrize("size", [(32, 32), (64, 160), (224, 96), (320, 320)])
def test_images_of_any_size(size):
    criterion = PoseLoss(2, 5)
    check(criterion, make_scene(3, criterion, size=size))


@pytest.mark.parametrize("counts", [(1,), (0, 0, 1), (60,), (0, 25, 0, 25)])
def test_few_and_many_objects(counts):
    criterion = DetectionLoss(3)
    check(criterion, make_scene(4, criterion, counts=counts))


def test_rows_in_any_order_give_the_same_loss():
    criterion = PoseLoss(2, 5)
    scene = make_scene(7, criterion)
    order = torch.randperm(len(scene.targets.labels))
    shuffled = scene._replace(targets=scene.targets._map(lambda x: x[order]))
    check(criterion, shuffled)
    torch.testing.assert_close(criterion(*shuffled).total, criterion(*scene).total)


def test_gains_multiply_their_own_term():
    scene = make_scene(8, PoseLoss(2, 5))
    plain = PoseLoss(2, 5)(*scene).terms
    gains = {"box": 3.0, "cls": 5.0, "dfl": 7.0, "pose": 11.0, "kobj": 13.0}
    defaults = {"box": 7.5, "cls": 0.5, "dfl": 1.5, "pose": 12.0, "kobj": 1.0}
    options: dict[str, Any] = {f"{name}_gain": gain for name, gain in gains.items()}
    changed = PoseLoss(2, 5, **options)(*scene).terms
    for name, gain in gains.items():
        torch.testing.assert_close(changed[name] / gain, plain[name] / defaults[name])


def test_planned_pages_give_the_same_numbers():
    criterion = PoseLoss(2, 5)
    scene = make_scene(2, criterion, layout="tiny")
    planned = scene._replace(targets=scene.targets._replace(pages=64))
    check(criterion, planned)
    assert criterion(*planned).total == criterion(*scene).total
