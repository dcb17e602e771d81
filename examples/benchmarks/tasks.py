"""Oriented boxes, instance masks and end-to-end detection, forward and backward: ours against the eager reference.

    python examples/benchmarks/tasks.py [--rounds 9] [--device cuda] [--tasks obb segment end2end]

Batch 8, 640x640, 80 classes. The peak is the memory that one step adds; on a CPU it is sampled while the step runs.
Needs the reference (`ultralytics`) for its columns; the losses of both are compared before.
"""

import ctypes
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from timing import available, in_turn, machine, parser_of, table
from torch import Tensor

from compiled_loss import (
    DetectionLoss,
    EndToEndLoss,
    OrientedLoss,
    Predictions,
    SegmentationLoss,
    TargetPlan,
    Targets,
)

BATCH, CLASSES, SIZE, STRIDES, PROTOTYPES = 8, 80, 640, (8, 16, 32), 32
GRID_SIZES = tuple((SIZE // s, SIZE // s) for s in STRIDES)
ANCHORS = sum(h * w for h, w in GRID_SIZES)
MASK = SIZE // 4
ROWS = {50: (0.03, 0.6), 260: (0.02, 0.2)}  # rows, and the shortest and longest side as a fraction of the image
CONFIGS = {"obb": "yolo11n-obb.yaml", "segment": "yolo11n-seg.yaml", "end2end": "yolov10n.yaml"}


def make_targets(task: str, rows: int) -> Targets:
    """Rows of random images, sorted by image; masks are the boxes' ellipses."""
    shortest, longest = ROWS[rows]
    sides = shortest * (longest / shortest) ** torch.rand(rows, 2)
    boxes = torch.cat([sides / 2 + torch.rand(rows, 2) * (1 - sides), sides], 1)
    image = torch.randint(0, BATCH, (rows,)).sort().values
    targets = Targets(image, torch.randint(0, CLASSES, (rows,)), boxes, is_sorted=True)
    if task == "obb":
        return targets._replace(angles=torch.rand(rows) * 3.14)
    if task == "segment":
        return targets._replace(index_map=_ellipses(image, boxes))
    return targets


def _ellipses(image: Tensor, boxes: Tensor) -> Tensor:
    index_map = torch.zeros(BATCH, MASK, MASK, dtype=torch.int32)
    axis = (torch.arange(MASK) + 0.5) / MASK
    for b in range(BATCH):
        for i, (x, y, w, h) in enumerate(boxes[image == b].tolist()):
            inside = ((axis - x) * 2 / w)[None] ** 2 + ((axis - y) * 2 / h)[:, None] ** 2 < 1
            index_map[b][inside] = i + 1
    return index_map


def make_predictions(task: str, device: str) -> Predictions:
    """Logits as of a head in training: confident about few, boxes of all sizes."""

    def leaf(*shape: int, shift: float = 0.0) -> Tensor:
        return (torch.randn(shape, device=device) + shift).requires_grad_()

    made = Predictions(leaf(BATCH, 64, ANCHORS), leaf(BATCH, CLASSES, ANCHORS, shift=-4), GRID_SIZES)
    if task == "obb":
        return made._replace(angles=leaf(BATCH, 1, ANCHORS))
    if task == "segment":
        maps = leaf(BATCH, PROTOTYPES, ANCHORS), leaf(BATCH, PROTOTYPES, MASK, MASK)
        return made._replace(coefficients=maps[0], prototypes=maps[1])
    return made


def reference_loss(task: str, branches: list[Predictions], targets: Targets) -> Callable[[], Tensor]:
    """The reference's own criterion over the same tensors."""
    from ultralytics import YOLO  # noqa: PLC0415  # pyright: ignore[reportMissingImports]
    from ultralytics.nn import tasks  # noqa: PLC0415  # pyright: ignore[reportMissingImports]

    kind = {"obb": tasks.OBBModel, "segment": tasks.SegmentationModel, "end2end": tasks.DetectionModel}[task]
    device = targets.boxes.device
    model = kind(YOLO(CONFIGS[task]).model.yaml | {"nc": CLASSES}, verbose=False).to(device)
    model.args = SimpleNamespace(box=7.5, cls=0.5, dfl=1.5, angle=1.0, overlap_mask=True, epochs=100)
    criterion = model.init_criterion()
    names = {"boxes": "boxes", "scores": "scores", "angles": "angle", "coefficients": "mask_coefficient"}
    names |= {"prototypes": "proto"}

    def preds_of(p: Predictions) -> dict[str, Any]:
        maps = {key: getattr(p, name) for name, key in names.items() if getattr(p, name) is not None}
        return maps | {"feats": [torch.zeros(BATCH, 1, *size, device=device) for size in GRID_SIZES]}

    boxes = targets.boxes if targets.angles is None else torch.cat([targets.boxes, targets.angles[:, None]], 1)
    rows = {"batch_idx": targets.batch_idx.float(), "cls": targets.labels[:, None].float(), "bboxes": boxes}
    if targets.index_map is not None:
        rows["masks"] = targets.index_map.float()
    preds: dict[str, Any] = preds_of(branches[0])
    if task == "end2end":
        preds = {"one2many": preds, "one2one": preds_of(branches[1])}
    return lambda: criterion(preds, rows)[0].sum()


def peak_megabytes(run: Callable[[], object], device: str) -> float:
    """Memory that one call adds: on a GPU as torch counts it, else resident memory, sampled every 0.2 ms."""
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        resting = torch.cuda.memory_allocated(device)
        run()
        return (torch.cuda.max_memory_allocated(device) - resting) / 2**20
    ctypes.CDLL(None).malloc_trim(0)  # else memory that earlier steps gave back still counts as resting
    resting = _resident()
    peak, done = [resting], threading.Event()

    def sample() -> None:
        while not done.is_set():
            peak[0] = max(peak[0], _resident())
            time.sleep(0.0002)

    watch = threading.Thread(target=sample)
    watch.start()
    run()
    done.set()
    watch.join()
    return (peak[0] - resting) / 2**20


def _resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


def run_case(task: str, rows: int, rounds: int, device: str, with_reference: bool) -> list[str]:
    """Median milliseconds and peak memory of both contenders, as cells."""
    torch.manual_seed(0)
    torch.compiler.reset()
    targets = make_targets(task, rows)
    branches = [make_predictions(task, device) for _ in range(2 if task == "end2end" else 1)]
    planned = TargetPlan((SIZE, SIZE), STRIDES).apply(targets).to(device).mark_dynamic()
    kinds = {"obb": OrientedLoss, "segment": SegmentationLoss}
    loss = EndToEndLoss(DetectionLoss, CLASSES, STRIDES) if task == "end2end" else kinds[task](CLASSES, strides=STRIDES)
    loss = loss.to(device)
    compiled = torch.compile(lambda t, *p: loss(*p, t).total, fullgraph=True)
    leaves = [x for p in branches for x in p if isinstance(x, Tensor)]

    def step(criterion: Callable[[], Tensor]) -> Tensor:
        for x in leaves:
            x.grad = None
        total = criterion()
        total.backward()
        return total.detach()

    contenders: dict[str, Callable[[], object]] = {"ours": lambda: step(lambda: compiled(planned, *branches))}
    if with_reference:
        reference = reference_loss(task, branches, targets.to(device))
        torch.testing.assert_close(step(lambda: compiled(planned, *branches)), step(reference), rtol=1e-4, atol=0)
        contenders = {"reference": lambda: step(reference), **contenders}
    ms = in_turn(contenders, rounds, device=device)
    peaks = {name: min(peak_megabytes(run, device) for _ in range(3)) for name, run in contenders.items()}
    ratio = f"{ms['reference'] / ms['ours']:.1f}x" if "reference" in ms else ""
    cells = [f"{ms[x]:.2f}" if x in ms else "" for x in ("reference", "ours")]
    return [
        f"{task}, {rows} rows",
        *cells,
        ratio,
        *(f"{peaks[x]:.0f}" if x in ms else "" for x in ("reference", "ours")),
    ]


def main() -> None:
    """Print the table."""
    parser = parser_of(__doc__, rounds=9)
    parser.add_argument("--tasks", nargs="*", default=list(CONFIGS), choices=list(CONFIGS))
    options, _ = parser.parse_known_args()
    with_reference = available("ultralytics")
    rows = [run_case(task, n, options.rounds, options.device, with_reference) for task in options.tasks for n in ROWS]
    header = ["ms, forward + backward", "reference, eager", "ours, compiled", "reference / ours",
              "peak MB, reference", "peak MB, ours"]  # fmt: skip
    print(table(header, rows))
    print(f"\n{machine('torch', 'ultralytics', device=options.device)}, median of {options.rounds} rounds in turn")


if __name__ == "__main__":
    main()
