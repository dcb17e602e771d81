"""The parts that a loss is made of, as types: write one of your own and hand it to a loss.

Letters: B images, N rows, A anchors, C classes, P positive slots.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from compiled_loss.assign.parts import Assigner, Overlap
from compiled_loss.assign.regions import Region
from compiled_loss.checks import check_floating, check_part, check_shape, given
from compiled_loss.data.targets import Targets
from compiled_loss.grid import Anchors, Sides
from compiled_loss.losses.scene import Positives, View
from compiled_loss.types import Assignment, Predictions

# How well two boxes overlap, at most 1 and either way round the same; they broadcast, in one unit: pixels, if it has an
# attribute `in_pixels` that is true.
BoxOverlap = Callable[[Tensor, Tensor], Tensor]
# `[P]` error of predicted and true boxes `[P, 4 or 5]`, in units of `[P]` pixels. A true one that is all zeros stands
# for none, or for one of a row that weighs nothing.
BoxTerm = Callable[[Tensor, Tensor, Tensor], Tensor]
# Error summed over all logits `[B, C, A]`, not normalised, given the positives and the rows' labels `[N]`. One that is
# a `WeightedClassTerm` too serves rows with weights, ignore rows and `per_image`.
ClassTerm = Callable[[Tensor, Assignment, Tensor], Tensor]


class Map(NamedTuple):
    """A field of `Predictions` that a part reads.

    Args:
        name: of the field.
        channels: its channels; a letter where the loss leaves them open.
        meaning: what it holds, with its unit.
        pixels: 0 for one column an anchor `[B, channels, A]`; else one value a pixel `[B, channels, H, W]`, each so
            many mask pixels wide.
        optional: whether a head may lack it.
    """

    name: str
    channels: int | str
    meaning: str
    pixels: int = 0
    optional: bool = False

    def check(self, predictions: Predictions) -> None:
        """Check the field's rank, sizes and dtype.

        Raises:
            ValueError: naming the field, what was expected and what came.
        """
        argument, x = f"predictions.{self.name}", getattr(predictions, self.name)
        if x is None and self.optional:
            return
        x = given(argument, x)
        batch, _, anchors = predictions.scores.shape
        check_shape(argument, x, [batch, self.channels, *(["H", "W"] if self.pixels else [anchors])])
        check_floating(argument, x)


class Field(NamedTuple):
    """A field of `Targets` that a part reads.

    Args:
        name: of the field.
        shape: sizes after N rows, or with "H", "W" those of a map of each image.
        dtype: as in torch.
        meaning: what it holds, with its unit.
        optional: whether targets may lack it.
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: str
    meaning: str
    optional: bool = False


# What every loss reads of targets.
ROWS = (
    Field("batch_idx", (), "int64", "image of the row; outside [0, B) the row is padding"),
    Field("labels", (), "int64", "class of the row, in [0, C)"),
    Field("boxes", (4,), "float32", "centre x, centre y, width, height as fractions of the image"),
)


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
    """Further terms of a task, such as those of keypoints or masks."""

    @property
    def maps(self) -> Sequence[Map]:
        """What a head predicts for them."""
        ...

    @property
    def fields(self) -> Sequence[Field]:
        """What targets hold for them."""
        ...

    def check(self, predictions: Predictions, targets: Targets) -> None:
        """Check that the targets hold what the terms need; the maps are checked already."""
        ...

    def overflow(self, view: View, assignment: Assignment, slots: int) -> Tensor | int:
        """How often what was planned on the host did not suffice."""
        ...

    def decoded(self, predictions: Predictions, anchors: Anchors) -> dict[str, Tensor]:
        """What they tell of all anchors, as fields `[B, A, ...]` of `Decoded`."""
        ...

    def __call__(self, positives: Positives) -> dict[str, Term]:
        """The terms by name, not yet times their gains."""
        ...


class CompareBoxes:
    """The overlap of boxes in pixels.

    Args:
        overlap: of two boxes.
        prepare: what both are turned into first, so that it is not computed anew for every pair.
    """

    def __init__(self, overlap: BoxOverlap, prepare: Callable[[Tensor], Tensor] | None = None) -> None:
        check_part("overlap", overlap)
        self.overlap = overlap
        self.prepare = prepare or _as_they_are

    def __call__(self, view: View, assigner: Assigner) -> Overlap:
        """Of every candidate."""
        predicted, true = self.prepare(view.boxes), self.prepare(view.scene.boxes)
        return lambda candidates, logits: self.overlap(candidates.of_rows(true), candidates.take(predicted))


@dataclass(frozen=True)
class OneMinus:
    """The box term `1 - overlap`.

    Args:
        overlap: of two boxes; it gets them in pixels if it has an attribute `in_pixels` that is true, else in the grid
            units of their anchor's level.

    Example:
        >>> from compiled_loss.geometry.boxes import giou
        >>> box = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
        >>> OneMinus(giou)(box, box, torch.ones(1)).round(decimals=4)
        tensor([0.])
    """

    overlap: BoxOverlap

    def __post_init__(self) -> None:
        check_part("overlap", self.overlap)

    def __call__(self, predicted: Tensor, true: Tensor, strides: Tensor) -> Tensor:
        """`[P]` errors."""
        if getattr(self.overlap, "in_pixels", False):
            predicted, true = in_pixels(predicted, strides), in_pixels(true, strides)
        return 1 - self.overlap(predicted, true)


def in_pixels(boxes: Tensor, strides: Tensor) -> Tensor:
    """Boxes `[P, 4 or 5]` in units of strides `[P]`, in pixels; angles stay."""
    if boxes.shape[-1] == 4:
        return boxes * strides[:, None]
    return torch.cat([boxes[:, :4] * strides[:, None], boxes[:, 4:]], -1)


def _as_they_are(boxes: Tensor) -> Tensor:
    return boxes
