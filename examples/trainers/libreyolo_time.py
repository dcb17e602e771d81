"""A whole training step of LibreYOLO's YOLOv9-t: forward, both heads' loss and backward, its loss and ours in turn.

    python examples/trainers/libreyolo_time.py --data FOLDER [--size 320] [--batch-size 4] [--rounds 9]

The same batches with `none`, a sum of the maps instead of a loss; `own`, the package's loss; `ours`; `compiled`, ours
compiled; `outside`, the network compiled and the package's loss outside, as in its `train(compile=True)`; and `inside`,
network and our loss as one graph.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from yolo import operators  # isort: skip  # noqa: F401  (before torchvision)
import torch
from demo.folder import Folder
from demo.labels import image_tensor
from libreyolo import LibreYOLO9  # type: ignore[import-not-found]
from libreyolo.models.yolo9.trainer import YOLO9Trainer  # type: ignore[import-not-found]
from torch import Tensor

from compiled_loss.integrations.libreyolo import install

STEPS = ("none", "own", "ours", "compiled", "outside", "inside")
SLOTS = 300  # of an image, as in the package's own batches
Step = Callable[[Tensor, Tensor], Tensor]


def batches_of(options: argparse.Namespace) -> tuple[list[tuple[Tensor, Tensor]], int]:
    """Pictures and padded targets `[B, M, 5]` as the trainer has them, and the number of classes."""
    source, images = Folder(options.data, "train", options.size), options.batch_size
    batches = []
    for begin in range(0, min(len(source), 3 * images) - images + 1, images):
        samples = [source.sample(i) for i in range(begin, begin + images)]
        targets = torch.zeros(images, SLOTS, 5)
        for slots, (_, labels) in zip(targets, samples, strict=True):
            slots[: len(labels.classes), 0] = torch.as_tensor(labels.classes)
            slots[: len(labels.classes), 1:] = torch.as_tensor(labels.boxes) / options.size
        batches.append((torch.stack([image_tensor(picture) for picture, _ in samples]), targets))
    return batches, len(source.info.classes)


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


def timed(step: Step, batch: tuple[Tensor, Tensor]) -> tuple[float, float]:
    """Milliseconds of a step, and its loss."""
    begin = time.perf_counter()
    loss = step(*batch)
    loss.backward()
    return 1e3 * (time.perf_counter() - begin), float(loss.detach())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="FOLDER/labels.json in COCO style and FOLDER/images/")
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", nargs="*", default=STEPS, choices=STEPS)
    parser.add_argument("--backend", default="inductor", help="of torch.compile")
    options = parser.parse_args()
    batches, num_classes = batches_of(options)
    rows = sum(int((targets[..., 3] > 0).sum()) for _, targets in batches) // len(batches)
    print(f"{options.batch_size} pictures of {options.size}, {rows} rows, {torch.get_num_threads()} threads")
    steps = {name: step_of(name, num_classes, options.backend) for name in options.steps}
    first = {name: timed(step, batches[0]) for name, step in steps.items()}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(options.rounds + 1):
        for name, step in steps.items():
            times[name].append(timed(step, batches[turn % len(batches)])[0])
    whole = {name: statistics.median(x[1:]) for name, x in times.items()}
    print("| step | ms | first, s | first loss |\n| --- | ---: | ---: | ---: |")
    for name, milliseconds in whole.items():
        print(f"| {name} | {milliseconds:.0f} | {first[name][0] / 1e3:.0f} | {first[name][1]:.4f} |")


if __name__ == "__main__":
    main()
