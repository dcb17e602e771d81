"""The parts of a loss, as types: write your own and pass it to a loss.

Letters: B images, N rows, A anchors, C classes, P positive slots.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from torch import Tensor

from compiled_loss.assign.parts import Assigner, Overlap
from compiled_loss.assign.regions import Region
from compiled_loss.checks import check_shape, given
from compiled_loss.data.targets import Targets
from compiled_loss.grid import Anchors, Sides
from compiled_loss.losses.fields import Field, Map
from compiled_loss.losses.scene import Positives, View
from compiled_loss.types import Assignment, Predictions


class BoxOverlap(Protocol):
    """How well two boxes overlap: a function or callable object, such as any of `compiled_loss.overlaps`.

    Args:
        boxes1: `[..., 4]` xyxy; oriented boxes are `[..., 5]` (cx, cy, w, h, angle). The unit is arbitrary, so the
            overlap should not depend on scale. If it does, it must have an attribute `in_pixels` that is True.
        boxes2: the same; both broadcast against each other.

    Returns:
        `[...]` at most 1, differentiable. An assigner treats values that are not above 0 as no overlap.

    Example:
        >>> from compiled_loss import DetectionLoss, overlaps
        >>> def sharper(boxes1, boxes2):
        ...     return overlaps.giou(boxes1, boxes2) ** 3
        >>> criterion = DetectionLoss(80, overlap=sharper)
    """

    def __call__(self, boxes1: Tensor, boxes2: Tensor, /) -> Tensor: ...


class BoxTerm(Protocol):
    """The error of predicted boxes: a function or callable object; a module may keep buffers.

    Args:
        predicted: `[P, 4]` boxes of the positives, xyxy in units of their anchor's stride; oriented boxes are `[P, 5]`
            (cx, cy, w, h, angle).
        true: the boxes of their rows, in the same form. All zeros for empty slots and rows of weight 0, where the
            result is not counted but must be finite.
        strides: `[P]` pixels per unit.

    Returns:
        `[P]` errors, differentiable; the loss weights, sums and normalises them.

    Example:
        >>> from compiled_loss import DetectionLoss
        >>> def corners(predicted, true, strides):
        ...     return (predicted - true).abs().mean(1)
        >>> criterion = DetectionLoss(80, box_term=corners, box_gain=2.5)
    """

    def __call__(self, predicted: Tensor, true: Tensor, strides: Tensor, /) -> Tensor: ...


class ClassTerm(Protocol):
    """The error of class logits: a function or callable object.

    Rows with weights, ignore rows and `per_image` need a `WeightedClassTerm` instead.

    Args:
        scores: `[B, C, A]` logits of all anchors.
        assignment: the positives. For each slot with `valid` True, the target of `scores[image, label, anchor]` is
            `score`; all other targets are 0. Empty slots have `score` 0.
        labels: `[N]` class of each row: `label = labels[assignment.row]`.

    Returns:
        Scalar: the error summed over all logits, differentiable; the loss normalises it.

    Example:
        >>> from compiled_loss import DetectionLoss
        >>> def squared(scores, assignment, labels):
        ...     image, anchor, row, valid, score, *_ = assignment
        ...     found, label = scores.sigmoid(), torch.where(valid, labels[row], 0)
        ...     own = found[image, label, anchor]
        ...     return found.square().sum() + torch.where(valid, (own - score).square() - own.square(), 0.0).sum()
        >>> criterion = DetectionLoss(80, classification=squared)
    """

    def __call__(self, scores: Tensor, assignment: Assignment, labels: Tensor, /) -> Tensor: ...


class Weighted(NamedTuple):
    """`sum score * error / S` over the positives, S the loss's normaliser."""

    errors: Tensor  # [P]


class Mean(NamedTuple):
    """Mean over the positives and the trailing dimension."""

    errors: Tensor  # [P, K]


class MeanWhere(NamedTuple):
    """Mean over the entries that a mask selects, at least 0."""

    errors: Tensor  # [P, K]
    mask: Tensor  # [P, K] bool


class OfImages(NamedTuple):
    """Mean over the images and the trailing dimension; row weights do not affect it."""

    errors: Tensor  # [B, K]


# A term that is reduced in one of these ways, or a scalar already reduced, which row weights do not affect and which
# cannot be returned per image.
Term = Weighted | Mean | MeanWhere | OfImages | Tensor


