"""One small batch for every task: all of a head's maps, and rows with all of their fields."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from compiled_loss import (
    BinaryCrossEntropy,
    DenseLoss,
    DetectionLoss,
    OrientedLoss,
    PoseLoss,
    Predictions,
    ResidualPoseLoss,
    SegmentationLoss,
    Targets,
    TaskAligned,
)
from tests.losses.scenes import Scene
from tests.reference.batches import make_batch, make_predictions
from tests.reference.flow import log_density
from tests.reference.mask_batches import add_mask_predictions, add_masks

CLASSES, KEYPOINTS = 3, 5
OPTIONS: dict[str, tuple[Callable[..., DenseLoss], dict[str, Any]]] = {
    "detection": (DetectionLoss, {}),
    "detection without bins": (DetectionLoss, {"reg_max": 1}),
    "pose": (PoseLoss, {"num_keypoints": KEYPOINTS}),
    "residual pose": (ResidualPoseLoss, {"num_keypoints": KEYPOINTS, "reg_max": 1, "flow": log_density}),
    "oriented": (OrientedLoss, {}),
    "segmentation": (SegmentationLoss, {}),
    "segmentation that compares masks": (SegmentationLoss, {"reg_max": 1, "mask_overlap": True}),
}
STACKED = "segmentation that compares masks"  # the others with masks have index maps


def make_loss(task: str, **changes: Any) -> DenseLoss:
    """The task's loss; changes may be arguments of its default parts too."""
    kind, options = OPTIONS[task]
    selected = {name: changes.pop(name) for name in ("top_k", "keep", "alpha", "beta") if name in changes}
    if selected:
        changes["assigner"] = TaskAligned(**selected)
    if "class_weights" in changes:
        changes["classification"] = BinaryCrossEntropy(changes.pop("class_weights"))
    return kind(CLASSES, **(options | changes))


def make_task(task: str, seed: int = 1, counts: tuple[int, ...] = (4, 5, 3)) -> Scene:
    """A batch for the task's loss. Gradients flow to the predictions."""
    kind, options = OPTIONS[task]
    pose, masks = kind in (PoseLoss, ResidualPoseLoss), kind is SegmentationLoss
    points = KEYPOINTS if pose else 0
    batch = make_batch(seed, counts=counts, layout="spread", num_keypoints=points, oriented=kind is OrientedLoss)
    residual = kind is ResidualPoseLoss
    raw = make_predictions(
        seed, batch, reg_max=options.get("reg_max", 16), num_keypoints=points, keypoint_sigmas=residual
    )
    if masks:
        batch = add_masks(seed, batch, stacked=task == STACKED)
        raw = add_mask_predictions(seed, batch, raw, semantic=True)
    fields: dict[str, Any] = {"angles": batch.boxes[:, 4]} if kind is OrientedLoss else {}
    if masks:
        fields = {"masks" if task == STACKED else "index_map": batch.masks, "class_map": batch.class_map}
    rows = Targets(batch.batch_idx, batch.labels, batch.boxes[:, :4], batch.keypoints, **fields)
    return Scene(Predictions(**raw._asdict()), rows).to(torch.float32)


def maps_of(task: str) -> dict[str, Tensor]:
    """The maps that the task's head gives, by name."""
    return {name: x for name, x in make_task(task).predictions._asdict().items() if isinstance(x, Tensor)}
