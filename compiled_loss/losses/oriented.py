"""The loss of oriented boxes: detection with an angle.

Letters: B images, N rows, A anchors, P positive slots.
"""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from compiled_loss.assign.parts import Assigner
from compiled_loss.data.targets import Targets
from compiled_loss.geometry.rotated import gaussian_overlap, gaussians, probiou
from compiled_loss.grid import Anchors
from compiled_loss.losses.boxes import OrientedBoxes, angles_of
from compiled_loss.losses.comparing import CompareBoxes, OneMinus
from compiled_loss.losses.dense import DenseLoss
from compiled_loss.losses.fields import Field, Map
from compiled_loss.losses.parts import BoxOverlap, BoxTerm, ClassTerm, Extra, Term, Weighted
from compiled_loss.losses.scene import Positives, View
from compiled_loss.terms.rotated import angle_error
from compiled_loss.types import Assignment, Predictions

# Least variance of a box in the box term, in grid units squared.
_FLOOR = 0.01


class OrientedLoss(DenseLoss):
    """Task-aligned loss for the oriented boxes and classes of a dense, anchor-free head, as one graph.

    Like `DetectionLoss`, but with `box = sum t (1 - ProbIoU) / S`, distances along the target's own axes, and
    `angle = sum t exp(-ln(w / h)^2 / 9) sin^2(2 (predicted - true)) / S`. Candidates are the anchors inside the
    oriented box or on its sides, and the assigner uses ProbIoU. Rows with a side below 2 pixels do not contribute.

    Target angles should lie in the same range as the head's, often `[-pi/4, 3 pi/4)`. Adding half a turn changes
    neither the box nor the box and angle terms, but it swaps left with right and top with bottom: the `dfl` term would
    then teach distances that do not belong to the angle that the head predicts.

    Args:
        num_classes: C.
        strides: pixels per grid unit of each level, finest level first.
        reg_max: distance bins R per side.
        assigner: matches anchors to target rows, a `parts.Assigner`; None means `TaskAligned()`.
        overlap: overlap of predicted and true boxes `[..., 5]` (cx, cy, w, h, angle), for the assigner and the default
            box term; None means ProbIoU, with variances of at least 0.01 in the box term.
        box_term: error of the predicted boxes, a `parts.BoxTerm`; None means `OneMinus(overlap)`.
        classification: error of the class logits, a `parts.ClassTerm`; None means `BinaryCrossEntropy()`.
        box_gain: factor of the box term.
        cls_gain: factor of the classification term.
        dfl_gain: factor of the distance term.
        angle_gain: factor of the angle term.
        distributed: average the normaliser of the sums over the ranks of the default process group.
        check_values: check the values of every batch's rows, as `Targets.validate` does, and warn once if a plan is too
            small. This happens only in eager calls with rows on the host, never in traced code or on a device. The
            attribute of the same name switches it on and off.
        per_image: also return what each image contributes to every term, as `LossOutput.per_image`.
        extras: terms of your own in addition to the task's, each a `parts.Extra`.

    Raises:
        ValueError: if a size is not positive, a number is negative or not finite, or an argument has the wrong rank,
            size, dtype or device.

    Source: ProbIoU (arXiv 2106.06072), TOOD (arXiv 2108.07755), Generalized Focal Loss (arXiv 2006.04388).

    Example:
        >>> import torch
        >>> criterion = OrientedLoss(num_classes=2, strides=(8, 16))
        >>> predictions = Predictions(torch.zeros(1, 64, 20), torch.zeros(1, 2, 20), ((4, 4), (2, 2)),
        ...                           angles=torch.zeros(1, 1, 20))
        >>> targets = Targets(torch.tensor([0]), torch.tensor([1]), torch.tensor([[0.5, 0.5, 0.5, 0.5]]),
        ...                   angles=torch.tensor([0.3]))
        >>> list(criterion(predictions, targets).terms)
        ['box', 'cls', 'dfl', 'angle']
    """

    task = "obb"

    def __init__(
        self,
        num_classes: int,
        strides: Sequence[int] | Tensor = (8, 16, 32),
        *,
        reg_max: int = 16,
        assigner: Assigner | None = None,
        overlap: BoxOverlap | None = None,
        box_term: BoxTerm | None = None,
        classification: ClassTerm | None = None,
        box_gain: float = 7.5,
        cls_gain: float = 0.5,
        dfl_gain: float = 1.5,
        angle_gain: float = 1.0,
        distributed: bool = False,
        check_values: bool = True,
        per_image: bool = False,
        extras: Sequence[Extra] = (),
    ) -> None:
        super().__init__(
            num_classes,
            strides,
            reg_max,
            boxes=OrientedBoxes(),
            assigner=assigner,
            pairing=CompareBoxes(gaussian_overlap, gaussians) if overlap is None else CompareBoxes(overlap),
            box_term=box_term or OneMinus(overlap or _probiou_of_some_size),
            classification=classification,
            extras=[AngleTerm(), *extras],
            gains={"box": box_gain, "cls": cls_gain, "dfl": dfl_gain, "angle": angle_gain},
            distributed=distributed,
            check_values=check_values,
            per_image=per_image,
            arguments=locals(),
        )


class AngleTerm(nn.Module):
    """`angle`, the angle error of the positives."""

    maps: Sequence[Map] = ()
    fields: Sequence[Field] = ()
    gains: Mapping[str, float] = {}  # the loss's

    def check(self, predictions: Predictions, targets: Targets) -> None:
        """Nothing to check beyond the boxes."""

    def overflow(self, view: View, assignment: Assignment, slots: int) -> int:
        """Always 0: the term has no planned capacity."""
        return 0

    def decoded(self, predictions: Predictions, anchors: Anchors) -> dict[str, Tensor]:
        """Nothing to add: decoded boxes already have their angles."""
        return {}

    def forward(self, positives: Positives) -> dict[str, Term]:
        """The term."""
        angles = positives.read(angles_of(positives.view.predictions)).squeeze(-1)
        _, _, width, height, angle = positives.boxes.unbind(-1)
        return {"angle": Weighted(angle_error(angles, angle, width, height))}


def _probiou_of_some_size(predicted: Tensor, true: Tensor) -> Tensor:
    return probiou(predicted, true, _FLOOR)
