"""The pose loss: detection plus keypoints.

Letters: B images, N rows, A anchors, K keypoints, D values per keypoint, P positive slots.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from compiled_loss.assign.parts import Assigner
from compiled_loss.checks import check_shape, given, numbers_for_each, require, whole_number
from compiled_loss.data.targets import Targets
from compiled_loss.exact import ExactModule
from compiled_loss.geometry.boxes import ciou, xyxy_to_cxcywh
from compiled_loss.geometry.keypoints import COCO_SIGMAS
from compiled_loss.grid import Anchors, decode_keypoints
from compiled_loss.losses.boxes import UprightBoxes
from compiled_loss.losses.comparing import CompareBoxes, OneMinus
from compiled_loss.losses.dense import DenseLoss
from compiled_loss.losses.fields import Field, Map
from compiled_loss.losses.parts import BoxOverlap, BoxTerm, ClassTerm, Extra, Mean, Term
from compiled_loss.losses.scene import Positives, View, keypoints_in_pixels
from compiled_loss.numerics import at_least_float32, binary_cross_entropy
from compiled_loss.terms.keypoints import keypoint_location
from compiled_loss.types import Assignment, Predictions


class PoseLoss(DenseLoss):
    """Detection loss plus keypoint location and visibility, as one graph.

    Over positives and keypoints: `pose = mean of K / visible (1 - exp(-e))` on visible keypoints, with
    `e = d^2 / ((2 sigma)^2 area 2)`, and `kobj = mean of BCE(visibility logit, visible)`, 0 for heads without a
    visibility output. A keypoint is visible if its flag is not 0; without flags all keypoints are visible.

    Args:
        num_classes: C.
        num_keypoints: K.
        keypoint_dims: values D per keypoint in the head's output: 2, or 3 with a visibility logit.
        strides: pixels per grid unit of each level, finest level first.
        reg_max: distance bins R per side.
        sigmas: `[K]` spread of each keypoint; None means COCO's for 17 keypoints with visibility, otherwise 1/K.
        assigner: matches anchors to target rows, a `parts.Assigner`; None means `TaskAligned()`.
        overlap: overlap of predicted and true boxes `[..., 4]`, xyxy, for the assigner and the default box term.
        box_term: error of the predicted boxes, a `parts.BoxTerm`; None means `OneMinus(overlap)`.
        classification: error of the class logits, a `parts.ClassTerm`; None means `BinaryCrossEntropy()`.
        box_gain: factor of the box term.
        pose_gain: factor of the location term.
        kobj_gain: factor of the visibility term.
        cls_gain: factor of the classification term.
        dfl_gain: factor of the distance term.
        distributed: average the normaliser of the sums over the ranks of the default process group.
        check_values: check the values of every batch's rows, as `Targets.validate` does, and warn once if a plan is too
            small. This happens only in eager calls with rows on the host, never in traced code or on a device. The
            attribute of the same name switches it on and off.
        per_image: also return what each image contributes to every term, as `LossOutput.per_image`.
        extras: terms of your own in addition to the task's, each a `parts.Extra`.

    Raises:
        ValueError: if a size is not positive, a number is negative or not finite, or an argument has the wrong rank,
            size, dtype or device.

    Source: YOLO-Pose, arXiv 2204.06806; COCO keypoint evaluation.

    Example:
        >>> criterion = PoseLoss(num_classes=1, num_keypoints=5, strides=(8, 16))
        >>> maps = torch.zeros(1, 64, 20), torch.zeros(1, 1, 20), ((4, 4), (2, 2)), torch.zeros(1, 15, 20)
        >>> targets = Targets(torch.tensor([0]), torch.tensor([0]), torch.tensor([[0.5, 0.5, 0.5, 0.5]]),
        ...                   torch.full((1, 5, 3), 0.5))
        >>> list(criterion(Predictions(*maps), targets).terms)
        ['box', 'pose', 'kobj', 'cls', 'dfl']
    """

    task = "pose"

    def __init__(
        self,
        num_classes: int,
        num_keypoints: int,
        *,
        keypoint_dims: int = 3,
        strides: Sequence[int] | Tensor = (8, 16, 32),
        reg_max: int = 16,
        sigmas: Tensor | Sequence[float] | None = None,
        assigner: Assigner | None = None,
        overlap: BoxOverlap = ciou,
        box_term: BoxTerm | None = None,
        classification: ClassTerm | None = None,
        box_gain: float = 7.5,
        pose_gain: float = 12.0,
        kobj_gain: float = 1.0,
        cls_gain: float = 0.5,
        dfl_gain: float = 1.5,
        distributed: bool = False,
        check_values: bool = True,
        per_image: bool = False,
        extras: Sequence[Extra] = (),
    ) -> None:
        gains = {"box": box_gain, "pose": pose_gain, "kobj": kobj_gain, "cls": cls_gain}
        super().__init__(
            num_classes,
            strides,
            reg_max,
            boxes=UprightBoxes(),
            assigner=assigner,
            pairing=CompareBoxes(overlap),
            box_term=box_term or OneMinus(overlap),
            classification=classification,
            extras=[KeypointTerms(num_keypoints, keypoint_dims, sigmas), *extras],
            gains={**gains, "dfl": dfl_gain},
            distributed=distributed,
            check_values=check_values,
            per_image=per_image,
            arguments=locals(),
        )


class KeypointTerms(ExactModule):
    """`pose` and `kobj`, the keypoint errors of the positives.

    Args:
        num_keypoints: K.
        keypoint_dims: values per keypoint D.
        sigmas: as for `PoseLoss`.
        offsets: decode keypoints as `raw + anchor` instead of `2 raw + anchor - 0.5`.
    """

    sigmas: Tensor
    gains: Mapping[str, float] = {}  # the loss's

    def __init__(
        self,
        num_keypoints: int,
        keypoint_dims: int = 3,
        sigmas: Tensor | Sequence[float] | None = None,
        *,
        offsets: bool = False,
    ) -> None:
        super().__init__()
        self.num_keypoints = whole_number("num_keypoints", num_keypoints)
        self.keypoint_dims = whole_number("keypoint_dims", keypoint_dims)
        require(self.keypoint_dims in (2, 3), "keypoint_dims", "2 or 3", keypoint_dims)
        self.offsets = offsets
        if sigmas is None:
            coco = self.num_keypoints == len(COCO_SIGMAS) and self.keypoint_dims == 3
            sigmas = COCO_SIGMAS if coco else [1 / self.num_keypoints] * self.num_keypoints
        sigmas = numbers_for_each("sigmas", sigmas, self.num_keypoints, zero=False)
        self.register_buffer("sigmas", sigmas, persistent=False)
        channels, meaning = self.num_keypoints * self.keypoint_dims, "raw keypoints in cells of the level"
        why = f"{channels} = num_keypoints * keypoint_dims, {self.num_keypoints} * {self.keypoint_dims}"
        self.maps: Sequence[Map] = [Map("keypoints", channels, f"{meaning}, channel keypoint*D + d", why=why)]
        meaning = "x and y as fractions of the image, and a flag: 0 where not labelled"
        self.fields: Sequence[Field] = [Field("keypoints", (self.num_keypoints, 3), "float32", meaning)]

    def check(self, predictions: Predictions, targets: Targets) -> None:
        """Check that the rows have as many keypoints as the head."""
        check_shape("targets.keypoints", keypoints_of(targets), ["N", self.num_keypoints, "2 or 3"])

    def overflow(self, view: View, assignment: Assignment, slots: int) -> int:
        """Always 0: the term has no planned capacity."""
        return 0

    def decoded(self, predictions: Predictions, anchors: Anchors) -> dict[str, Tensor]:
        """Positions in pixels and, if the head predicts it, the probability of being visible."""
        raw = at_least_float32(given("predictions.keypoints", predictions.keypoints))
        raw = raw.unflatten(1, (self.num_keypoints, self.keypoint_dims)).permute(0, 3, 1, 2)  # [B, A, K, D]
        points, strides = anchors
        positions = self.decode(raw[..., :2], points) * strides[:, None, None]
        return {"keypoints": torch.cat([positions, raw[..., 2:].sigmoid()], -1).float()}

    def forward(self, positives: Positives) -> dict[str, Term]:
        """The terms."""
        raw = self.raw(positives)
        return self.errors(positives, raw, *self.located(positives, raw))

    def errors(self, positives: Positives, raw: Tensor, predicted: Tensor, true: Tensor) -> dict[str, Term]:
        """`pose` and `kobj` of raw `[P, K, D]` keypoints of the positives, and predicted and true ones `[P, K, 2]`."""
        size = xyxy_to_cxcywh(positives.boxes)[:, 2:]
        visible = visible_of(positives.view.scene.targets)[positives.assignment.row]
        location = keypoint_location(predicted, true, visible, size.prod(-1), self.sigmas)
        kobj = torch.zeros_like(location)
        if self.keypoint_dims == 3:
            kobj = binary_cross_entropy(raw[..., 2], visible.to(raw.dtype))
        return {"pose": Mean(location), "kobj": Mean(kobj)}

    def raw(self, positives: Positives) -> Tensor:
        """`[P, K, D]` raw keypoints of the positives."""
        raw = positives.read(given("predictions.keypoints", positives.view.predictions.keypoints))
        return raw.unflatten(-1, (self.num_keypoints, self.keypoint_dims))

    def located(self, positives: Positives, raw: Tensor) -> tuple[Tensor, Tensor]:
        """`[P, K, 2]` predicted and true keypoints, grid units."""
        scene = positives.view.scene
        true = positives.of_rows(keypoints_in_pixels(keypoints_of(scene.targets), scene.image_size))
        return self.decode(raw[..., :2], positives.points), true / positives.strides[:, None, None]

    def decode(self, raw: Tensor, points: Tensor) -> Tensor:
        """`[..., K, 2]` keypoints of raw ones at anchor points `[..., 2]`, grid units."""
        return raw + points[..., None, :] if self.offsets else decode_keypoints(raw, points)


def keypoints_of(targets: Targets) -> Tensor:
    """`[N, K, 2 or 3]` keypoints of the rows."""
    return given("targets.keypoints", targets.keypoints)


def visible_of(targets: Targets) -> Tensor:
    """`[N, K]` bool: flag not 0; without flags, every keypoint."""
    keypoints = keypoints_of(targets)
    if keypoints.shape[-1] == 3:
        return keypoints[..., 2] != 0
    return torch.ones_like(keypoints[..., 0], dtype=torch.bool)
