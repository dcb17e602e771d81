"""Every assigner against the task-aligned one: the detection loss, forward and backward, compiled and planned.

    python examples/benchmarks/assigners.py [--rounds 9] [--device cuda] [--eager] [--keep-memory]

Batch 8, 640x640, 80 classes, overlaps by IoU; 50 and 480 mixed rows. In brackets: how many times faster than
task-aligned in the same run. With `--eager` nothing is compiled.
"""

from collections.abc import Callable

import torch
from batches import BATCH, CLASSES, GRID_SIZES, MIXED, SIZE, STRIDES, Case, rows_of
from heads import HEADS, drop_gradients, leaves_of, make_preds
from timing import cell, in_turn, machine, parser_of, print_table, read_options
from torch import Tensor

from compiled_loss import (
    ATSS,
    Assigner,
    DetectionLoss,
    DynamicSoftLabel,
    Predictions,
    Scheduled,
    SimOTA,
    TargetPlan,
    Targets,
    TaskAligned,
)
from compiled_loss.geometry.boxes import iou

FIRST = "task-aligned"
ASSIGNERS: dict[str, Callable[[], Assigner]] = {
    FIRST: TaskAligned,
    "SimOTA": SimOTA,
    "soft labels": DynamicSoftLabel,
    "ATSS": ATSS,
    "ATSS, then task-aligned": lambda: Scheduled(ATSS(), TaskAligned()),
}


def run_case(case: Case, rounds: int, device: str, eager: bool) -> dict[str, float]:
    """Median milliseconds of every assigner."""
    torch.manual_seed(0)
    torch.compiler.reset()
    preds = make_preds(HEADS["detect"], BATCH, device)
    predictions = Predictions(preds["boxes"], preds["scores"], GRID_SIZES)
    leaves, steps = leaves_of(preds), {}
    for name, make in ASSIGNERS.items():
        loss = DetectionLoss(CLASSES, STRIDES, assigner=make(), overlap=iou).to(device)
        plan = TargetPlan((SIZE, SIZE), STRIDES, region=loss.region)
        targets = plan.apply(case.targets).to(device).mark_dynamic()

        def total(p: Predictions, t: Targets, loss: DetectionLoss = loss) -> Tensor:
            return loss(p, t).total

        compute = total if eager else torch.compile(total, fullgraph=True)

        def step(compute: Callable[..., Tensor] = compute, targets: Targets = targets) -> None:
            drop_gradients(leaves)
            compute(predictions, targets).backward()

        steps[name] = step
    return in_turn(steps, rounds, device=device)


def main() -> None:
    """Print the table."""
    parser = parser_of(__doc__, rounds=9)
    parser.add_argument("--eager", action="store_true", help="compile nothing")
    options = read_options(parser)

    def row(case: Case) -> list[str]:
        ms = run_case(case, options.rounds, options.device, options.eager)
        return [case.name, cell(ms, FIRST), *(cell(ms, name, FIRST) for name in ASSIGNERS if name != FIRST)]

    cases = [Case(f"{count} rows, mixed", rows_of(count, MIXED)) for count in (50, 480)]
    print_table(["ms, forward + backward (task-aligned / it)", *ASSIGNERS], map(row, cases))
    print(f"\n{machine('torch', device=options.device)}, median of {options.rounds} rounds in turn")


if __name__ == "__main__":
    main()
