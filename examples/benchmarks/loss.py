"""Detection loss, forward and backward: ours against the eager reference and against a plain copy.

    python examples/benchmarks/loss.py [--rounds 15] [--device cuda]

Batch 8, 640x640, 80 classes. The copy reads every prediction and writes every gradient once: nothing can be faster.
The reference (`ultralytics`) is timed where it is installed; the losses of both are compared before. On a GPU the last
column is compiled with `mode="reduce-overhead"`, which replays CUDA graphs.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from timing import available, in_turn, machine, parser_of, table
from torch import Tensor

from compiled_loss import DetectionLoss, Predictions, TargetPlan, Targets, pad_rows

BATCH, CLASSES, SIZE, STRIDES = 8, 80, 640, (8, 16, 32)
GRID_SIZES = tuple((SIZE // s, SIZE // s) for s in STRIDES)
ANCHORS = sum(h * w for h, w in GRID_SIZES)


class Case(NamedTuple):
    """How many rows, and the shortest and longest side of their boxes as a fraction of the image."""

    name: str
    rows: int
    shortest: float
    longest: float


CASES = (
    Case("50 rows, COCO-like", 50, 0.03, 0.6),
    Case("480 small boxes", 480, 0.015, 0.06),
    Case("3200 tiny boxes", 3200, 0.006, 0.025),
)


def make_targets(case: Case) -> Targets:
    """Rows of random images, sorted by image."""
    sides = case.shortest * (case.longest / case.shortest) ** torch.rand(case.rows, 2)
    centres = sides / 2 + torch.rand(case.rows, 2) * (1 - sides)
    image = torch.randint(0, BATCH, (case.rows,)).sort().values
    labels = torch.randint(0, CLASSES, (case.rows,))
    return Targets(image, labels, torch.cat([centres, sides], 1), is_sorted=True)


def make_predictions(device: str = "cpu") -> Predictions:
    """Logits as of a head in training: confident about few, boxes of all sizes."""
    boxes, scores = (torch.randn(BATCH, n, ANCHORS, device=device) for n in (64, CLASSES))
    scores -= 4
    return Predictions(boxes.requires_grad_(), scores.requires_grad_(), GRID_SIZES)


def step(criterion: Callable[..., Any], predictions: Predictions, *arguments: Any) -> Tensor:
    """One forward and backward, gradients written anew."""
    predictions.boxes.grad = predictions.scores.grad = None
    loss = criterion(*arguments)
    loss.backward()
    return loss.detach()


def reference_loss(predictions: Predictions, targets: Targets) -> Callable[[], Tensor]:
    """The reference's own criterion over the same tensors."""
    from ultralytics.nn.tasks import DetectionModel  # noqa: PLC0415  # pyright: ignore[reportMissingImports]

    device = predictions.boxes.device
    model = DetectionModel("yolo11n.yaml", nc=CLASSES, verbose=False).to(device)
    model.args = SimpleNamespace(box=7.5, cls=0.5, dfl=1.5)
    criterion = model.init_criterion()
    feats = [torch.zeros(BATCH, 1, *size, device=device) for size in GRID_SIZES]
    preds = {"boxes": predictions.boxes, "scores": predictions.scores, "feats": feats}
    rows = {"batch_idx": targets.batch_idx.float(), "cls": targets.labels[:, None].float(), "bboxes": targets.boxes}
    return lambda: criterion(preds, rows)[0].sum()


def run_case(case: Case, rounds: int, device: str, with_reference: bool) -> dict[str, float]:
    """Median milliseconds of every contender."""
    torch.manual_seed(0)
    torch.compiler.reset()
    predictions, targets = make_predictions(device), make_targets(case)
    plan = TargetPlan((SIZE, SIZE), STRIDES).apply(targets)
    planned = plan.to(device).mark_dynamic()
    unplanned = pad_rows(targets).to(device).mark_dynamic()
    targets = targets.to(device)
    loss = DetectionLoss(CLASSES, STRIDES).to(device)
    compiled = torch.compile(lambda p, t: loss(p, t).total, fullgraph=True)
    copies = torch.empty_like(predictions.boxes), torch.empty_like(predictions.scores)

    def copy() -> None:
        copies[0].copy_(predictions.boxes.detach())
        copies[1].copy_(predictions.scores.detach())

    contenders: dict[str, Callable[[], object]] = {"copy": copy}
    if with_reference:
        criterion = reference_loss(predictions, targets)
        ours, theirs = step(compiled, predictions, predictions, planned), step(criterion, predictions)
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=0)
        contenders["reference"] = lambda: step(criterion, predictions)
    contenders["ours, eager"] = lambda: step(lambda: loss(predictions, planned).total, predictions)
    contenders["ours, unplanned"] = lambda: step(compiled, predictions, predictions, unplanned)
    contenders["ours"] = lambda: step(compiled, predictions, predictions, planned)
    if predictions.boxes.is_cuda:
        fixed = plan.to(device)
        graphs = torch.compile(lambda p, t: loss(p, t).total, fullgraph=True, mode="reduce-overhead")

        def replay() -> None:
            torch.compiler.cudagraph_mark_step_begin()
            step(graphs, predictions, predictions, fixed)

        contenders["ours, CUDA graphs"] = replay
    return in_turn(contenders, rounds, device=device)


def main() -> None:
    """Print the table."""
    options, _ = parser_of(__doc__, rounds=15).parse_known_args()
    rounds, device = options.rounds, options.device
    with_reference, on_gpu = available("ultralytics"), torch.device(device).type == "cuda"
    rows = []
    for case in CASES:
        ms = run_case(case, rounds, device, with_reference)
        reference = ms.get("reference")
        ratio = "" if reference is None else f"{reference / ms['ours']:.1f}x"
        shown = ("copy", "reference", "ours, eager", "ours, unplanned", "ours", "ours, CUDA graphs")[: 5 + on_gpu]
        rows.append([case.name, *(f"{ms[name]:.2f}" if name in ms else "" for name in shown), ratio])
    header = ["ms, forward + backward", "copy", "reference, eager", "ours, eager", "ours, compiled, unplanned",
              "ours, compiled, planned", *["ours, planned, CUDA graphs"] * on_gpu, "reference / planned"]  # fmt: skip
    print(table(header, rows))
    print(f"\n{machine('torch', 'ultralytics', device=device)}, median of {rounds} rounds in turn")


if __name__ == "__main__":
    main()
