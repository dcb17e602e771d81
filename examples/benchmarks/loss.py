"""Detection loss, forward and backward: ours against the eager reference and against a plain copy.

    python examples/benchmarks/loss.py [--rounds 15]

Batch 8, 640x640, 80 classes. The copy reads every prediction and writes every gradient once: nothing can be faster.
The reference (`ultralytics`) is timed where it is installed; the losses of both are compared before.
"""

import argparse
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from timing import available, in_turn, machine, table
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


def make_predictions() -> Predictions:
    """Logits as of a head in training: confident about few, boxes of all sizes."""
    boxes, scores = torch.randn(BATCH, 64, ANCHORS), torch.randn(BATCH, CLASSES, ANCHORS) - 4
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

    model = DetectionModel("yolo11n.yaml", nc=CLASSES, verbose=False)
    model.args = SimpleNamespace(box=7.5, cls=0.5, dfl=1.5)
    criterion = model.init_criterion()
    feats = [torch.zeros(BATCH, 1, *size) for size in GRID_SIZES]
    preds = {"boxes": predictions.boxes, "scores": predictions.scores, "feats": feats}
    rows = {"batch_idx": targets.batch_idx.float(), "cls": targets.labels[:, None].float(), "bboxes": targets.boxes}
    return lambda: criterion(preds, rows)[0].sum()


def run_case(case: Case, rounds: int, with_reference: bool) -> dict[str, float]:
    """Median milliseconds of every contender."""
    torch.manual_seed(0)
    torch.compiler.reset()
    predictions, targets = make_predictions(), make_targets(case)
    planned = TargetPlan((SIZE, SIZE), STRIDES).apply(targets).mark_dynamic()
    unplanned = pad_rows(targets).mark_dynamic()
    loss = DetectionLoss(CLASSES, STRIDES)
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
    return in_turn(contenders, rounds)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="timed rounds (default %(default)s)")
    rounds = parser.parse_args().rounds
    with_reference = available("ultralytics")
    rows = []
    for case in CASES:
        ms = run_case(case, rounds, with_reference)
        reference = ms.get("reference")
        ratio = "" if reference is None else f"{reference / ms['ours']:.1f}x"
        shown = ("copy", "reference", "ours, eager", "ours, unplanned", "ours")
        rows.append([case.name, *(f"{ms[name]:.1f}" if name in ms else "" for name in shown), ratio])
    header = ["ms, forward + backward", "copy", "reference, eager", "ours, eager", "ours, compiled, unplanned",
              "ours, compiled, planned", "reference / planned"]  # fmt: skip
    print(table(header, rows))
    print(f"\n{machine('torch', 'ultralytics')}, median of {rounds} rounds in turn")


if __name__ == "__main__":
    main()
