"""Detection loss, forward and backward: ours against the eager reference and against a plain copy.

    python examples/benchmarks/loss.py [--rounds 9] [--device cuda] [--labels FILE.json ...] [--keep-memory]

Batch 8, 640x640, 80 classes. The copy reads every prediction and writes every gradient once: nothing can be faster.
The criterion is `compiled_criterion(model)`, called with a batch dict as a trainer does, so its time includes
planning; `ours, eager` is the loss without compiling, `ours, planned` is compiled, with targets planned before. In
brackets: how many times faster than the reference (`ultralytics`), which is timed if it is installed. All losses are
compared before they are timed. `--labels` adds a batch of mosaics from label files in COCO style. On a GPU the last
column is compiled with `mode="reduce-overhead"`, which replays CUDA graphs.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from batches import CLASSES, GRID_SIZES, SIZE, STRIDES, Case, detection_cases
from heads import HEADS, criteria, leaves_of, make_batch, make_preds, make_steps
from timing import available, cell, in_turn, machine, parser_of, print_table, read_options
from torch import Tensor

from compiled_loss import DetectionLoss, Predictions, TargetPlan

COLUMNS = ("ours, eager", "criterion, eager", "criterion, compiled", "ours, planned", "ours, CUDA graphs")


def run_case(case: Case, rounds: int, device: str, with_reference: bool) -> dict[str, float]:
    """Median milliseconds of every contender."""
    torch.manual_seed(0)
    torch.compiler.reset()
    preds = make_preds(HEADS["detect"], case.images, device)
    predictions = Predictions(preds["boxes"], preds["scores"], GRID_SIZES)
    targets, plan = case.targets.to(device), TargetPlan((SIZE, SIZE), STRIDES).apply(case.targets)
    planned = plan.to(device).mark_dynamic()
    loss = DetectionLoss(CLASSES, STRIDES).to(device)
    compiled = torch.compile(lambda p, t: loss(p, t).total, fullgraph=True)
    losses = criteria(HEADS["detect"], preds, make_batch(targets), with_reference)
    losses["ours, eager"] = lambda: loss(predictions, targets).total
    losses["ours, planned"] = lambda: compiled(predictions, planned)
    if planned.boxes.is_cuda:
        fixed = plan.to(device)
        graphs = torch.compile(lambda p, t: loss(p, t).total, fullgraph=True, mode="reduce-overhead")

        def replay() -> Tensor:
            torch.compiler.cudagraph_mark_step_begin()
            return graphs(predictions, fixed)

        losses["ours, CUDA graphs"] = replay
    leaves = leaves_of(preds)
    copies = [torch.empty_like(x) for x in leaves]

    def copy() -> None:
        for new, x in zip(copies, leaves, strict=True):
            new.copy_(x.detach())

    contenders: dict[str, Callable[[], object]] = {"copy": copy, **make_steps(losses, leaves)}
    return in_turn(contenders, rounds, device=device)


def main() -> None:
    """Print the table."""
    parser = parser_of(__doc__, rounds=9)
    parser.add_argument("--labels", type=Path, nargs="*", default=[], help="label files in COCO style, for mosaics")
    options = read_options(parser)
    with_reference, on_gpu = available("ultralytics"), torch.device(options.device).type == "cuda"
    columns = COLUMNS if on_gpu else COLUMNS[:-1]

    def row(case: Case) -> list[str]:
        ms = run_case(case, options.rounds, options.device, with_reference)
        shown = [cell(ms, name) for name in ("copy", "reference")] + [cell(ms, name, "reference") for name in columns]
        return [case.name, *shown, f"{ms['criterion, compiled'] / ms['copy']:.1f}x"]

    header = ["copy", "reference, eager", *columns, "criterion, compiled / copy"]
    cases = detection_cases(options.labels)
    print_table(["ms, forward + backward (reference / it)", *header], map(row, cases))
    if not options.labels:
        print("\n(no --labels given: the batch of mosaics is left out)")
    print(f"\n{machine('torch', 'ultralytics', device=options.device)}, median of {options.rounds} rounds in turn")


if __name__ == "__main__":
    main()
