"""One batch through an exported graph and through eager torch: right, wrong, refused or ended."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from compiled_loss.exporting.metadata import Metadata
from compiled_loss.exporting.verifying.batches import Draw, make, moved
from compiled_loss.exporting.verifying.runtimes import EndedError, RefusedError

# Relative to an output's largest entry; integers and booleans must be equal. Sums over anchors keep six digits. A
# weight is a power of an overlap, which is a difference that may cancel. In a batch with only a few poor overlaps,
# rounding alone can exceed this tolerance, and such a batch is replaced.
TOLERANCE = 1e-5
VERDICTS = ("right", "wrong", "refused", "ended")
MOVES, REDRAWS = 3, 5

Function = Callable[[dict[str, Tensor]], dict[str, Tensor]]


class Verdict(NamedTuple):
    """The result of one batch.

    Args:
        batch: its title, such as `plain B=2 N=7`.
        images, rows: its sizes.
        verdict: one of `VERDICTS`.
        reason: the runtime's message if it refused or ended.
        errors: the error of every output if there are outputs; infinite for a wrong integer, shape, dtype or NaN.
    """

    batch: str
    images: int
    rows: int
    verdict: str
    reason: str
    errors: dict[str, float]

    @property
    def wrong(self) -> list[str]:
        """The outputs that differ."""
        return [name for name, error in self.errors.items() if not error <= TOLERANCE]


def error_of(got: Tensor, expected: Tensor) -> float:
    """Largest difference relative to the largest entry; infinite for a wrong shape, dtype, NaN or integer."""
    if (got.shape, got.dtype) != (expected.shape, expected.dtype):
        return float("inf")
    if not expected.is_floating_point():
        return 0.0 if torch.equal(got, expected) else float("inf")
    finite = expected.isfinite()
    same = torch.where(finite, got.isfinite(), (got == expected) | (got.isnan() & expected.isnan()))
    if not same.all():
        return float("inf")
    difference, scale = (got - expected)[finite].abs(), expected[finite].abs()
    if difference.numel() == 0 or difference.max() == 0:
        return 0.0
    return (difference.max() / scale.max().clamp(min=torch.finfo(scale.dtype).tiny)).item()


def judge(file: Function, truth: Function, metadata: Metadata, draw: Draw, seed: int) -> Verdict:
    """The verdict on a batch; a batch that cannot decide anything is replaced.

    If two candidates differ only by rounding, or a batch has only a few poor overlaps, eager torch itself gives another
    answer when its inputs move by a few roundings. A difference no larger than that says nothing about the file, so
    another batch is drawn.
    """
    names, redraw = [port.name for port in metadata.outputs], 0
    facts = (draw.title, draw.axes["B"], draw.axes["N"])
    while True:
        inputs = make(metadata, draw, seed + 1000 * redraw)
        expected = truth(inputs)
        try:
            errors = _errors(file(inputs), expected, names)
        except (RefusedError, EndedError) as error:
            return Verdict(*facts, "ended" if isinstance(error, EndedError) else "refused", str(error), {})
        found = Verdict(*facts, "right", "", errors)
        if not found.wrong:
            return found
        found = found._replace(verdict="wrong")
        if not draw.decided or redraw == REDRAWS:
            return found
        shaken = [_errors(truth(moved(inputs, seed + move)), expected, names) for move in range(MOVES)]
        if any(errors[name] > max(x[name] for x in shaken) for name in found.wrong):
            return found
        redraw += 1


def _errors(got: dict[str, Tensor], expected: dict[str, Tensor], names: Sequence[str]) -> dict[str, float]:
    return {name: error_of(got[name], expected[name]) if name in got else float("inf") for name in names}
