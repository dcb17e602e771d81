"""Every public operation, assigner and loss, as functions of tensors alone."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from compiled_loss import (
    BinaryCrossEntropy,
    DenseLoss,
    DetectionLoss,
    EndToEndLoss,
    OrientedLoss,
    PoseLoss,
    Predictions,
    ResidualPoseLoss,
    Targets,
    TaskAligned,
    fill,
    unfill,
)
from compiled_loss.geometry.boxes import cxcywh_to_xyxy
from compiled_loss.geometry.keypoints import oks
from compiled_loss.geometry.rotated import probiou, rotated_hull
from tests.contract.assigner_cases import ASSIGNER_CASES
from tests.contract.checks import Case
from tests.contract.families import further_oriented_overlaps, further_overlaps, overlaps
from tests.contract.mask_cases import MASK_CASES
from tests.contract.product import loss_of, rotated
from tests.contract.rows import ANCHORS, CLASSES, FEW, GRIDS, IMAGES, SIZE, STRIDES, pages_of, rows_of
from tests.losses.scenes import keypoints_of
from tests.reference.batches import make_batch, make_predictions
from tests.reference.flow import log_density

few = TaskAligned(top_k=FEW)
sigmas = partial(torch.linspace, 0.05, 0.2, 5)


def head_of(n: int, branch: int = 0, **options: Any) -> list[Tensor]:
    """A head's raw outputs, near the truth of some of `n` rows."""
    keypoints, oriented = options.get("num_keypoints", 0), options.pop("oriented", False)
    counts = (n - n // 3, 0, n // 3)
    batch = make_batch(n, counts=counts, size=SIZE, num_classes=CLASSES, num_keypoints=keypoints, oriented=oriented)
    raw = make_predictions(n + 1 + branch, batch, num_classes=CLASSES, strides=STRIDES, **options)
    return [raw.boxes, raw.scores] + [x for x in (raw.keypoints, raw.angles) if x is not None]


class LossOfTensors(torch.nn.Module):
    """The total, the terms and the counts of a loss, of a head's outputs and of target rows."""

    def __init__(self, loss: DenseLoss | EndToEndLoss, maps: Sequence[str], rows: Sequence[str]) -> None:
        super().__init__()
        self.loss = loss
        self.maps = tuple(maps)
        self.rows = tuple(rows)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        step, heads = len(self.maps), tensors[: len(tensors) - len(self.rows)]
        branches = [
            Predictions(**dict(zip(self.maps, heads[i : i + step], strict=True)), grid_sizes=GRIDS)  # type: ignore[arg-type]
            for i in range(0, len(heads), step)
        ]
        fields = dict(zip(self.rows, tensors[len(heads) :], strict=True))
        out = self.loss(*branches, Targets(**fields))  # type: ignore[arg-type]
        return out.total, *out.terms.values(), out.num_positives, out.overflow, *(out.per_image or {}).values()


def loss_case(loss: DenseLoss | EndToEndLoss, *, planned: bool = False, values: int = 3, counted: bool = False) -> Case:
    branches, task = (2, loss.loss) if isinstance(loss, EndToEndLoss) else (1, loss)
    options: dict[str, Any] = {"oriented": isinstance(task, OrientedLoss)}
    names = [*(["keypoints"] * isinstance(task, PoseLoss)), *(["angles"] * options["oriented"])]
    if isinstance(task, PoseLoss):
        options |= dict(zip(("num_keypoints", "keypoint_dims"), keypoints_of(task), strict=True))
    maps, rows = ["boxes", "scores", *names], ["batch_idx", "labels", "boxes", *names]
    rows += ["weights", "ignore"] * counted

    def inputs(n: int, padded: bool) -> Sequence[Tensor]:
        heads = [x for i in range(branches) for x in head_of(n, i, reg_max=task.reg_max, **options)]
        keypoints = options.get("num_keypoints", 0)
        targets = rows_of(n, padded, keypoints=keypoints, oriented=options["oriented"])
        if targets.keypoints is not None:
            targets = targets._replace(keypoints=targets.keypoints[..., :values].contiguous())
        if counted:
            turn = torch.arange(len(targets.labels)) % 5
            targets = targets._replace(weights=turn / 2, ignore=turn == 3)
        return heads + [getattr(targets, name) for name in rows] + [pages_of(targets, task.region)] * planned

    names = [*rows, *["pages"] * planned]
    return Case(LossOfTensors(loss, maps, names), inputs, branches * len(maps), len(rows), planned=planned)


def residual_pose_case(loss: ResidualPoseLoss | EndToEndLoss) -> Case:
    """Keypoints compared in the assigner, and their likelihood."""
    maps = ("boxes", "scores", "keypoints", "keypoint_sigmas")
    rows = ("batch_idx", "labels", "boxes", "keypoints")
    branches = 2 if isinstance(loss, EndToEndLoss) else 1

    def inputs(n: int, padded: bool) -> Sequence[Tensor]:
        heads, generator = [], torch.Generator().manual_seed(n)
        for i in range(branches):
            sigmas = torch.randn(IMAGES, 10, ANCHORS, generator=generator)
            heads += [*head_of(n, i, reg_max=1, num_keypoints=5), sigmas]
        targets = rows_of(n, padded, keypoints=5)
        return [*heads, *(getattr(targets, name) for name in rows), pages_of(targets)]

    names = [*rows, "pages"]
    return Case(LossOfTensors(loss, maps, names), inputs, branches * len(maps), len(rows), planned=True)


def fill_case(*, in_order: bool) -> Case:
    """Keypoints into slots, too few of them for the fullest image."""

    def inputs(n: int, padded: bool) -> Sequence[Tensor]:
        targets = rows_of(n, padded, keypoints=5, in_order=in_order)
        assert targets.keypoints is not None
        return targets.keypoints, targets.batch_idx

    return Case(lambda x, i: tuple(fill(x, i, IMAGES, 40, -1, is_sorted=in_order)), inputs, 1, 2, exact=True)


def unfill_case(*, in_order: bool) -> Case:
    """Slots back into rows."""

    def inputs(n: int, padded: bool) -> Sequence[Tensor]:
        return torch.randn(IMAGES, 40, 4), rows_of(n, padded, in_order=in_order).batch_idx

    return Case(lambda x, i: (unfill(x, i, 40, -1, is_sorted=in_order),), inputs, 1, 1, exact=True)


def two_sets_of_boxes(n: int, padded: bool) -> Sequence[Tensor]:
    return [cxcywh_to_xyxy(rows_of(n, padded, in_order=flag).boxes * 64) for flag in (False, True)]


def two_sets_of_oriented_boxes(n: int, padded: bool) -> Sequence[Tensor]:
    sets = []
    for flag in (False, True):
        targets = rows_of(n, padded, in_order=flag, oriented=True)
        assert targets.angles is not None
        sets.append(torch.cat([targets.boxes * 64, targets.angles[:, None]], 1))
    return sets


def keypoints_and_areas(n: int, padded: bool) -> Sequence[Tensor]:
    targets = rows_of(n, padded, keypoints=5)
    assert targets.keypoints is not None
    xy, flags = targets.keypoints[..., :2] * 64, targets.keypoints[..., 2]
    return xy + torch.randn(xy.shape), xy, flags, targets.boxes[:, 2:].prod(1) * 4096


def similarity(predicted: Tensor, target: Tensor, visible: Tensor, area: Tensor) -> tuple[Tensor, ...]:
    return (oks(predicted, target, visible, area, sigmas(device=predicted.device)),)


detection = partial(DetectionLoss, CLASSES, STRIDES)
pose = partial(PoseLoss, CLASSES, strides=STRIDES)
residual: dict[str, Any] = {"strides": STRIDES, "reg_max": 1, "flow": log_density}
oriented = partial(OrientedLoss, CLASSES, STRIDES)

CASES = {
    "fill": fill_case(in_order=False),
    "fill of sorted rows": fill_case(in_order=True),
    "unfill": unfill_case(in_order=False),
    "unfill of sorted rows": unfill_case(in_order=True),
    "overlaps of boxes": Case(overlaps, two_sets_of_boxes, learnt=2, rows=2),
    "overlaps of boxes that later papers added": Case(further_overlaps, two_sets_of_boxes, learnt=2, rows=2),
    "keypoint similarity": Case(similarity, keypoints_and_areas, learnt=1, rows=4),
    **ASSIGNER_CASES,
    "detection": loss_case(detection()),
    "detection with planned pages": loss_case(detection(assigner=few), planned=True),
    "detection without bins, with class weights": loss_case(
        detection(reg_max=1, assigner=few, classification=BinaryCrossEntropy([0.5, 2.0])), planned=True
    ),
    "pose of 17 keypoints": loss_case(pose(17, assigner=few)),
    "pose of 17 keypoints with planned pages": loss_case(pose(17), planned=True),
    "pose of 5 keypoints without visibility": loss_case(
        pose(5, keypoint_dims=2, sigmas=sigmas(), reg_max=1, assigner=few), planned=True, values=2
    ),
    "pose with residual log-likelihood": residual_pose_case(ResidualPoseLoss(CLASSES, 5, assigner=few, **residual)),
    "overlap of oriented boxes": Case(
        # Off the quarter turns, where the hull's gradient jumps and the last bit of a sine decides.
        lambda a, b: (probiou(a, b, 0.01), rotated_hull(a + 0.01)),
        two_sets_of_oriented_boxes,
        learnt=2,
        rows=2,
    ),
    "detection with weights, ignore rows and images told apart": loss_case(
        detection(assigner=few, per_image=True), planned=True, counted=True
    ),
    "end to end with weights, ignore rows and images told apart": loss_case(
        EndToEndLoss(detection(reg_max=1, per_image=True)), planned=True, counted=True
    ),
    "overlap of oriented boxes that later papers added": Case(
        # Of one or two rows both sets are the same, and equal boxes have no gradient but rounding: others than equal.
        lambda a, b: further_oriented_overlaps(a, b + 0.3),
        two_sets_of_oriented_boxes,
        learnt=2,
        rows=2,
    ),
    "oriented boxes": loss_case(oriented(assigner=few)),
    "oriented boxes without bins with planned pages": loss_case(oriented(reg_max=1, assigner=few), planned=True),
    "end to end": loss_case(EndToEndLoss(detection(reg_max=1)), planned=True),
    "end to end by a plain sum": loss_case(EndToEndLoss(detection(), plain_sum=True)),
    "end to end of oriented boxes": loss_case(EndToEndLoss(oriented(reg_max=1)), planned=True),
    "end to end of poses with residual log-likelihood": residual_pose_case(
        EndToEndLoss(ResidualPoseLoss(CLASSES, 5, **residual))
    ),
    **MASK_CASES,
    **{f"loss of {parts}": loss_case(loss_of(parts), planned=True) for parts in rotated()},
}
