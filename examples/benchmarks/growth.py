"""How the time of a step of detection grows with the objects, from 16 rows to 80,000: table, exponents and picture.

    python examples/benchmarks/growth.py [--rounds 3] [--out runs/benchmarks/growth.png] [--gib 6] [--device cuda]

Batch 8, 640x640, 80 classes, forward and backward: ours compiled, with targets planned before, and the reference
(`ultralytics`) where it is installed. T is the number of anchors inside the boxes, all rows together. Each contender
stops before the number of rows for which it would need more than `--gib`, estimated from its last peak. The exponent is
the slope of log(time - time of an empty batch) over log T, where the time is at least twice that of the empty batch; 1
means linear.
"""

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from batches import BATCH, CLASSES, GRID_SIZES, MIXED, SIZE, STRIDES, TINY, candidates, rows_of
from heads import HEADS, leaves_of, make_batch, make_preds, make_steps, reference_criterion
from memory import peak_bytes
from timing import available, cell, in_turn, machine, parser_of, print_table, read_options
from torch import Tensor

from compiled_loss import DetectionLoss, Predictions, TargetPlan

ROWS = (0, 16, 50, 160, 500, 1600, 5000, 16000, 50000, 80000)
KINDS = {"tiny": TINY, "mixed": MIXED}
OURS, REFERENCE = "ours, planned", "reference"


class Point(NamedTuple):
    """A measured batch: the milliseconds of those contenders that took part."""

    rows: int
    candidates: int
    ms: dict[str, float]


def measure(kind: str, rounds: int, gib: float, device: str, with_reference: bool) -> Iterator[Point]:
    """One point for each number of rows, as far as any contender goes."""
    torch.manual_seed(0)
    torch.compiler.reset()
    preds = make_preds(HEADS["detect"], BATCH, device)
    predictions, leaves = Predictions(preds["boxes"], preds["scores"], GRID_SIZES), leaves_of(preds)
    plan, loss = TargetPlan((SIZE, SIZE), STRIDES), DetectionLoss(CLASSES, STRIDES).to(device)
    compiled = torch.compile(lambda p, t: loss(p, t).total, fullgraph=True)
    criterion = reference_criterion(HEADS["detect"], device) if with_reference else None
    peaks = dict.fromkeys([OURS, REFERENCE] if with_reference else [OURS], 0.0)
    last = ROWS[1]
    for count in ROWS:
        peaks = {name: peak for name, peak in peaks.items() if peak * count / last <= gib * 2**30}
        if not peaks:
            return
        targets = rows_of(count, KINDS[kind])
        planned, batch = plan.apply(targets).to(device).mark_dynamic(), make_batch(targets.to(device))
        losses: dict[str, Callable[[], Tensor]] = {OURS: lambda t=planned: compiled(predictions, t)}
        if criterion is not None:
            losses[REFERENCE] = lambda rows=batch, criterion=criterion: criterion(preds, rows)[0].sum()
        steps = make_steps({name: losses[name] for name in peaks}, leaves)
        yield Point(count, candidates(targets), in_turn(steps, rounds, warmup=1, device=device))
        peaks = {name: peak_bytes(run, leaves, device) for name, run in steps.items()}
        last = max(count, last)


def exponent(points: Sequence[Point], name: str) -> float:
    """Slope in T of what a contender takes beyond an empty batch; NaN where that stands out in fewer than two."""
    took = [(p.candidates, p.ms[name]) for p in points if name in p.ms]
    empty = took[0][1]
    beyond = [(math.log(count), math.log(ms - empty)) for count, ms in took if ms >= 2 * empty]
    if len(beyond) < 2:
        return math.nan
    return statistics.linear_regression(*zip(*beyond, strict=True)).slope


def draw(found: dict[str, list[Point]], path: Path) -> None:
    """Milliseconds over candidates, both logarithmic."""
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    for kind, points in found.items():
        for name, marker in ((REFERENCE, "o"), (OURS, "s")):
            line = [(p.candidates, p.ms[name]) for p in points[1:] if name in p.ms]
            if line:
                axes.loglog(*zip(*line, strict=True), marker=marker, label=f"{name}, {kind} boxes")
    axes.set(xlabel="T, anchors inside the boxes of a batch", ylabel="ms, forward + backward")
    axes.grid(which="both", alpha=0.3)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def main() -> None:
    """Print the table and draw the picture."""
    parser = parser_of(__doc__, rounds=3)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/growth.png"), help="picture")
    parser.add_argument("--gib", type=float, default=6, help="largest memory of a step in GiB (default %(default)s)")
    options = read_options(parser)
    with_reference = available("ultralytics")
    found: dict[str, list[Point]] = {kind: [] for kind in KINDS}

    def rows() -> Iterator[list[str]]:
        for kind, points in found.items():
            for p in measure(kind, options.rounds, options.gib, options.device, with_reference):
                points.append(p)
                shown = [cell(p.ms, REFERENCE), cell(p.ms, OURS, REFERENCE)]
                yield [f"{p.rows} {kind}", str(p.candidates), *shown]

    print_table(["rows", "T", "reference, eager, ms", "ours, planned, ms (reference / it)"], rows())
    for kind, points in found.items():
        slopes = [f"{name} {exponent(points, name):.2f}" for name in (OURS, REFERENCE) if name in points[0].ms]
        print(f"\nexponent in T, {kind} boxes: {'; '.join(slopes)}")
    print(f"\n{machine('torch', 'ultralytics', device=options.device)}, median of {options.rounds} rounds in turn")
    if available("matplotlib"):
        draw(found, options.out)
        print(f"picture: {options.out}")


if __name__ == "__main__":
    main()
