"""One assigner, then another, in one graph.

Letters: N rows, L levels, A anchors.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from compiled_loss.assign.candidates import Candidates
from compiled_loss.assign.parts import Assigner, Pairs, check_assigner
from compiled_loss.assign.regions import InBox, Region
from compiled_loss.checks import true_or_false
from compiled_loss.exact import ExactModule
from compiled_loss.pages import room_for
from compiled_loss.types import Assignment


@dataclass(frozen=True)
class Either(Region):
    """One of two regions, chosen by a tensor; a plan keeps room for both.

    Args:
        first: where candidates come from while `second` is False; None means from inside the task's boxes.
        then: where they come from while `second` is True; None as above.
        second: scalar, bool.

    Example:
        >>> from compiled_loss.assign.centres import NearCentre
        >>> region = Either(InBox(), NearCentre(1.5), torch.tensor(True))
        >>> region.reach(torch.tensor([[0.0, 0.0, 48.0, 48.0]]), [8], [(8, 8)])
        tensor([[[12., 12., 36., 36.]]])
    """

    first: Region | None
    then: Region | None
    second: Tensor

    def reach(self, boxes: Tensor, strides: Sequence[int], grid_sizes: Sequence[tuple[int, int]]) -> Tensor:
        """The reach of the active region."""
        first, then = (x.reach(boxes, strides, grid_sizes) for x in self._both())
        return _of_the_turn(self.second, first, then)

    def levels(self, boxes: Tensor, strides: Sequence[int]) -> Tensor | None:
        """The levels of the active region."""
        found = [x.levels(boxes, strides) for x in self._both()]
        if found == [None, None]:
            return None
        everywhere = torch.ones(boxes.shape[0], len(strides), dtype=torch.bool, device=boxes.device)
        first, then = (everywhere if x is None else x for x in found)
        return _of_the_turn(self.second, first, then)

    def keep(
        self,
        candidates: Candidates,
        boxes: Tensor,
        anchors: Tensor,
        strides: Sequence[int],
        grid_sizes: Sequence[tuple[int, int]],
    ) -> Candidates:
        """The candidates of the active region."""

        def kept(region: Region) -> Candidates:
            few = _few_pages(candidates, region)
            found = region.keep(few, boxes, anchors, strides, grid_sizes)
            return found if few is candidates else found.on_first(candidates.anchor.shape[0])

        first, then = (kept(x) for x in self._both())
        anchor, inside, fits = (
            _of_the_turn(self.second, x, y)
            for x, y in zip((*first[2:], first.layout.fits), (*then[2:], then.layout.fits), strict=True)
        )
        return candidates._replace(layout=candidates.layout._replace(fits=fits), anchor=anchor, inside=inside)

    def _both(self) -> tuple[Region, Region]:
        return self.first or InBox(), self.then or InBox()


def _few_pages(candidates: Candidates, region: Region | None) -> Candidates:
    """Candidates on no more pages than the region's rows can have, if the region has a limit; otherwise unchanged."""
    most = getattr(region, "most", None)
    return candidates if most is None else candidates.on_first(room_for(candidates.layout.fits.shape[0], most))


def region_or(region: Region | None, default: Region) -> Region:
    """An assigner's region, with every None in it replaced by the default.

    Args:
        region: the assigner's region.
        default: the region of the task's boxes.

    Example:
        >>> region_or(None, InBox(fitting_levels=True))
        InBox(fitting_levels=True, farthest=None, grown=True)
    """
    if isinstance(region, Either):
        return Either(region_or(region.first, default), region_or(region.then, default), region.second)
    return default if region is None else region


class Scheduled(ExactModule):
    """One assigner for the first part of training, then another.

    Both are computed, and a tensor selects whose positives are used, so switching does not recompile. Candidates come
    from the active assigner. The state dict records which one is active, so that a resumed run continues correctly.
    In an `EndToEndLoss`, whose branches share candidates, call `set_second` on every `Scheduled` assigner.

    Args:
        first: assigner for the first part, such as `ATSS()`.
        then: assigner for the rest, such as `TaskAligned()`.
        second: whether to start with `then`.

    Raises:
        ValueError: if `first` or `then` is not an assigner.

    Source: PP-YOLOE, arXiv 2203.16250: ATSS before task-aligned assignment.

    Example:
        >>> from compiled_loss import ATSS, DetectionLoss, TaskAligned
        >>> assigner = Scheduled(ATSS(), TaskAligned())
        >>> criterion = DetectionLoss(80, assigner=assigner)
        >>> assigner.set_second(True)
        >>> assigner.slots, bool(assigner.second)
        (27, True)
    """

    second: Tensor

    def __init__(self, first: Assigner, then: Assigner, *, second: bool = False) -> None:
        super().__init__()
        self.first = check_assigner("first", first)
        self.then = check_assigner("then", then)
        self.register_buffer("second", torch.tensor(true_or_false("second", second)))

    @property
    def slots(self) -> int:
        """Positive slots of each row: the larger of the two assigners' numbers."""
        return max(self.first.slots, self.then.slots)

    @property
    def region(self) -> Region | None:
        """The region of the active assigner; None, also inside it, stands for the region of the task's boxes."""
        first, then = self.first.region, self.then.region
        return None if first is None and then is None else Either(first, then, self.second)

    def set_second(self, second: bool) -> None:
        """Select the active assigner; call it between steps, outside the compiled step.

        Args:
            second: True activates `then`, False `first`.

        Raises:
            ValueError: if the argument is not True or False.
        """
        self.second.fill_(true_or_false("second", second))

    def forward(self, pairs: Pairs) -> Assignment:
        """The positives of the active assigner."""
        rows = pairs.labels.shape[0]

        def positives(assigner: Assigner) -> Assignment:
            own = pairs._replace(candidates=_few_pages(pairs.candidates, assigner.region))
            return _with_slots(assigner(own), rows, assigner.slots, self.slots)

        first, then = positives(self.first), positives(self.then)
        found = [_of_the_turn(self.second, x, y) for x, y in zip(first[:6], then[:6], strict=True)]
        weight = None
        if first.weight is not None or then.weight is not None:
            weight = torch.where(self.second, then.weights(), first.weights())
        return Assignment(*found, weight=weight)


def _of_the_turn(second: Tensor, first: Tensor, then: Tensor) -> Tensor:
    """`then` where `second` is True, else `first`; ONNX Runtime has no Where for booleans."""
    if then.dtype == torch.bool:
        return (second & then) | (~second & first)
    return torch.where(second, then, first)


def _with_slots(found: Assignment, rows: int, slots: int, wanted: int) -> Assignment:
    """The same positives in more slots."""

    def widened(x: Tensor) -> Tensor:
        return torch.cat([x.view(rows, slots), x.new_zeros(rows, wanted - slots)], 1).flatten()

    if slots == wanted:
        return found
    weight = None if found.weight is None else widened(found.weight)
    return Assignment(*(widened(x) for x in found[:5]), overflow=found.overflow, weight=weight)
