"""How boxes are compared: candidates with their rows, and positives with theirs.

Letters: P positive slots.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from compiled_loss.assign.parts import Assigner, Overlap
from compiled_loss.checks import check_part
from compiled_loss.losses.parts import BoxOverlap
from compiled_loss.losses.scene import View


class CompareBoxes:
    """The overlap of boxes in pixels.

    Args:
        overlap: of two boxes.
        prepare: converts both kinds of boxes beforehand, so that this is not repeated for every pair.
    """

    def __init__(self, overlap: BoxOverlap, prepare: Callable[[Tensor], Tensor] | None = None) -> None:
        check_part("overlap", overlap, "boxes1", "boxes2")
        self.overlap = overlap
        self.prepare = prepare or _as_they_are

    def __call__(self, view: View, assigner: Assigner) -> Overlap:
        """The overlap of every candidate with its row."""
        predicted, true = self.prepare(view.boxes), self.prepare(view.scene.boxes)
        return lambda candidates, logits: self.overlap(candidates.of_rows(true), candidates.take(predicted))


@dataclass(frozen=True)
class OneMinus:
    """The box term `1 - overlap`.

    Args:
        overlap: overlap of two boxes. It receives them in pixels if it has a true attribute `in_pixels`, otherwise in
            grid units of their anchor's level.

    Example:
        >>> from compiled_loss.geometry.boxes import giou
        >>> box = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
        >>> OneMinus(giou)(box, box, torch.ones(1)).round(decimals=4)
        tensor([0.])
    """

    overlap: BoxOverlap

    def __post_init__(self) -> None:
        check_part("overlap", self.overlap, "boxes1", "boxes2")

    def __call__(self, predicted: Tensor, true: Tensor, strides: Tensor) -> Tensor:
        """`[P]` errors."""
        if getattr(self.overlap, "in_pixels", False):
            predicted, true = in_pixels(predicted, strides), in_pixels(true, strides)
        return 1 - self.overlap(predicted, true)


def in_pixels(boxes: Tensor, strides: Tensor) -> Tensor:
    """Convert boxes `[P, 4 or 5]` from units of strides `[P]` to pixels; angles are unchanged."""
    if boxes.shape[-1] == 4:
        return boxes * strides[:, None]
    return torch.cat([boxes[:, :4] * strides[:, None], boxes[:, 4:]], -1)


def _as_they_are(boxes: Tensor) -> Tensor:
    return boxes
