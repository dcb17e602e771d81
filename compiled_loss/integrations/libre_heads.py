"""The losses of LibreYOLO's dense heads, assembled from parts: YOLOv9, YOLOX and RTMDet.

Letters: B images, N target rows, M target slots of an image, A anchors, C classes, R distance bins, P positive slots.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from compiled_loss.assign.centres import NearCentre
from compiled_loss.assign.dynamic import DynamicSoftLabel, SimOTA
from compiled_loss.assign.parts import Assigner, Pairs
from compiled_loss.assign.regions import InBox, Region
from compiled_loss.assign.task_aligned import TaskAligned
from compiled_loss.geometry.boxes import ciou, giou, iou
from compiled_loss.grid import Anchors, make_anchors
from compiled_loss.losses.comparing import OneMinus
from compiled_loss.losses.detection import DetectionLoss
from compiled_loss.losses.parts import Extra, Term, Weighted
from compiled_loss.losses.scene import Positives
from compiled_loss.numerics import at_least_float32, masked, one_minus_exp, total
from compiled_loss.reduce import has_ranks, normaliser
from compiled_loss.terms.focal import QualityFocalLoss
from compiled_loss.types import Assignment, Predictions


def yolov9_loss(own: Any) -> DetectionLoss:
    """The loss of a YOLOv9 head: task-aligned, distances within the range of the bins, an anchor for every row.

    Args:
        own: the trainer's loss, with `num_classes`, `reg_max`, `strides`, `topk`, `cls_factor`, `iou_factor`,
            `box_weight`, `cls_weight`, `dfl_weight` and `distributed_normalize`.

    Example:
        >>> from types import SimpleNamespace
        >>> powers, gains = {"cls_factor": 0.5, "iou_factor": 6.0}, {"box_weight": 7.5, "cls_weight": 0.5}
        >>> own = SimpleNamespace(num_classes=2, reg_max=16, strides=[8.0, 16.0, 32.0], topk=10, **powers, **gains,
        ...                       dfl_weight=1.5, distributed_normalize=True)
        >>> yolov9_loss(own).gains
        {'box': 7.5, 'cls': 0.5, 'dfl': 1.5}
    """
    region = InBox(farthest=own.reg_max - 1.01, grown=False)
    assigner = TaskAligned(own.topk, None, own.cls_factor, own.iou_factor, region, at_least_one=True)
    return DetectionLoss(
        own.num_classes,
        [int(x) for x in own.strides],
        reg_max=own.reg_max,
        assigner=assigner,
        overlap=ciou,
        box_gain=own.box_weight,
        cls_gain=own.cls_weight,
        dfl_gain=own.dfl_weight,
        distributed=own.distributed_normalize and has_ranks(),
    )


def yolox_loss(num_classes: int, strides: Sequence[int]) -> DetectionLoss:
    """The loss of a YOLOX head: SimOTA by class and objectness, with candidates shared by the rows of an image.

    Its last score is the objectness. Terms: `box`, by the square of the IoU; `obj` over all anchors; `cls` over the
    positives; and `raw`, the error of the convolutions' raw output.

    Args:
        num_classes: C, without objectness.
        strides: pixels per grid unit of each level, finest first.

    Example:
        >>> sorted(yolox_loss(80, [8, 16, 32]).gains)
        ['box', 'cls', 'l1', 'obj', 'raw']
    """
    return DetectionLoss(
        num_classes + 1,
        strides,
        reg_max=1,
        assigner=OfObjects(SimOTA(shared=NearCentre())),
        overlap=iou,
        box_term=OneMinus(_squared_iou),
        classification=classes_of_positives,
        extras=[Objectness(has_ranks()), RawBoxes()],
        box_gain=5.0,
        cls_gain=1.0,
        dfl_gain=0.0,
        distributed=has_ranks(),
    )


def yolox_maps(outputs: Tensor, strides: Sequence[int], image_size: tuple[int, int]) -> Predictions:
    """Decoded outputs `[B, A, 5 + C]` of a YOLOX head: centre and size in pixels, objectness, classes."""
    grid_sizes, anchors = _grid(strides, image_size, outputs)
    boxes, objectness, classes = at_least_float32(outputs).split([4, 1, outputs.shape[2] - 5], 2)
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    points = anchors.points * anchors.strides[:, None]
    distances = torch.cat([points - centre + half, centre + half - points], -1) / anchors.strides[:, None]
    return Predictions(distances.mT, torch.cat([classes, objectness], 2).mT, grid_sizes)


def rtmdet_loss(own: Any) -> DetectionLoss:
    """The loss of an RTMDet head: dynamic soft labels inside any box of the image, with cell corners as anchors.

    Args:
        own: the trainer's loss, with `num_classes`, `strides`, `assigner` (`topk`, `soft_center_radius`, `iou_weight`),
            `loss_cls` (`beta`, `loss_weight`), `loss_bbox` (`loss_weight`) and `distributed_normalize`.

    Example:
        >>> from types import SimpleNamespace
        >>> assigner = SimpleNamespace(topk=13, soft_center_radius=3.0, iou_weight=3.0)
        >>> own = SimpleNamespace(num_classes=2, strides=[8, 16], assigner=assigner, distributed_normalize=True,
        ...                       loss_cls=SimpleNamespace(beta=2.0, loss_weight=1.0),
        ...                       loss_bbox=SimpleNamespace(loss_weight=2.0))
        >>> rtmdet_loss(own).gains
        {'box': 2.0, 'cls': 1.0, 'l1': 0.0}
    """
    in_any_box, theirs = NearCentre(0.0, or_inside=True), own.assigner
    soft_label = DynamicSoftLabel(theirs.topk, theirs.iou_weight, theirs.soft_center_radius, shared=in_any_box)
    return DetectionLoss(
        own.num_classes,
        [int(x) for x in own.strides],
        reg_max=1,
        assigner=ByCorners(soft_label),
        overlap=iou,
        box_term=OneMinus(giou),
        classification=QualityFocalLoss(own.loss_cls.beta),
        box_gain=own.loss_bbox.loss_weight,
        cls_gain=own.loss_cls.loss_weight,
        dfl_gain=0.0,
        distributed=own.distributed_normalize and has_ranks(),
    )


def rtmdet_maps(scores: Sequence[Tensor], distances: Sequence[Tensor], strides: Sequence[int]) -> Predictions:
    """Class logits `[B, C, h, w]` and distances `[B, 4, h, w]`, pixels from the corner of a cell, finest first."""
    half = torch.where(torch.arange(4, device=distances[0].device) < 2, 0.5, -0.5)[:, None]
    levels = [at_least_float32(x).flatten(2) / s + half for x, s in zip(distances, strides, strict=True)]
    grid_sizes = tuple((x.shape[2], x.shape[3]) for x in scores)
    return Predictions(torch.cat(levels, 2), torch.cat([x.flatten(2) for x in scores], 2), grid_sizes)


@dataclass(frozen=True)
class Through:
    """Base of assigners that pass the pairs on to another assigner in a changed form.

    Args:
        assigner: the assigner that receives them.
    """

    assigner: Assigner

    @property
    def slots(self) -> int:
        """Positive slots of each row."""
        return self.assigner.slots

    @property
    def region(self) -> Region | None:
        """Where candidates come from."""
        return self.assigner.region


class OfObjects(Through):
    """Uses `sqrt(probability of the class * objectness)` as scores; the last score is objectness."""

    def __call__(self, pairs: Pairs) -> Assignment:
        """The positives."""
        logs = F.logsigmoid(at_least_float32(pairs.scores.detach()))
        joint = (logs[:, :-1] + logs[:, -1:]) / 2
        # Back to a logit; the original's cross-entropy clamps logarithms at -100.
        logits = (joint - one_minus_exp(-joint).log()).clamp(-100.0, 100.0)
        return self.assigner(pairs._replace(scores=logits))


class ByCorners(Through):
    """Uses the top left corners of cells as anchor points; the assigner's region is the whole image."""

    def __call__(self, pairs: Pairs) -> Assignment:
        """The positives."""
        return self.assigner(pairs._replace(points=pairs.points - pairs.strides[:, None] / 2))


