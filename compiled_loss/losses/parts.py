"""The parts that a loss is made of, as types: write one of your own and hand it to a loss.

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
    """How well two boxes overlap: a function, or an object that is called like one. Any of `compiled_loss.overlaps`.

    Args:
        boxes1: `[..., 4]` xyxy; of oriented boxes `[..., 5]` (cx, cy, w, h, angle). In any one unit, so an overlap is
            the same for boxes that are twice as large; one that is not has an attribute `in_pixels` that is True.
        boxes2: the same; both broadcast against each other.

    Returns:
        `[...]` at most 1, differentiable. What is not above 0 is no overlap to an assigner.

    Example:
        >>> from compiled_loss import DetectionLoss, overlaps
        >>> def sharper(boxes1, boxes2):
        ...     return overlaps.giou(boxes1, boxes2) ** 3
        >>> criterion = DetectionLoss(80, overlap=sharper)
    """

    def __call__(self, boxes1: Tensor, boxes2: Tensor, /) -> Tensor: ...


class BoxTerm(Protocol):
    """What a predicted box costs: a function, or an object that is called like one; a module may keep buffers.

    Args:
        predicted: `[P, 4]` boxes of the positives, xyxy in units of their anchor's stride; of oriented boxes `[P, 5]`
            (cx, cy, w, h, angle).
        true: the boxes of their rows, likewise. All zeros in an empty slot, and for a row that weighs nothing: what is
            returned there is not counted, but must be finite.
        strides: `[P]` pixels of such a unit.

    Returns:
        `[P]` errors, differentiable; the loss weighs, sums and normalises them.

    Example:
        >>> from compiled_loss import DetectionLoss
        >>> def corners(predicted, true, strides):
        ...     return (predicted - true).abs().mean(1)
        >>> criterion = DetectionLoss(80, box_term=corners, box_gain=2.5)
    """

    def __call__(self, predicted: Tensor, true: Tensor, strides: Tensor, /) -> Tensor: ...


class ClassTerm(Protocol):
    """What class logits cost: a function, or an object that is called like one.

    Rows with weights, ignore rows and `per_image` need a `WeightedClassTerm` instead.

    Args:
        scores: `[B, C, A]` logits of all anchors.
        assignment: the positives: logit `scores[image, label, anchor]` of slot p has the target `score` where `valid`
            holds, all others have 0. Empty slots have `score` 0.
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
    """Mean over the images and the trailing dimension; rows' weights do not reach it."""

    errors: Tensor  # [B, K]


# A term that is reduced like one of these, or a scalar that is already: rows' weights do not reach that, and it cannot
# be told for each image.
Term = Weighted | Mean | MeanWhere | OfImages | Tensor


class WeightedClassTerm(Protocol):
    """A class term that also weighs anchors, and tells what each image adds.

    With an error e of every logit and `weights` v of anchors, `sum over images, anchors a of v_a sum over classes e_a`.
    They are 1 in the background, 0 at ignored anchors, whose logits may hold anything and have a gradient of exactly 0,
    and at a positive the weight of its row. Without weights, or with weights of 1, it is the plain class term.
    """

    def __call__(self, scores: Tensor, assignment: Assignment, labels: Tensor) -> Tensor:
        """The sum without weights, as any `ClassTerm`."""
        ...

    def sums(
        self, scores: Tensor, assignment: Assignment, labels: Tensor, weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The sum, and the `[B]` sums of each image, with `[B, A]` weights of the anchors."""
        ...


class BoxKind(Protocol):
    """What the boxes of a task are: how true ones are placed, and predicted ones read."""

    @property
    def values(self) -> int:
        """Of a box: 4, or 5 with an angle."""
        ...

    @property
    def maps(self) -> Sequence[Map]:
        """What a head predicts besides distances."""
        ...

    @property
    def fields(self) -> Sequence[Field]:
        """What targets hold besides labels and boxes."""
        ...

    @property
    def region(self) -> Region:
        """Where candidates come from, of an assigner whose own region is None."""
        ...

    @property
    def inside(self) -> Region:
        """All that a box holds: what an ignore row keeps out of the class term, wherever candidates come from."""
        ...

    def check(self, targets: Targets) -> None:
        """Check that the targets hold what such boxes need."""
        ...

    def place(self, targets: Targets, image_size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """`[N, values]` true boxes in float32 pixels, and `[N]` bool, which of them may have candidates."""
        ...

    def predicted(self, predictions: Predictions, sides: Sides, anchors: Anchors) -> Tensor:
        """`[B, A, values]` boxes of all anchors, float32 pixels, of their decoded distances."""
        ...

    def scaled(self, boxes: Tensor, strides: Tensor) -> Tensor:
        """Boxes `[P, values]` in pixels, in units of strides `[P]`."""
        ...

    def distances(self, points: Tensor, boxes: Tensor) -> Tensor:
        """`[P, 4]` distances from points to the sides of boxes, one unit."""
        ...

    def read(self, positives: Positives, distances: Tensor) -> Tensor:
        """`[P, values]` predicted boxes of the positives, grid units, of predicted distances."""
        ...


class Pairing(Protocol):
    """How well candidates overlap their rows."""

    def __call__(self, view: View, assigner: Assigner) -> Overlap:
        """A function of candidates and their logits that tells `[G, S]` overlaps."""
        ...


class Extra(Protocol):
    """Further terms of a task: of what a head tells and rows hold besides boxes and classes. Derive from it.

    The least that one says is `maps`, `fields`, `gains` and `__call__`. `Predictions.attributes` and
    `Targets.attributes` are there for what has no field of its own, such as a depth of every object.

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
        """Check that the targets hold what the terms need; the maps are checked already. As `fields` say, if derived.

        Raises:
            ValueError: naming the field.
        """
        rows = targets.batch_idx.shape[0]
        for x in self.fields:
            value = getattr(targets, x.name)
            if value is not None or not x.optional:
                check_shape(f"targets.{x.name}", given(f"targets.{x.name}", value), [rows, *x.shape])

    def overflow(self, view: View, assignment: Assignment, slots: int) -> Tensor | int:
        """How often what was planned on the host did not suffice. Nothing is planned, if derived."""
        return 0

    def decoded(self, predictions: Predictions, anchors: Anchors) -> dict[str, Tensor]:
        """What they tell of all anchors, as fields `[B, A, ...]` of `Decoded`. Nothing, if derived."""
        return {}

    def __call__(self, positives: Positives) -> dict[str, Term]:
        """The terms by name, not yet times their gains; nothing in them may depend on how many slots are filled."""
        ...
