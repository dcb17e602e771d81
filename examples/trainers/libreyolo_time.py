"""A whole training step of LibreYOLO's YOLOv9-t: forward, both heads' loss and backward, its loss and ours in turn.

    python examples/trainers/libreyolo_time.py --data FOLDER [--size 320] [--batch-size 4] [--rounds 9]

All use the same batches: `none` is a sum of the maps instead of a loss, `own` the package's loss, `ours` our loss, and
`compiled` our loss compiled. In `outside` the network is compiled and the package's loss stays outside, as in its
`train(compile=True)`. In `inside` the network and our loss are one graph.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from yolo import operators  # isort: skip  # noqa: F401  (before torchvision)
import torch
from demo.folder import Folder
from libreyolo import LibreYOLO9  # type: ignore[import-not-found]
from libreyolo.models.yolo9.trainer import YOLO9Trainer  # type: ignore[import-not-found]
from timed import batches_of, in_turn
from torch import Tensor

from compiled_loss.integrations.libreyolo import install

STEPS = ("none", "own", "ours", "compiled", "outside", "inside")
SLOTS = 300  # of an image, as in the package's own batches
Batch = tuple[Tensor, Tensor]
Step = Callable[[Tensor, Tensor], Tensor]


def batch_of(pictures: Tensor, labels: list[Any]) -> Batch:
    """Pictures and padded targets `[B, M, 5]`, as the trainer has them."""
    targets = torch.zeros(len(labels), SLOTS, 5)
    for slots, one in zip(targets, labels, strict=True):
        slots[: len(one.classes), 0] = torch.as_tensor(one.classes)
        slots[: len(one.classes), 1:] = torch.as_tensor(one.boxes) / pictures.shape[2]
    return pictures, targets


def trainer_of(num_classes: int) -> Any:
    """What of a trainer makes a step: a network with random weights, always the same, and its auxiliary head."""
    torch.manual_seed(0)
    network = LibreYOLO9(None, size="t", nb_classes=num_classes, device="cpu").model.enable_aux().train()
    return SimpleNamespace(model=network, on_forward=lambda images, targets: network(images, targets=targets))


def step_of(name: str, num_classes: int, backend: str) -> Step:
    """A kind of step: from a batch to a loss."""
    trainer = trainer_of(num_classes)
    if name == "own":
        return lambda images, targets: trainer.on_forward(images, targets)["total_loss"]
    if name in ("none", "outside"):
        spec = YOLO9Trainer.cuda_graph_train_spec(trainer)  # which its compile_train_spec returns
        if name == "none":
            return lambda images, _: sum((x.sum() for x in spec.network(images)), torch.zeros(()))
        network = torch.compile(spec.network, backend=backend)
        return lambda images, targets: spec.assemble(network(images), images, targets)["total_loss"]
    compiled: dict[str, Any] = {"compile": True, "backend": backend}
    options = {"ours": {}, "compiled": compiled, "inside": {**compiled, "whole_step": True}}[name]
    with install(YOLO9Trainer, **options) as installation:
        installation.attach(trainer)
    return lambda images, targets: _ours(trainer, images, targets)


def _ours(trainer: Any, images: Tensor, targets: Tensor) -> Tensor:
    rows = trainer._compiled_loss.rows(targets, (images.shape[2], images.shape[3]))
    run = trainer._compiled_step or trainer.on_forward
    return run(images, rows.mark_dynamic())["total_loss"]


def whole(step: Step) -> Callable[[Batch], None]:
    """Forward and backward."""
    return lambda batch: step(*batch).backward()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="FOLDER/labels.json in COCO style and FOLDER/images/")
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", nargs="*", default=STEPS, choices=STEPS)
    parser.add_argument("--backend", default="inductor", help="backend of torch.compile")
    options = parser.parse_args()
    source = Folder(options.data, "train", options.size)
    batches = batches_of(source, options.batch_size, batch_of)
    rows = sum(int((targets[..., 3] > 0).sum()) for _, targets in batches) // len(batches)
    print(f"{options.batch_size} pictures of {options.size}, {rows} rows, {torch.get_num_threads()} threads")
    steps = {name: step_of(name, len(source.info.classes), options.backend) for name in options.steps}
    times = in_turn({name: whole(step) for name, step in steps.items()}, batches, options.rounds)
    print("| step | ms | first, s | first loss |\n| --- | ---: | ---: | ---: |")
    for name, (ms, first) in times.items():
        print(f"| {name} | {ms:.0f} | {first:.0f} | {float(steps[name](*batches[0]).detach()):.4f} |")


if __name__ == "__main__":
    main()
