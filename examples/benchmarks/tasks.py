"""Pose, oriented boxes, instance masks and end-to-end detection, forward and backward: ours against the reference.

    python examples/benchmarks/tasks.py [--rounds 9] [--device cuda] [--tasks obb segment] [--keep-memory]

Batch 8, 640x640, 80 classes; boxes with sides from 0.02 to 0.95 of the image. Ours is `compiled_criterion(model)`,
called with a batch dict as a trainer does, so its time includes planning. In brackets: how many times faster than the
reference (`ultralytics`), which is timed if it is installed. All losses are compared before they are timed. The peak is
the memory that one step adds, gradients included.
"""

import itertools

import torch
from batches import BATCH, MIXED, add_fields, rows_of
from heads import HEADS, criteria, leaves_of, make_batch, make_preds, make_steps
from memory import peak_bytes
from timing import available, cell, in_turn, machine, parser_of, print_table, read_options

ROWS = (48, 256)
TASKS = [name for name in HEADS if name != "detect"]
COLUMNS = ("reference", "criterion, compiled", "criterion, eager")


def run_case(name: str, rows: int, rounds: int, device: str, with_reference: bool) -> list[str]:
    """Median milliseconds and peak memory of all contenders, as cells."""
    torch.manual_seed(0)
    torch.compiler.reset()
    head = HEADS[name]
    preds = make_preds(head, BATCH, device)
    batch = make_batch(add_fields(rows_of(rows, MIXED), head.task).to(device))
    leaves = leaves_of(preds)
    steps = make_steps(criteria(head, preds, batch, with_reference), leaves)
    ms = in_turn(steps, rounds, device=device)
    peaks = {key: peak_bytes(run, leaves, device) / 2**20 for key, run in steps.items()}
    times = [cell(ms, "reference"), *(cell(ms, key, "reference") for key in COLUMNS[1:])]
    return [f"{name}, {rows} rows", *times, *(cell(peaks, key, digits=0) for key in COLUMNS)]


def main() -> None:
    """Print the table."""
    parser = parser_of(__doc__, rounds=9)
    parser.add_argument("--tasks", nargs="*", default=TASKS, choices=TASKS)
    options = read_options(parser)
    with_reference = available("ultralytics")
    header = ["ms, forward + backward (reference / it)", *COLUMNS, *(f"peak MB, {name}" for name in COLUMNS)]
    cases = itertools.product(options.tasks, ROWS)
    print_table(header, (run_case(*case, options.rounds, options.device, with_reference) for case in cases))
    print(f"\n{machine('torch', 'ultralytics', device=options.device)}, median of {options.rounds} rounds in turn")


if __name__ == "__main__":
    main()
