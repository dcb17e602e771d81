"""The pose loss of heads that also predict how far off each keypoint may be.

Letters: B images, N rows, A anchors, K keypoints, P positive slots.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from compiled_loss.assign.candidates import Candidates
from compiled_loss.assign.parts import Assigner, Overlap
from compiled_loss.assign.regions import InBox
from compiled_loss.checks import given, numbers_for_each, require
from compiled_loss.geometry.boxes import ciou, xyxy_to_cxcywh
from compiled_loss.geometry.keypoints import oks
from compiled_loss.losses.boxes import UprightBoxes
from compiled_loss.losses.comparing import CompareBoxes, OneMinus
from compiled_loss.losses.dense import DenseLoss
from compiled_loss.losses.fields import Map
from compiled_loss.losses.parts import BoxOverlap, BoxTerm, ClassTerm, Extra, Mean, MeanWhere, Pairing, Term
from compiled_loss.losses.pose import KeypointTerms, keypoints_of, visible_of
from compiled_loss.losses.scene import Positives, View, keypoints_in_pixels
from compiled_loss.numerics import at_least_float32
from compiled_loss.terms.keypoints import residual_log_likelihood

# Share of its box that a figure covers.
_FIGURE = 0.53
# Of nose, eyes, ears, shoulders, elbows, wrists, hips, knees, ankles: the far ends of limbs count more.
_COCO_WEIGHTS = (*(1.0,) * 7, 1.2, 1.2, 1.5, 1.5, 1.0, 1.0, 1.2, 1.2, 1.5, 1.5)


class ResidualPoseLoss(DenseLoss):
    """Pose loss with residual log-likelihood, keypoints as plain offsets, and assignment by keypoint similarity.

    Like `PoseLoss`, but with `keypoint = raw + anchor`, and over visible keypoints
    `rle = max(0, mean of weight (sum over x, y of (log s + log 2 s + |err|) - 2 log phi(err)))`,
    `err = (predicted - true) / s`, s the predicted spread. Rows with a visible keypoint (flag above 0) are compared
    by OKS instead of CIoU, over 0.53 of the box's area. A row has candidates only on levels whose stride s fits it,
    `2 s <= sqrt(w h) <= 12 s`, or on all levels if none of these has an anchor inside the box.

    Args:
        num_classes: C.
        num_keypoints: K.
        keypoint_dims: values per keypoint in the head's output: 2, or 3 with a visibility logit.
        flow: `log phi` of a normalising flow, from `[n, 2]` errors to `[n]`, such as its method `log_prob`. With None,
            or with predictions without `keypoint_sigmas`, the rle term is 0.
        strides: pixels per grid unit of each level, finest level first.
        reg_max: distance bins R per side.
        sigmas: as for `PoseLoss`.
        keypoint_weights: `[K]` factor of each keypoint's likelihood. None means 1, except that for 17 keypoints with
            visibility elbows and knees get 1.2, wrists and ankles 1.5.
        assigner: matches anchors to target rows, a `parts.Assigner`; None means `TaskAligned()`. One with a region of
            its own, such as `InBox()`, searches all levels.
        overlap: overlap of predicted and true boxes, for rows without a visible keypoint and the default box term.
        box_term: error of the predicted boxes, a `parts.BoxTerm`; None means `OneMinus(overlap)`.
        classification: error of the class logits, a `parts.ClassTerm`; None means `BinaryCrossEntropy()`.
        box_gain: factor of the box term.
        pose_gain: factor of the location term.
        kobj_gain: factor of the visibility term.
        cls_gain: factor of the classification term.
        dfl_gain: factor of the distance term.
        rle_gain: factor of the likelihood term.
        distributed: average the normaliser of the sums over the ranks of the default process group.
        check_values: check the values of every batch's rows, as `Targets.validate` does, and warn once if a plan is too
            small. This happens only in eager calls with rows on the host, never in traced code or on a device. The
            attribute of the same name switches it on and off.
        per_image: also return what each image contributes to every term, as `LossOutput.per_image`.
        extras: terms of your own in addition to the task's, each a `parts.Extra`.

    Raises:
        ValueError: if a size is not positive, a number is negative or not finite, or an argument has the wrong rank,
            size, dtype or device.

    Source: residual log-likelihood estimation, arXiv 2107.11291; YOLO-Pose, arXiv 2204.06806.

    Example:
        >>> from compiled_loss import Predictions, Targets
        >>> flow = lambda err: -err.square().sum(-1) / 2
        >>> criterion = ResidualPoseLoss(num_classes=1, num_keypoints=5, strides=(8, 16), reg_max=1, flow=flow)
        >>> predictions = Predictions(torch.ones(1, 4, 20), torch.zeros(1, 1, 20), ((4, 4), (2, 2)),
        ...                           torch.zeros(1, 15, 20), keypoint_sigmas=torch.zeros(1, 10, 20))
        >>> targets = Targets(torch.tensor([0]), torch.tensor([0]), torch.tensor([[0.5, 0.5, 0.5, 0.5]]),
        ...                   torch.full((1, 5, 3), 0.5))
        >>> list(criterion(predictions, targets).terms)
        ['box', 'pose', 'kobj', 'cls', 'l1', 'rle']
    """

    task = "pose"

    def __init__(
        self,
        num_classes: int,
        num_keypoints: int,
        *,
        keypoint_dims: int = 3,
        flow: Callable[[Tensor], Tensor] | None,
        strides: Sequence[int] | Tensor = (8, 16, 32),
        reg_max: int = 16,
        sigmas: Tensor | Sequence[float] | None = None,
        keypoint_weights: Tensor | Sequence[float] | None = None,
        assigner: Assigner | None = None,
        overlap: BoxOverlap = ciou,
        box_term: BoxTerm | None = None,
        classification: ClassTerm | None = None,
        box_gain: float = 7.5,
        pose_gain: float = 12.0,
        kobj_gain: float = 1.0,
        cls_gain: float = 0.5,
        dfl_gain: float = 1.5,
        rle_gain: float = 1.0,
        distributed: bool = False,
        check_values: bool = True,
        per_image: bool = False,
        extras: Sequence[Extra] = (),
    ) -> None:
        keypoints = ResidualKeypointTerms(num_keypoints, keypoint_dims, sigmas, flow, keypoint_weights)
        gains = {"box": box_gain, "pose": pose_gain, "kobj": kobj_gain, "cls": cls_gain}
        super().__init__(
            num_classes,
            strides,
            reg_max,
            boxes=UprightBoxes(InBox(fitting_levels=True)),
            assigner=assigner,
            pairing=CompareKeypoints(keypoints, CompareBoxes(overlap)),
            box_term=box_term or OneMinus(overlap),
            classification=classification,
            extras=[keypoints, *extras],
            gains={**gains, "dfl": dfl_gain, "rle": rle_gain},
            distributed=distributed,
            check_values=check_values,
            per_image=per_image,
            arguments=locals(),
        )


class ResidualKeypointTerms(KeypointTerms):
    """`pose`, `kobj` and `rle`.

    Args:
        num_keypoints: K.
        keypoint_dims: values per keypoint D.
        sigmas: as for `PoseLoss`.
        flow: as for `ResidualPoseLoss`.
        keypoint_weights: as for `ResidualPoseLoss`.
    """

    keypoint_weights: Tensor

    def __init__(
        self,
        num_keypoints: int,
        keypoint_dims: int,
        sigmas: Tensor | Sequence[float] | None,
        flow: Callable[[Tensor], Tensor] | None,
        keypoint_weights: Tensor | Sequence[float] | None,
    ) -> None:
        super().__init__(num_keypoints, keypoint_dims, sigmas, offsets=True)
        require(flow is None or callable(flow), "flow", "a function of the errors, or None", type(flow).__name__)
        if keypoint_weights is None:
            coco = self.num_keypoints == len(_COCO_WEIGHTS) and self.keypoint_dims == 3
            keypoint_weights = _COCO_WEIGHTS if coco else [1.0] * self.num_keypoints
        keypoint_weights = numbers_for_each("keypoint_weights", keypoint_weights, self.num_keypoints)
        self.flow = flow
        if flow is not None:
            meaning = "raw spread, channel keypoint*2 + (x, y)"
            self.maps: Sequence[Map] = [
                *self.maps,
                Map(
                    "keypoint_sigmas", 2 * self.num_keypoints, meaning, optional=True, why="2 * num_keypoints channels"
                ),
            ]
        self.register_buffer("keypoint_weights", keypoint_weights, persistent=False)

    def forward(self, positives: Positives) -> dict[str, Term]:
        """The terms."""
        raw = self.raw(positives)
        predicted, true = self.located(positives, raw)
        terms = self.errors(positives, raw, predicted, true)
        raw_sigmas = positives.view.predictions.keypoint_sigmas
        if self.flow is None or raw_sigmas is None:
            return {**terms, "rle": Mean(positives.boxes.new_zeros(positives.boxes.shape[0], 1))}
        sigmas = positives.read(raw_sigmas).unflatten(-1, (self.num_keypoints, 2))
        assignment = positives.assignment
        visible = visible_of(positives.view.scene.targets)[assignment.row] & assignment.valid[:, None]
        loss, counted = residual_log_likelihood(predicted, true, sigmas, visible, self.flow)
        return {**terms, "rle": MeanWhere(loss * self.keypoint_weights, counted)}


class CompareKeypoints:
    """Keypoint similarity for rows with a visible keypoint, box overlap for the others.

    Args:
        keypoints: how keypoints are read.
        boxes: how boxes are compared.
    """

    def __init__(self, keypoints: KeypointTerms, boxes: Pairing) -> None:
        self.keypoints = keypoints
        self.boxes = boxes

    def __call__(self, view: View, assigner: Assigner) -> Overlap:
        """The overlap of every candidate with its row."""
        scene, sigmas = view.scene, self.keypoints.sigmas
        points, strides = scene.anchors
        raw = at_least_float32(given("predictions.keypoints", view.predictions.keypoints))
        raw = raw.unflatten(1, (self.keypoints.num_keypoints, self.keypoints.keypoint_dims))
        predicted = self.keypoints.decode(raw[:, :, :2].permute(0, 3, 1, 2), points) * strides[:, None, None]
        predicted = predicted.float()  # [B, A, K, 2]
        keypoints = keypoints_of(scene.targets)
        true, visible = keypoints_in_pixels(keypoints, scene.image_size), visible_of(scene.targets)
        if keypoints.shape[-1] == 3:
            visible = keypoints[..., 2] > 0  # as the assigner defines it; the terms count all flags other than 0
        # Rows are compared only by keypoints, but an anchor with a non-finite box must not be picked either.
        sound = view.sides.distances.isfinite().all(1)
        area = _FIGURE * xyxy_to_cxcywh(scene.boxes)[:, 2:].prod(-1)
        of_boxes = self.boxes(view, assigner)

        def overlap(candidates: Candidates, logits: Tensor) -> Tensor:
            rows = candidates.of_rows
            similarity = oks(candidates.take(predicted), rows(true), rows(visible), rows(area), sigmas)
            found = torch.where(rows(visible.any(1)), similarity, of_boxes(candidates, logits))
            return torch.where(candidates.take(sound), found, 0.0)

        return overlap