class WeightedClassTerm(Protocol):
    """A class term that also weights anchors and returns each image's contribution.

    With an error e of every logit and `weights` v of anchors, `sum over images, anchors a of v_a sum over classes e_a`.
    The weight is 1 for background, the row's weight for positives, and 0 for ignored anchors, whose logits may hold any
    value and must get a gradient of exactly 0. Without weights, or if all are 1, it is the plain class term.
    """

    def __call__(self, scores: Tensor, assignment: Assignment, labels: Tensor) -> Tensor:
        """The sum without weights, like any `ClassTerm`."""
        ...

    def sums(
        self, scores: Tensor, assignment: Assignment, labels: Tensor, weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The sum, and the `[B]` sums of each image, with `[B, A]` weights of the anchors."""
        ...


class BoxKind(Protocol):
    """The kind of boxes of a task: how true boxes are placed and predicted ones are read."""

    @property
    def values(self) -> int:
        """Number of values of a box: 4, or 5 with an angle."""
        ...

    @property
    def maps(self) -> Sequence[Map]:
        """The maps that a head predicts besides distances."""
        ...

    @property
    def fields(self) -> Sequence[Field]:
        """The fields that targets need besides labels and boxes."""
        ...

    @property
    def region(self) -> Region:
        """Where candidates come from if the assigner's own region is None."""
        ...

    @property
    def inside(self) -> Region:
        """All anchors inside a box: those that an ignore row excludes from the class term."""
        ...

    def check(self, targets: Targets) -> None:
        """Check that the targets hold what such boxes need."""
        ...

    def place(self, targets: Targets, image_size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """`[N, values]` true boxes in float32 pixels, and `[N]` bool, which of them may have candidates."""
        ...

    def predicted(self, predictions: Predictions, sides: Sides, anchors: Anchors) -> Tensor:
        """`[B, A, values]` boxes of all anchors, float32 pixels, from their decoded distances."""
        ...

    def scaled(self, boxes: Tensor, strides: Tensor) -> Tensor:
        """Convert boxes `[P, values]` from pixels to units of strides `[P]`."""
        ...

    def distances(self, points: Tensor, boxes: Tensor) -> Tensor:
        """`[P, 4]` distances from points to the sides of boxes, in their common unit."""
        ...

    def read(self, positives: Positives, distances: Tensor) -> Tensor:
        """`[P, values]` predicted boxes of the positives, grid units, from predicted distances."""
        ...


class Pairing(Protocol):
    """How well candidates overlap their rows."""

    def __call__(self, view: View, assigner: Assigner) -> Overlap:
        """Return a function of candidates and their logits that computes `[G, S]` overlaps."""
        ...


class Extra(Protocol):
    """Base class for further terms, on predictions and target fields other than boxes and classes.

    A subclass defines at least `maps`, `fields`, `gains` and `__call__`. `Predictions.attributes` and
    `Targets.attributes` are meant for data without a field of its own, such as a depth for every object.

    Args:
        maps: fields of `Predictions` that it reads.
        fields: fields of `Targets` that it reads.
        gains: factor of each of its terms, by name.

    Example:
        >>> from compiled_loss import DetectionLoss
        >>> class Depth(Extra):
        ...     maps = (Map("attributes", 1, "logarithm of the depth in metres"),)
        ...     fields = (Field("attributes", (1,), "float32", "depth, metres"),)
        ...     gains = {"depth": 0.5}
        ...
        ...     def __call__(self, positives):
        ...         predicted = positives.read(positives.view.predictions.attributes)  # [P, 1]
        ...         true = positives.of_rows(positives.view.scene.targets.attributes)  # [P, 1], 0 in empty slots
        ...         return {"depth": Weighted((predicted - true.clamp(min=0.1).log()).abs()[:, 0])}
        >>> criterion = DetectionLoss(80, extras=[Depth()])
    """

    maps: Sequence[Map] = ()
    fields: Sequence[Field] = ()
    gains: Mapping[str, float] = {}

    def check(self, predictions: Predictions, targets: Targets) -> None:
        """Check that targets hold what the terms need (maps are checked already); by default, the shapes in `fields`.

        Raises:
            ValueError: naming the field.
        """
        rows = targets.batch_idx.shape[0]
        for x in self.fields:
            value = getattr(targets, x.name)
            if value is not None or not x.optional:
                check_shape(f"targets.{x.name}", given(f"targets.{x.name}", value), [rows, *x.shape])

    def overflow(self, view: View, assignment: Assignment, slots: int) -> Tensor | int:
        """How often the capacity planned on the host was exceeded; 0 by default."""
        return 0

    def decoded(self, predictions: Predictions, anchors: Anchors) -> dict[str, Tensor]:
        """Further fields `[B, A, ...]` of `Decoded`, for all anchors; none by default."""
        return {}

    def __call__(self, positives: Positives) -> dict[str, Term]:
        """The terms by name, without their gains; nothing in them may depend on the number of filled slots."""
        ...
