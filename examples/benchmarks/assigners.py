"""Every assigner against the task-aligned one: the detection loss, forward and backward, compiled and planned.

    python examples/benchmarks/assigners.py [--rounds 9] [--rows 50 480] [--device cuda] [--eager] [--keep-memory]

Batch 8, 640x640, 80 classes, overlaps by IoU, mixed rows. The table has the time of each assigner, also as a multiple
of our task-aligned one in the same run. If libreyolo is installed, it also has the time of its loss with that assigner,
which only runs eagerly, and as a multiple of ours. With `--eager` nothing of ours is compiled.
"""

from collections.abc import Callable

import torch
from batches import BATCH, CLASSES, GRID_SIZES, MIXED, SIZE, STRIDES, Case, rows_of
from heads import HEADS, drop_gradients, leaves_of, make_preds
from peers import steps_of_peers
from timing import available, in_turn, machine, parser_of, print_table, read_options
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


def run_case(case: Case, rounds: int, device: str, eager: bool, with_peers: bool) -> dict[str, float]:
    """Median milliseconds of every assigner, and of peers."""
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
    if with_peers:
        peers = steps_of_peers(predictions, case.targets.to(device))
        steps |= {f"{name}, peer": peer for name, peer in peers.items()}
    return in_turn(steps, rounds, device=device)


def main() -> None:
    """Print the table."""
    parser = parser_of(__doc__, rounds=9)
    parser.add_argument("--eager", action="store_true", help="compile nothing")
    parser.add_argument("--rows", type=int, nargs="+", default=[50, 480], help="default: 50 480")
    options = read_options(parser)
    with_peers = available("libreyolo")
    for count in options.rows:
        case = Case(f"{count} rows, mixed", rows_of(count, MIXED))
        ms = run_case(case, options.rounds, options.device, options.eager, with_peers)

        def row(name: str, ms: dict[str, float] = ms) -> list[str]:
            peer = ms.get(f"{name}, peer")
            compared = "" if peer is None else f"{peer:.1f} ({peer / ms[name]:.1f}x)"
            return [name, f"{ms[name]:.1f} ({ms[name] / ms[FIRST]:.2f}x)", compared]

        print_table([f"ms, {case.name}", "ours (of task-aligned)", "peer, eager (of ours)"], map(row, ASSIGNERS))
        print()
    print(f"{machine('torch', 'libreyolo', device=options.device)}, median of {options.rounds} rounds in turn")


if __name__ == "__main__":
    main()
