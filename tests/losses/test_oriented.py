"""The loss of oriented boxes against the float64 loops, and what a turned box adds."""


import pytest
import torch

from compiled_loss import DetectionLoss, OrientedLoss
from tests.losses.scenes import Scene, assert_equal, make_scene
from tests.reference.batches import KINDS, LAYOUTS

TOLERANCE = {torch.float64: {"items": 1e-5, "gradients": 5e-5}, torch.float32: {"items": 3e-5, "gradients": 1e-4}}


def check(criterion: DetectionLoss, scene: Scene) -> None:
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
        OrientedLoss(3, reg_max=8, top_k=7, keep=1, alpha=1.0, beta=4.0),
        OrientedLoss(3, class_weights=torch.tensor([0.25, 1.0, 4.0])),
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
