"""What an assigner receives, and what it must do.

Letters: B images, N rows, A anchors, C classes, G pages, S candidates of a page, P positive slots.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from compiled_loss.assign.candidates import Candidates
from compiled_loss.assign.regions import Region, check_region
from compiled_loss.checks import check_floating, check_integer, check_part, check_shape, kind_of, require, whole_number
from compiled_loss.numerics import pick
from compiled_loss.types import Assignment

# From candidates and `[G, S]` logits of their rows' classes to `[G, S]`, at most 1; any value where there is none.
Overlap = Callable[[Candidates, Tensor], Tensor]


class Pairs(NamedTuple):
    """The pairs of rows and candidate anchors, and how well they overlap.

    Args:
        scores: `[B, C, A]` class logits.
        batch_idx: `[N]` image of each row; rows outside `[0, B)` are padding.
        labels: `[N]` class ids.
        boxes: `[N, 4]` boxes of the rows, xyxy float32 pixels; oriented boxes are `[N, 5]` (cx, cy, w, h, angle).
        points: `[A, 2]` anchor points, pixels.
        strides: `[A]` pixels per grid unit.
        candidates: the candidate anchors of every row.
        overlap: a function of candidates and their logits that returns `[G, S]` overlaps, such as CIoU.
        sound: a function that returns `[B, A]` bool, True for anchors whose predictions, apart from scores, are finite;
            None means all are.

    Example:
        >>> from compiled_loss.assign.candidates import find_cells, list_candidates
        >>> from compiled_loss.assign.task_aligned import TaskAligned
        >>> from compiled_loss.pages import lay_out
        >>> box, row, grids = torch.tensor([[0.0, 0.0, 16.0, 16.0]]), torch.tensor([0]), [(2, 2), (1, 1)]
        >>> cells = find_cells(box, row == 0, grids, [8, 16])
        >>> candidates = list_candidates(cells, lay_out(cells.counts[:-1], 1), row, grids)
        >>> perfect = lambda candidates, logits: torch.ones(candidates.anchor.shape)
        >>> placed = box, torch.zeros(5, 2), torch.tensor([8, 8, 8, 8, 16])
        >>> a = TaskAligned(top_k=3)(Pairs(torch.zeros(1, 1, 5), row, row, *placed, candidates, perfect))
        >>> a.anchor, a.valid
        (tensor([0, 1, 2]), tensor([True, True, True]))
    """

    scores: Tensor
    batch_idx: Tensor
    labels: Tensor
    boxes: Tensor
    points: Tensor
    strides: Tensor
    candidates: Candidates
    overlap: Overlap
    sound: Callable[[], Tensor] | None = None

    def image(self) -> Tensor:
        """`[N]` image of each row; 0 for padding."""
        return torch.where(self.real(), self.batch_idx, 0).long()

    def label(self) -> Tensor:
        """`[N]` class of each row, 0 for padding; an id out of range must fail, not read another class or image."""
        batch, classes, _ = self.scores.shape
        known = (self.labels >= 0) & (self.labels < classes)
        return torch.where(self.real(), torch.where(known, self.labels, batch * classes), 0).long()

    def logits(self) -> Tensor:
        """`[G, S]` logits of the rows' classes at their candidates."""
        candidates = self.candidates
        return pick(self.scores, candidates.image[:, None], candidates.of_rows(self.label()), candidates.anchor)

    def overlaps(self, logits: Tensor) -> Tensor:
        """`[G, S]` overlaps; 0 where not positive, for non-finite predictions and where there is no candidate."""
        found = self.overlap(self.candidates, logits)
        check_shape("overlap(...)", found, self.candidates.anchor.shape, "see parts.BoxOverlap")
        found = found.float()
        return torch.where(self.candidates.inside & (found > 0) & found.isfinite(), found, 0.0)

    def usable(self, logits: Tensor) -> Tensor:
        """`[G, S]` bool: candidates whose predictions are finite, whatever their overlap."""
        usable = self.candidates.inside & logits.isfinite()
        return usable if self.sound is None else usable & self.candidates.take(self.sound())

    def real(self) -> Tensor:
        """`[N]` bool: True for rows that belong to an image of the batch; the others are padding."""
        return (self.batch_idx >= 0) & (self.batch_idx < self.scores.shape[0])


class Assigner(Protocol):
    """Assigns anchors to rows: every anchor to at most one row, and no anchor with a non-finite prediction.

    A callable that takes `Pairs` and returns an `Assignment` with `P = N * slots`. It is called without gradients, and
    none of its sizes may depend on a tensor's value.

    Args:
        pairs: the rows, their candidates, and how well they overlap.

    Example:
        >>> from compiled_loss import DetectionLoss, NearCentre, select
        >>> class MostConfident:  # of the anchors near a row's centre those with the highest score of its class
        ...     slots, region = 3, NearCentre(radius=1.5)
        ...
        ...     def __call__(self, pairs):
        ...         logits = pairs.logits()
        ...         score = torch.where(pairs.usable(logits), logits.sigmoid(), 0.0)
        ...         held = select(pairs, merit=score, contest=score, k=self.slots)
        ...         return held.assignment(pairs, score=held.valid.float())
        >>> criterion = DetectionLoss(80, assigner=MostConfident())
    """

    @property
    def slots(self) -> int:
        """Positive slots of each row, so that `P = N * slots`."""
        ...

    @property
    def region(self) -> Region | None:
        """Where candidates come from; None means from inside the task's boxes."""
        ...

    def __call__(self, pairs: Pairs) -> Assignment:
        """The positives."""
        ...


def check_assigner(argument: str, value: Assigner) -> Assigner:
    """Check that an argument is an assigner, and return it.

    Raises:
        ValueError: if it is not, for instance if it is an assigner's class.
    """
    expected, got = "an assigner, such as TaskAligned()", kind_of(value)
    require(callable(value) and not isinstance(value, type), argument, expected, got)
    lacking = [name for name in ("slots", "region") if not hasattr(value, name)]
    require(not lacking, argument, f"{expected}, see parts.Assigner", f"{got} without {' and '.join(lacking)}")
    check_part(argument, value, "pairs")
    whole_number(f"{argument}.slots", value.slots)
    check_region(f"{argument}.region", value.region)
    return value


def check_assignment(found: Assignment, rows: int, assigner: Assigner) -> Assignment:
    """Check that an assigner returned an `Assignment` of the right size, and return it.

    Args:
        found: what the assigner returned.
        rows: N.
        assigner: the assigner.

    Raises:
        ValueError: if the type, a size or a dtype is wrong.
    """
    argument, see = f"{type(assigner).__name__}(...)", "see parts.Assigner"
    require(isinstance(found, Assignment), argument, f"an Assignment, {see}", kind_of(found))
    for name in ("image", "anchor", "row", "valid", "score"):
        check_shape(f"{argument}.{name}", getattr(found, name), [rows * assigner.slots], f"N * slots, {see}")
    for name in ("image", "anchor", "row"):
        check_integer(f"{argument}.{name}", getattr(found, name))
    require(found.valid.dtype == torch.bool, f"{argument}.valid", f"torch.bool, {see}", found.valid.dtype)
    check_floating(f"{argument}.score", found.score)
    return found
