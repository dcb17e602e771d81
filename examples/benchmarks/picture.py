"""What the loss adds to a training step as the number of objects grows: the picture at the top of the README.

    python examples/benchmarks/picture.py [--rounds 5] [--out .docs/step.svg]

Batch 8, 640x640, 80 classes, mixed boxes, forward and backward, the criterion as a trainer calls it: time, and memory
at the peak with the gradients. The reference (`ultralytics`) is included if it is installed.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from batches import BATCH, MIXED, rows_of
from heads import HEADS, criteria, leaves_of, make_batch, make_preds, make_steps
from memory import peak_bytes
from timing import available, cell, in_turn, machine, parser_of, print_table, read_options

ROWS = (0, 16, 50, 100, 200, 400, 800, 1600)
SHOWN = {"reference": "reference", "criterion, compiled": "compiled_loss"}
COLOURS = {"reference": "#c8642a", "criterion, compiled": "#2f81c9"}
INK = "#6e7781"  # of axes and words: readable on white and on black


def measure(rounds: int, device: str, with_reference: bool) -> Iterator[tuple[int, dict[str, float], dict[str, float]]]:
    """Rows, milliseconds and megabytes of each contender."""
    torch.manual_seed(0)
    head = HEADS["detect"]
    preds = make_preds(head, BATCH, device)
    leaves = leaves_of(preds)
    for count in ROWS:
        torch.compiler.reset()  # the criterion is made anew for each batch
        losses = criteria(head, preds, make_batch(rows_of(count, MIXED).to(device)), with_reference)
        steps = make_steps({name: losses[name] for name in SHOWN if name in losses}, leaves)
        took = in_turn(steps, rounds, device=device)
        yield count, took, {name: peak_bytes(run, leaves, device) / 2**20 for name, run in steps.items()}


def draw(points: list[tuple[int, dict[str, float], dict[str, float]]], path: Path) -> None:
    """Two panels side by side."""
    import matplotlib as mpl  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    style: Any = {"svg.fonttype": "none", "svg.hashsalt": "step", "font.family": "sans-serif", "font.size": 11}
    ink = dict.fromkeys(["text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"], INK)
    with mpl.rc_context(style | ink):
        figure = Figure(figsize=(9, 3.4), layout="constrained")
        time, memory = figure.subplots(1, 2)
        for axes, numbers, title in (
            (time, [took for _, took, _ in points], "milliseconds, forward + backward"),
            (memory, [peak for _, _, peak in points], "megabytes at the peak"),
        ):
            for name, label in SHOWN.items():
                line = [(p[0], value[name]) for p, value in zip(points, numbers, strict=True) if name in value]
                if line:
                    axes.plot(*zip(*line, strict=True), marker="o", markersize=4, color=COLOURS[name], label=label)
            axes.set(title=title, xlabel="objects in the batch", ylim=(0, None))
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(alpha=0.3)
            axes.patch.set_alpha(0)
        time.legend(frameon=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, transparent=True, metadata={"Date": None} if path.suffix == ".svg" else None)


def main() -> None:
    """Print the numbers and draw them."""
    parser = parser_of(__doc__, rounds=5)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/step.svg"), help="picture")
    options = read_options(parser)
    with_reference = available("ultralytics")
    points: list[tuple[int, dict[str, float], dict[str, float]]] = []

    def rows() -> Iterator[list[str]]:
        for count, took, peak in measure(options.rounds, options.device, with_reference):
            points.append((count, took, peak))
            cells = [
                cell(values, name, "reference" if name != "reference" else "")
                for values in (took, peak)
                for name in SHOWN
            ]
            yield [str(count), *cells]

    print_table(["rows", *(f"{unit}, {label}" for unit in ("ms", "MB") for label in SHOWN.values())], rows())
    print(f"\n{machine('torch', 'ultralytics', device=options.device)}, median of {options.rounds} rounds in turn")
    if available("matplotlib"):
        draw(points, options.out)
        print(f"picture: {options.out}")


if __name__ == "__main__":
    main()
