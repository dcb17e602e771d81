"""The released implementation as a black box: built from a configuration name, called, never read.

Needs `ultralytics==8.4.190` in the environment. It needs target rows sorted by image.
"""

import copy
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from ultralytics import YOLO  # pyright: ignore[reportMissingImports]
from ultralytics.nn.tasks import DetectionModel, PoseModel  # pyright: ignore[reportMissingImports]

from tests.reference.batches import Batch, Raw

GAINS = {"box": 7.5, "cls": 0.5, "dfl": 1.5, "pose": 12.0, "kobj": 1.0}


class Head(NamedTuple):
    """Which model to build, and how its head differs from the stock one."""

    config: str
    num_classes: int
    reg_max: int = 16
    kpt_shape: tuple[int, int] | None = None  # K, D
    class_weights: tuple[float, ...] | None = None


class Outcome(NamedTuple):
    """What a criterion says about one batch."""

    vector: Tensor  # loss terms times B
    items: dict[str, Tensor]  # the same, detached, not times B
    gradients: dict[str, Tensor]  # of vector.sum()
    positives: set[tuple[int, int, int]]  # image, anchor, row

    def terms(self, batch_size: int) -> dict[str, float]:
        """Items times B, by their short names."""
        return {name.removesuffix("_loss"): x.item() * batch_size for name, x in self.items.items()}


def build_model(head: Head) -> Any:
    """A model with random weights, the same every time."""
    torch.manual_seed(0)
    kind = DetectionModel if head.kpt_shape is None else PoseModel
    config = copy.deepcopy(kind(head.config, verbose=False).yaml)
    config |= {"nc": head.num_classes, "reg_max": head.reg_max}
    if head.kpt_shape is not None:
        config["kpt_shape"] = list(head.kpt_shape)
    model = kind(config, verbose=False)
    model.args = SimpleNamespace(**GAINS)
    if head.class_weights is not None:
        model.class_weights = torch.tensor(head.class_weights)
    return model


def build_other(config: str) -> Any:
    """A stock model of any kind."""
    return YOLO(config).model


def preds_and_batch(batch: Batch, raw: Raw) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The arguments of a criterion; the predictions are fresh leaves that collect gradients."""
    preds: dict[str, Any] = {"boxes": raw.boxes.clone().requires_grad_(), "scores": raw.scores.clone().requires_grad_()}
    preds["feats"] = [torch.zeros(batch.batch_size, 1, *size) for size in raw.grid_sizes]
    rows = {"batch_idx": batch.batch_idx.float(), "cls": batch.labels[:, None].float(), "bboxes": batch.boxes}
    if raw.keypoints is not None and batch.keypoints is not None:
        preds["kpts"] = raw.keypoints.clone().requires_grad_()
        rows["keypoints"] = batch.keypoints
    return preds, rows


def gradients(vector: Tensor, preds: dict[str, Any]) -> dict[str, Tensor]:
    """Of the sum of the terms with respect to each prediction."""
    leaves = {name: x for name, x in preds.items() if name != "feats"}
    found = torch.autograd.grad(vector.sum(), list(leaves.values()), allow_unused=True, materialize_grads=True)
    return {"keypoints" if name == "kpts" else name: x for name, x in zip(leaves, found, strict=True)}


class Oracle:
    """The model's own criterion, whose assigner's answer is overheard."""

    def __init__(self, model: Any) -> None:
        self.criterion = model.init_criterion()
        self.criterion.assigner.register_forward_hook(lambda _module, _inputs, outputs: self._hear(outputs))

    def __call__(self, batch: Batch, raw: Raw) -> Outcome:
        preds, rows = preds_and_batch(batch, raw)
        vector, items = self.criterion(preds, rows)
        first_row = [int((batch.batch_idx < image).sum()) for image in range(batch.batch_size)]
        positives = {
            (image, anchor, first_row[image] + int(self.place[image, anchor]))
            for image, anchor in self.foreground.nonzero().tolist()
        }
        return Outcome(vector.detach(), items, gradients(vector, preds), positives)

    def _hear(self, outputs: tuple[Tensor, ...]) -> None:
        self.foreground, self.place = outputs[3], outputs[4]
