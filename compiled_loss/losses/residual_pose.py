"""The pose loss of heads that also predict how far off each keypoint may be.

Letters: B images, N rows, A anchors, K keypoints, P positive slots.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from compiled_loss.assign.candidates import Candidates, find_cells, fitting_levels
from compiled_loss.assign.task_aligned import Overlap
from compiled_loss.checks import (
    check_floating,
    check_keywords,
    check_same_device,
    check_shape,
    finite_number,
    numbers_for_each,
    require,
)
from compiled_loss.geometry.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh
from compiled_loss.geometry.keypoints import oks
from compiled_loss.grid import Sides
from compiled_loss.losses.pose import PoseLoss
from compiled_loss.losses.scene import (
    Scene,
    anchors_of,
    candidates_of,
    gather_positives,
    image_size_of,
    keypoints_in_pixels,
    real_rows,
    to_pixels,
)
from compiled_loss.numerics import at_least_float32
from compiled_loss.reduce import mean_where
from compiled_loss.targets import Targets
from compiled_loss.terms.keypoints import residual_log_likelihood
from compiled_loss.types import Assignment, Predictions

# Share of its box that a figure covers.
_FIGURE = 0.53
# Of nose, eyes, ears, shoulders, elbows, wrists, hips, knees, ankles: the far ends of limbs count more.
_COCO_WEIGHTS = (*(1.0,) * 7, 1.2, 1.2, 1.5, 1.5, 1.0, 1.0, 1.2, 1.2, 1.5, 1.5)


class ResidualPoseLoss(PoseLoss):
    """Pose with residual log-likelihood, keypoints as plain offsets, and an assigner that compares keypoints.

    As `PoseLoss`, with `keypoint = raw + anchor`, and over visible keypoints
    `rle = max(0, mean of weight (sum over x, y of (log s + log 2 s + |err|) - 2 log phi(err)))`,
    `err = (predicted - true) / s`, s the predicted spread. Rows with a visible keypoint (flag above 0) are compared
    by OKS instead of CIoU, over 0.53 of the box's area. A row is a candidate only on levels whose stride fits
    it, `2 s <= sqrt(w h) <= 12 s`, or on all if none of these has an anchor inside.

    Args:
        num_classes: C.
        num_keypoints: K.
        keypoint_dims: values per keypoint of the head's output: 2, or 3 with a visibility logit.
        flow: `log phi` of a normalising flow, from `[n, 2]` errors to `[n]`, such as its method `log_prob`; None, or
            predictions without `keypoint_sigmas`, make the rle term 0.
        keypoint_weights: `[K]` factor of each keypoint's likelihood, or None: 1, save that for 17 keypoints with
            visibility elbows and knees count 1.2, wrists and ankles 1.5.
        rle_gain: factor of the likelihood term.
        options: every other argument of `PoseLoss`.

    Raises:
        ValueError: for a non-positive size, a negative number or one that is not finite, or an argument of the wrong
            rank, size, dtype or device.
        TypeError: for a keyword that there is not.

    Source: residual log-likelihood estimation, arXiv 2107.11291; YOLO-Pose, arXiv 2204.06806.

    Example:
        >>> flow = lambda err: -err.square().sum(-1) / 2
        >>> criterion = ResidualPoseLoss(num_classes=1, num_keypoints=5, strides=(8, 16), reg_max=1, flow=flow)
        >>> predictions = Predictions(torch.ones(1, 4, 20), torch.zeros(1, 1, 20), ((4, 4), (2, 2)),
        ...                           torch.zeros(1, 15, 20), keypoint_sigmas=torch.zeros(1, 10, 20))
        >>> targets = Targets(torch.tensor([0]), torch.tensor([0]), torch.tensor([[0.5, 0.5, 0.5, 0.5]]),
        ...                   torch.full((1, 5, 3), 0.5))
        >>> list(criterion(predictions, targets).terms)
        ['box', 'pose', 'kobj', 'cls', 'l1', 'rle']
    """

    keypoint_weights: Tensor

    def __init__(
        self,
        num_classes: int,
        num_keypoints: int,
        keypoint_dims: int = 3,
        *,
        flow: Callable[[Tensor], Tensor] | None,
        keypoint_weights: Tensor | None = None,
        rle_gain: float = 1.0,
        **options: Any,
    ) -> None:
        check_keywords(type(self).__name__, options, type(self))
        super().__init__(num_classes, num_keypoints, keypoint_dims, **options)
        require(flow is None or callable(flow), "flow", "a function of errors, or None", type(flow).__name__)
        if keypoint_weights is None:
            coco = num_keypoints == len(_COCO_WEIGHTS) and keypoint_dims == 3
            keypoint_weights = torch.tensor(_COCO_WEIGHTS) if coco else torch.ones(num_keypoints)
        keypoint_weights = numbers_for_each("keypoint_weights", keypoint_weights, self.num_keypoints)
        self.flow = flow
        self.rle_gain = finite_number("rle_gain", rle_gain)
        self.register_buffer("keypoint_weights", keypoint_weights, persistent=False)

    def _check(self, predictions: Predictions, targets: Targets) -> None:
        super()._check(predictions, targets)
        raw = predictions.keypoint_sigmas
        if raw is None:
            return
        batch, _, anchors = predictions.scores.shape
        check_shape("predictions.keypoint_sigmas", raw, [batch, 2 * self.num_keypoints, anchors])
        check_floating("predictions.keypoint_sigmas", raw)
        check_same_device(boxes=predictions.boxes, keypoint_sigmas=raw, keypoint_weights=self.keypoint_weights)

    def _scene(self, predictions: Predictions, targets: Targets) -> Scene:
        image_size = image_size_of(predictions, self.strides)
        boxes = cxcywh_to_xyxy(to_pixels(targets.boxes, image_size))
        real = real_rows(predictions, targets)
        levels = fitting_levels(boxes, self.strides)
        cells = find_cells(boxes, real, predictions.grid_sizes, self.strides, levels=levels)
        anchors = anchors_of(predictions, self.strides)
        return Scene(anchors, boxes, image_size, candidates_of(cells, predictions, targets))

    def _overlap(self, predictions: Predictions, sides: Sides, targets: Targets, scene: Scene) -> Overlap:
        assert predictions.keypoints is not None
        assert targets.keypoints is not None
        points, strides = scene.anchors
        raw = at_least_float32(predictions.keypoints).unflatten(1, (self.num_keypoints, self.keypoint_dims))
        predicted = self._decode(raw[:, :, :2].permute(0, 3, 1, 2), points) * strides[:, None, None]  # [B, A, K, 2]
        predicted = predicted.float()
        true = keypoints_in_pixels(targets.keypoints, scene.image_size)
        visible = self._visible(targets.keypoints)
        if targets.keypoints.shape[-1] == 3:
            visible = targets.keypoints[..., 2] > 0  # the assigner's meaning; the terms count flags other than 0
        # Rows are compared by keypoints alone, but an anchor whose box is broken must not be picked either.
        sound = sides.distances.isfinite().all(1)
        area = _FIGURE * xyxy_to_cxcywh(scene.boxes)[:, 2:].prod(-1)
        of_boxes = super()._overlap(predictions, sides, targets, scene)

        def overlap(candidates: Candidates, logits: Tensor) -> Tensor:
            rows = candidates.of_rows
            similarity = oks(candidates.take(predicted), rows(true), rows(visible), rows(area), self.sigmas)
            found = torch.where(rows(visible.any(1)), similarity, of_boxes(candidates, logits))
            return torch.where(candidates.take(sound), found, 0.0)

        return overlap

    def _read_at_positives(self, predictions: Predictions) -> list[Tensor]:
        spreads = [] if predictions.keypoint_sigmas is None else [predictions.keypoint_sigmas]
        return [*super()._read_at_positives(predictions), *spreads]

    def _terms(
        self, predictions: Predictions, sides: Sides, targets: Targets, scene: Scene, assignment: Assignment
    ) -> dict[str, Tensor]:
        terms = super()._terms(predictions, sides, targets, scene, assignment)
        if self.flow is None or predictions.keypoint_sigmas is None:
            return {**terms, "rle": torch.zeros_like(terms["pose"])}
        assert predictions.keypoints is not None
        assert targets.keypoints is not None
        raw = gather_positives(predictions.keypoints, assignment)
        raw = raw.unflatten(-1, (self.num_keypoints, self.keypoint_dims))
        sigmas = gather_positives(predictions.keypoint_sigmas, assignment).unflatten(-1, (self.num_keypoints, 2))
        visible = self._visible(targets.keypoints)[assignment.row] & assignment.valid[:, None]
        predicted, true = self._located(raw, targets, scene, assignment)
        loss, counted = residual_log_likelihood(predicted, true, sigmas, visible, self.flow)
        likelihood = mean_where(loss * self.keypoint_weights, counted).clamp(min=0)
        return {**terms, "rle": self.rle_gain * likelihood}

    @staticmethod
    def _decode(raw: Tensor, points: Tensor) -> Tensor:
        return raw + points[..., None, :]
