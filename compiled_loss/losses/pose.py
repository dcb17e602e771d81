"""The pose loss: detection plus keypoints.

Letters: B images, N rows, A anchors, K keypoints, D values per keypoint, P positive slots.
"""

from typing import Any

import torch
from torch import Tensor

from compiled_loss.checks import (
    check_floating,
    check_keywords,
    check_same_device,
    check_shape,
    finite_number,
    numbers_for_each,
    require,
    whole_number,
)
from compiled_loss.geometry.boxes import xyxy_to_cxcywh
from compiled_loss.geometry.keypoints import COCO_SIGMAS
from compiled_loss.grid import Sides, decode_keypoints
from compiled_loss.losses.detection import DetectionLoss
from compiled_loss.losses.scene import Scene, gather_positives, gather_rows, keypoints_in_pixels
from compiled_loss.numerics import binary_cross_entropy
from compiled_loss.reduce import mean_over_positives
from compiled_loss.targets import Targets
from compiled_loss.terms.keypoints import keypoint_location
from compiled_loss.types import Assignment, Predictions


class PoseLoss(DetectionLoss):
    """Detection plus keypoint location and visibility, as one graph.

    Over positives and keypoints: `pose = mean of K / visible (1 - exp(-e))` on visible keypoints, with
    `e = d^2 / ((2 sigma)^2 area 2)`, and `kobj = mean of BCE(visibility logit, visible)`, 0 for heads without a
    visibility output. A keypoint is visible when its flag is not 0; without flags all are.

    Args:
        num_classes: C.
        num_keypoints: K.
        keypoint_dims: values per keypoint D of the head's output: 2, or 3 with a visibility logit.
        sigmas: `[K]` per-keypoint spread, or None: COCO's for 17 keypoints with visibility, else 1/K.
        pose_gain: factor of the location term.
        kobj_gain: factor of the visibility term.
        options: every other argument of `DetectionLoss`.

    Raises:
        ValueError: for a non-positive size, a negative number or one that is not finite, or an argument of the wrong
            rank, size, dtype or device.
        TypeError: for a keyword that there is not.

    Source: YOLO-Pose, arXiv 2204.06806; COCO keypoint evaluation.

    Example:
        >>> criterion = PoseLoss(num_classes=1, num_keypoints=5, strides=(8, 16))
        >>> maps = torch.zeros(1, 64, 20), torch.zeros(1, 1, 20), ((4, 4), (2, 2)), torch.zeros(1, 15, 20)
        >>> targets = Targets(torch.tensor([0]), torch.tensor([0]), torch.tensor([[0.5, 0.5, 0.5, 0.5]]),
        ...                   torch.full((1, 5, 3), 0.5))
        >>> list(criterion(Predictions(*maps), targets).terms)
        ['box', 'pose', 'kobj', 'cls', 'dfl']
    """

    sigmas: Tensor

    def __init__(
        self,
        num_classes: int,
        num_keypoints: int,
        keypoint_dims: int = 3,
        *,
        sigmas: Tensor | None = None,
        pose_gain: float = 12.0,
        kobj_gain: float = 1.0,
        **options: Any,
    ) -> None:
        check_keywords(type(self).__name__, options, type(self))
        super().__init__(num_classes, **options)
        num_keypoints = whole_number("num_keypoints", num_keypoints)
        keypoint_dims = whole_number("keypoint_dims", keypoint_dims)
        require(keypoint_dims in (2, 3), "keypoint_dims", "2 or 3", keypoint_dims)
        if sigmas is None:
            coco = num_keypoints == len(COCO_SIGMAS) and keypoint_dims == 3
            sigmas = torch.tensor(COCO_SIGMAS) if coco else torch.full((num_keypoints,), 1 / num_keypoints)
        sigmas = numbers_for_each("sigmas", sigmas, num_keypoints, zero=False)
        self.num_keypoints = num_keypoints
        self.keypoint_dims = keypoint_dims
        self.pose_gain = finite_number("pose_gain", pose_gain)
        self.kobj_gain = finite_number("kobj_gain", kobj_gain)
        self.register_buffer("sigmas", sigmas, persistent=False)

    def _check(self, predictions: Predictions, targets: Targets) -> None:
        super()._check(predictions, targets)
        batch, _, anchors = predictions.scores.shape
        channels = self.num_keypoints * self.keypoint_dims
        require(predictions.keypoints is not None, "predictions.keypoints", "a tensor", None)
        require(targets.keypoints is not None, "targets.keypoints", "a tensor", None)
        assert predictions.keypoints is not None
        assert targets.keypoints is not None
        check_shape("predictions.keypoints", predictions.keypoints, [batch, channels, anchors])
        check_floating("predictions.keypoints", predictions.keypoints)
        check_shape("targets.keypoints", targets.keypoints, ["N", self.num_keypoints, "2 or 3"])
        check_same_device(predictions=predictions.keypoints, sigmas=self.sigmas)

    def _read_at_positives(self, predictions: Predictions) -> list[Tensor]:
        assert predictions.keypoints is not None
        return [predictions.keypoints]

    def _terms(
        self, predictions: Predictions, sides: Sides, targets: Targets, scene: Scene, assignment: Assignment
    ) -> dict[str, Tensor]:
        detection = super()._terms(predictions, sides, targets, scene, assignment)
        assert predictions.keypoints is not None
        assert targets.keypoints is not None
        raw = gather_positives(predictions.keypoints, assignment)
        raw = raw.unflatten(-1, (self.num_keypoints, self.keypoint_dims))
        predicted, true = self._located(raw, targets, scene, assignment)
        strides = scene.anchors.strides[assignment.anchor]
        size = xyxy_to_cxcywh(gather_rows(scene.boxes, assignment) / strides[:, None])[:, 2:]
        visible = self._visible(targets.keypoints)[assignment.row]
        location = keypoint_location(predicted, true, visible, size.prod(-1), self.sigmas)
        pose = self.pose_gain * mean_over_positives(location, assignment.valid)
        kobj = torch.zeros_like(pose)
        if self.keypoint_dims == 3:
            visibility = binary_cross_entropy(raw[..., 2], visible.to(raw.dtype))
            kobj = self.kobj_gain * mean_over_positives(visibility, assignment.valid)
        return {"box": detection.pop("box"), "pose": pose, "kobj": kobj, **detection}

    def _located(self, raw: Tensor, targets: Targets, scene: Scene, assignment: Assignment) -> tuple[Tensor, Tensor]:
        """`[P, K, 2]` predicted keypoints of raw `[P, K, D]` ones, and true keypoints, grid units."""
        assert targets.keypoints is not None
        points, strides = scene.anchors.points[assignment.anchor], scene.anchors.strides[assignment.anchor]
        true = gather_rows(keypoints_in_pixels(targets.keypoints, scene.image_size), assignment)
        return self._decode(raw[..., :2], points), true / strides[:, None, None]

    @staticmethod
    def _decode(raw: Tensor, points: Tensor) -> Tensor:
        """`[..., K, 2]` keypoints of raw ones at anchor points `[..., 2]`, grid units."""
        return decode_keypoints(raw, points)

    @staticmethod
    def _visible(keypoints: Tensor) -> Tensor:
        """`[N, K]` bool: flag not 0; without flags, every keypoint."""
        if keypoints.shape[-1] == 3:
            return keypoints[..., 2] != 0
        return torch.ones_like(keypoints[..., 0], dtype=torch.bool)
