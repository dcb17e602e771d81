"""Our losses for LibreYOLO's heads beside its own (libreyolo 1.6.0, MIT), called as they are, where that is installed.

    python -m tests.golden.libre record    # writes libre.npz: what its losses answered
    python -m tests.golden.libre compare   # a table: batches whose terms and gradients agree, on fresh batches

Nothing of it is copied here; `tests/integrations/test_libreyolo.py` compares with the file that was written.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from compiled_loss.integrations import libre_criteria as ours

FILE = Path(__file__).with_name("libre.npz")
CLASSES, STRIDES = 3, (8, 16, 32)
KINDS = ("YOLOv9", "YOLOv9 end to end", "YOLOX", "RTMDet")
# Rows of each image; two layouts of sizes, and heads that are fresh or have learnt something.
SETTINGS = range(6)
COUNTS = ((1, 1, 0), (3, 0, 5), (12, 7, 2))


class Case(NamedTuple):
    """A batch as a head and a trainer give it."""

    maps: list[Tensor]  # leaves, as the head's convolutions give them
    targets: Tensor  # [B, M, 5], as the trainer pads them
    size: tuple[int, int]


def cases(kind: str, seeds: range, size: tuple[int, int] = (96, 128)) -> Iterator[Case]:
    """Random batches: boxes from 3 pixels to the image's size, predictions that half know them."""
    for seed in seeds:
        yield make_case(kind, seed, COUNTS[seed % len(COUNTS)], size)


