"""Run an exported file over random and edge batches and compare it with eager torch, output by output.

What to compare with comes from the file itself: its task, its constants and its tables of inputs and outputs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from compiled_loss.exporting import Metadata, eager, load
from export.batches import Draw, draws, make, moved

# Of an output's largest entry; whole numbers and truth values must be equal. Sums over anchors keep six digits. A
# weight is a power of an overlap, which is a difference that may cancel: where few poor overlaps carry a batch, its
# roundings alone can exceed this, and such a batch is drawn anew.
TOLERANCE = 1e-5
MOVES, REDRAWS = 3, 5

Function = Callable[[dict[str, Tensor]], dict[str, Tensor]]


class Worst(NamedTuple):
    """The largest error of an output, and the batch that showed it."""

    error: float
    batch: str


def error_of(got: Tensor, expected: Tensor) -> float:
    """Largest difference as a share of the largest entry; infinite for another shape, dtype, NaN or whole number."""
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


def compare(file: Function, truth: Function, inputs: dict[str, Tensor], names: Sequence[str]) -> dict[str, float]:
    """The error of every output; infinite for all of them where the file cannot run the batch."""
    expected = truth(inputs)
    try:
        got = file(inputs)
    except Exception as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        print(f"cannot run: {first}", file=sys.stderr)
        return dict.fromkeys(names, float("inf"))
    return {name: error_of(got[name], expected[name]) if name in got else float("inf") for name in names}


def errors_of(file: Function, truth: Function, metadata: Metadata, draw: Draw, seed: int) -> dict[str, float]:
    """The error of every output on a batch that decides something.

    Where two candidates are equal but for rounding, or few poor overlaps carry a batch, eager torch itself answers
    otherwise once its inputs move by a few roundings. A difference no larger than that says nothing about the file, and
    another batch is drawn.
    """
    names, errors = [port.name for port in metadata.outputs], {}
    for redraw in range(1 + REDRAWS):
        inputs = make(metadata, draw, seed + 1000 * redraw)
        errors = compare(file, truth, inputs, names)
        wrong = [name for name, error in errors.items() if not error <= TOLERANCE]
        if not wrong or not draw.decided:
            break
        shaken = [_shaken(truth, inputs, names, seed + move) for move in range(MOVES)]
        if any(errors[name] > max(x[name] for x in shaken) for name in wrong):
            break
    return errors


def _shaken(truth: Function, inputs: dict[str, Tensor], names: Sequence[str], seed: int) -> dict[str, float]:
    """How far eager torch itself moves when its inputs move by a few roundings."""
    return compare(lambda x: truth(moved(x, seed)), truth, inputs, names)


def verify(path: str) -> dict[str, Worst]:
    """The largest error of every output over all batches.

    Raises:
        ValueError: for a file that cannot be read, or whose loss cannot be made anew.
    """
    file = load(path)
    try:
        truth = eager(file.metadata)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    worst = {port.name: Worst(0.0, "") for port in file.metadata.outputs}
    for i, draw in enumerate(draws()):
        for name, error in errors_of(file.run, truth, file.metadata, draw, i).items():
            if error > worst[name].error:
                worst[name] = Worst(error, draw.title)
    return worst


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 where the file agrees with eager torch, 1 where it does not, 2 for a file that cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m export.verify", description=__doc__)
    parser.add_argument("file", help=".onnx, .pt2 or .aoti.pt2")
    given = parser.parse_args(arguments)
    try:
        worst = verify(given.file)
    except (ValueError, ImportError) as error:
        parser.error(str(error))
    width = max(len(name) for name in worst)
    print(f"{'output':{width}}  {'largest error':>13}  in")
    for name, (error, batch) in worst.items():
        print(f"{name:{width}}  {error:13.1e}  {batch or 'none'}{'' if error <= TOLERANCE else '  WRONG'}")
    wrong = [name for name, (error, _) in worst.items() if not error <= TOLERANCE]
    print(f"{len(list(draws()))} batches: " + (f"FAILED in {', '.join(wrong)}" if wrong else "all outputs agree"))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
