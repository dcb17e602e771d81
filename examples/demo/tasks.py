"""What sets one task apart from another: its loss, the third output of its head, its data, and how it is measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from compiled_loss import DenseLoss, DetectionLoss, EndToEndLoss, OrientedLoss, PoseLoss, SegmentationLoss
from demo.blobs import Blobs
from demo.boats import Boats
from demo.figures import Figures
from demo.labels import Dataset, Info
from demo.model import STRIDES, Detector

REG_MAX = 16
PROTOTYPES = 24


@dataclass(frozen=True)
class Task:
    """One of `TASKS`.

    Args:
        loss: its class; every other argument is that of detection.
        metric: what the evaluation prints, by COCO's rules.
        rendered: embedded data of a size, length, seed and split.
        field: field of `Predictions` that the head's third branch fills; None: there is no such branch.
        channels: of that branch.
        options: arguments of the loss.
    """

    loss: type[DenseLoss]
    metric: str
    rendered: Callable[[int, int, int, int], Dataset]
    field: str | None = None
    channels: Callable[[Info], int] = lambda info: 0
    options: Callable[[Info], dict[str, Any]] = lambda info: {}


TASKS = {
    "detect": Task(DetectionLoss, "AP", lambda *scene: Figures(*scene, keypoints=False)),
    "pose": Task(
        PoseLoss,
        "OKS-AP",
        Figures,
        field="keypoints",
        channels=lambda info: 3 * len(info.keypoints),
        options=lambda info: {"num_keypoints": len(info.keypoints), "sigmas": torch.tensor(info.sigmas)},
    ),
    "obb": Task(OrientedLoss, "AP of rotated boxes as polygons", Boats, field="angles", channels=lambda info: 1),
    "segment": Task(SegmentationLoss, "mask AP", Blobs, field="coefficients", channels=lambda info: PROTOTYPES),
}


def make_model(name: str, info: Info, end_to_end: bool) -> Detector:
    task = TASKS[name]
    return Detector(len(info.classes), task.field, task.channels(info), reg_max=REG_MAX, end_to_end=end_to_end)


def make_loss(name: str, info: Info, end_to_end: bool, **parts: Any) -> DenseLoss | EndToEndLoss:
    """Called with what the model returns, `(*branches, targets)`; parts are arguments of the loss."""
    task = TASKS[name]
    options = {"num_classes": len(info.classes), "strides": STRIDES, "reg_max": REG_MAX, **task.options(info), **parts}
    loss = task.loss(**options)
    return EndToEndLoss(loss) if end_to_end else loss