def make_case(kind: str, seed: int, counts: tuple[int, ...], size: tuple[int, int]) -> Case:
    """One of them."""
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    height, width = size
    targets = torch.zeros(len(counts), max(counts) + 2, 5)
    if kind.startswith("YOLOv9"):
        targets[..., 0] = -1
    for image, count in enumerate(counts):
        sides = torch.exp(rand(count, 2) * np.log(0.9 * 128 / 3)) * 3 / 128
        low = rand(count, 2) * (1 - sides)
        label = torch.randint(0, CLASSES, (count, 1), generator=generator).float()
        corners = torch.cat([low, low + sides], 1)
        if not kind.startswith("YOLOv9"):
            corners = torch.cat([low + sides / 2, sides], 1) * torch.tensor([width, height, width, height])
        targets[image, :count] = torch.cat([label, corners], 1)
    channels = {"YOLOX": 5 + CLASSES, "RTMDet": 4 + CLASSES}.get(kind, 64 + CLASSES)
    branches = 2 if kind == "YOLOv9 end to end" else 1
    maps = []
    for _ in range(branches):
        for stride in STRIDES:
            x = torch.randn(len(counts), channels, height // stride, width // stride, generator=generator)
            if kind == "RTMDet":
                x[:, :4] = x[:, :4].abs() * 2 * stride
            maps.append((x * (1.0 + seed % 2)).requires_grad_())
    return Case(maps, targets, size)


def own_of(kind: str) -> Any:
    """The trainer's own loss, or what its numbers are where it is not installed."""
    if kind == "YOLOX":
        return SimpleNamespace(num_classes=CLASSES, strides=list(STRIDES), use_l1=True)
    if kind == "RTMDet":
        assigner = SimpleNamespace(topk=13, soft_center_radius=3.0, iou_weight=3.0)
        terms = {"loss_cls": SimpleNamespace(beta=2.0, loss_weight=1.0), "loss_bbox": SimpleNamespace(loss_weight=2.0)}
        return SimpleNamespace(
            num_classes=CLASSES, strides=list(STRIDES), assigner=assigner, distributed_normalize=True, **terms
        )

    def branch(topk: int) -> SimpleNamespace:
        powers = {"topk": topk, "iou_factor": 6.0, "cls_factor": 0.5}
        gains = {"box_weight": 7.5, "dfl_weight": 1.5, "cls_weight": 0.5}
        head = {"num_classes": CLASSES, "reg_max": 16, "strides": list(STRIDES)}
        return SimpleNamespace(distributed_normalize=True, **head, **powers, **gains)

    if kind == "YOLOv9":
        return branch(10)
    return SimpleNamespace(dense_loss=branch(10), exclusive_loss=branch(1))


def our_criterion(kind: str, options: dict[str, Any] | None = None) -> Any:
    """Ours, called as the trainer's own."""
    made = {"YOLOv9": ours.YOLOv9, "YOLOv9 end to end": ours.TwoBranches, "YOLOX": ours.YOLOX, "RTMDet": ours.RTMDet}
    return made[kind](own_of(kind), options)


def answer(kind: str, criterion: Any, case: Case) -> dict[str, np.ndarray]:
    """Terms, and the gradients of the maps, of ours or theirs."""
    terms = call(kind, criterion, case)
    total = terms["total_loss"]
    found: dict[str, np.ndarray] = {
        k: np.array(float(torch.as_tensor(x).detach())) for k, x in terms.items() if k not in ("box", "dfl", "cls")
    }
    gradients = torch.autograd.grad(total, case.maps, allow_unused=True)
    for i, (x, gradient) in enumerate(zip(case.maps, gradients, strict=True)):
        found[f"gradient{i}"] = (torch.zeros_like(x) if gradient is None else gradient).numpy()
    return found


def call(kind: str, criterion: Any, case: Case) -> dict[str, Any]:
    """Either loss, called as its trainer does."""
    maps, targets = [x.clone() for x in case.maps], case.targets
    if kind == "YOLOv9":
        criterion.update_anchors(list(case.size[::-1]))
        return criterion(maps, targets)
    if kind == "YOLOv9 end to end":
        criterion.update_anchors(list(case.size[::-1]))
        return criterion(maps[:3], maps[3:], targets)
    if kind == "RTMDet":
        return criterion([x[:, 4:] for x in maps], [x[:, :4] for x in maps], targets)
    outputs, x_shifts, y_shifts, strides, raw = [], [], [], [], []
    for x, stride in zip(maps, STRIDES, strict=True):
        height, width = x.shape[2:]
        y, across = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        grid = torch.stack([across, y], -1).reshape(1, -1, 2).float()
        flat = x.flatten(2).mT
        boxes = torch.cat([(flat[..., :2] + grid) * stride, flat[..., 2:4].exp() * stride], -1)
        outputs.append(torch.cat([boxes, flat[..., 4:]], -1))
        raw.append(flat[..., :4])
        x_shifts.append(grid[..., 0])
        y_shifts.append(grid[..., 1])
        strides.append(torch.full((1, grid.shape[1]), float(stride)))
    imgs = torch.zeros(len(targets), 3, *case.size)
    return criterion(imgs, x_shifts, y_shifts, strides, targets, torch.cat(outputs, 1), raw, dtype=torch.float32)


def their_criterion(kind: str) -> Any:
    """The trainer's own loss."""
    if kind == "YOLOX":
        from libreyolo.models.yolox.nn import YOLOXHead  # noqa: PLC0415  # type: ignore

        head = YOLOXHead(CLASSES)
        head.use_l1 = True
        return head.get_losses
    if kind == "RTMDet":
        from libreyolo.models.rtmdet.loss import RTMDetLoss  # noqa: PLC0415  # type: ignore
        from libreyolo.models.rtmdet.trainer import RTMDetTrainer  # noqa: PLC0415  # type: ignore

        holder = SimpleNamespace(_loss_fn=RTMDetLoss(CLASSES))
        return lambda *given: RTMDetTrainer._loss_from_head(holder, *given)
    options = (CLASSES, 16, list(STRIDES), None, torch.device("cpu"))
    if kind == "YOLOv9":
        from libreyolo.models.yolo9.loss import YOLO9Loss  # noqa: PLC0415  # type: ignore

        return YOLO9Loss(*options)
    from libreyolo.models.yolo9_e2e.loss import YOLO9E2ELoss  # noqa: PLC0415  # type: ignore

    return YOLO9E2ELoss(*options)


def difference(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> float:
    """The largest difference of a term, to their total, or of a gradient, to its map's largest entry."""
    total = float(wanted["total_loss"])
    scales = {name: float(np.abs(x).max()) if x.ndim else total for name, x in wanted.items()}
    return max(float(np.abs(found[name] - x).max()) / max(scales[name], 1e-6) for name, x in wanted.items())


def main(command: str, kinds: Sequence[str]) -> None:
    """Record or compare some kinds of heads; the others' records stay."""
    if command == "record":
        stored = dict(np.load(FILE)) if FILE.exists() else {}
        for kind in kinds:
            for seed, case in enumerate(cases(kind, SETTINGS)):
                for name, x in answer(kind, their_criterion(kind), case).items():
                    stored[f"{kind}/{seed}/{name}"] = x.astype(np.float32) if x.ndim else x
        np.savez_compressed(FILE, **stored)
        return
    print("| head | batches | alike to 1e-5 | largest difference of those | of the others |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for kind in kinds:
        seen = []
        for size in ((96, 128), (256, 320)):
            for case in cases(kind, range(100, 130), size):
                seen.append(
                    difference(answer(kind, our_criterion(kind), case), answer(kind, their_criterion(kind), case))
                )
        same, others = [x for x in seen if x <= 1e-5], [x for x in seen if x > 1e-5]
        print(f"| {kind} | {len(seen)} | {len(same)} | {max(same, default=0):.0e} | {sorted(others)[-5:]} |")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:] or KINDS)