class Objectness(Extra):
    """`obj = sum BCE(last score, 1 at positives) / S` over all anchors.

    Args:
        over_ranks: average the normaliser S over the ranks of the default process group.
    """

    gains: Mapping[str, float] = {"obj": 1.0}

    def __init__(self, over_ranks: bool = False) -> None:
        self.over_ranks = over_ranks

    def __call__(self, positives: Positives) -> dict[str, Term]:
        """The term."""
        objectness = at_least_float32(positives.view.predictions.scores)[:, -1:]
        error = total(F.softplus(objectness)) - total(positives.read(objectness))
        return {"obj": error / normaliser(total(positives.assignment.weights()), over_ranks=self.over_ranks)}


class RawBoxes(Extra):
    """`raw`: the L1 error of centres and logarithms of sides, grid units, summed over the four."""

    gains: Mapping[str, float] = {"raw": 1.0}

    def __call__(self, positives: Positives) -> dict[str, Term]:
        """The term."""
        left, top, right, bottom = positives.read(positives.view.predictions.boxes).unbind(1)
        valid = positives.assignment.valid
        low, high = positives.boxes.chunk(2, 1)
        centre = positives.points + torch.stack([right - left, bottom - top], 1) / 2
        # Empty slots get sides of 1, whose logarithms are differentiable.
        sides = torch.where(valid[:, None], torch.stack([left + right, top + bottom], 1), 1.0)
        true = torch.where(valid[:, None], high - low, 1.0)
        of_sides = sides.log() - (true + 1e-8).log()
        return {"raw": Weighted((centre - (low + high) / 2).abs().sum(1) + of_sides.abs().sum(1))}


def classes_of_positives(scores: Tensor, assignment: Assignment, labels: Tensor) -> Tensor:
    """Sum over positives and classes of `BCE(score, one-hot * target score)`; the last score is not a class."""
    read = masked(scores[assignment.image, :-1, assignment.anchor], assignment.valid)
    label = torch.where(assignment.valid, labels[assignment.row], 0)
    true = read.gather(1, label[:, None])[:, 0] * assignment.score
    return total(torch.where(assignment.valid[:, None], F.softplus(read), 0.0)) - total(true)


def _squared_iou(predicted: Tensor, true: Tensor) -> Tensor:
    return iou(predicted, true).square()


def _grid(
    strides: Sequence[int], image_size: tuple[int, int], like: Tensor
) -> tuple[tuple[tuple[int, int], ...], Anchors]:
    height, width = image_size
    sizes = tuple((height // stride, width // stride) for stride in strides)
    return sizes, make_anchors(sizes, strides, device=like.device)
