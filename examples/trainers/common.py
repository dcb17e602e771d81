"""What the programs of this folder share: pictures, a small detector with its loss inside, and a plain run.

Letters: B images of a batch.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

sys.path.insert(0, str(Path(__file__).parents[1]))  # the demo's parts, wherever a program is started from

from demo.folder import Folder
from demo.labels import image_tensor
from demo.model import STRIDES, Detector
from demo.tasks import TASKS

from compiled_loss import DetectionLoss, TargetPlan, Targets, collate

EPOCH = 4  # batches
Sample = tuple[Tensor, Targets]


def read_options(text: str | None, arguments: list[str] | None = None, **defaults: int) -> argparse.Namespace:
    """The command line, the same for every program but for defaults; `text` is its docstring."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="FOLDER/labels.json in COCO style and FOLDER/images/; else rendered")
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--size", type=int, default=128, help="side of the square pictures")
    parser.add_argument("--batch-size", type=int, default=8, help="images in a batch, over all processes")
    parser.add_argument("--backend", default="inductor", help="backend of torch.compile")
    parser.add_argument("--device", default="cpu")
    parser.set_defaults(**defaults)
    return parser.parse_args(arguments)


class Pictures(Dataset[Sample]):
    """Four batches of pictures, each with its rows: of a folder, or figures rendered on the fly."""

    def __init__(self, options: argparse.Namespace) -> None:
        count = EPOCH * options.batch_size
        folder = options.data and Folder(options.data, "train", options.size)
        self.source = folder or TASKS["detect"].rendered(options.size, count, 0, 0)
        self.classes = len(self.source.info.classes)
        self.count = min(count, len(self.source))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        if index >= self.count:  # what ends a loop over it
            raise IndexError(index)
        picture, labels = self.source.sample(index)
        return image_tensor(picture), labels.targets(self.source.size)


def plan_of(pictures: Pictures, batch_size: int) -> TargetPlan:
    """One shape for every batch."""
    size = (pictures.source.size, pictures.source.size)
    return TargetPlan.from_dataset([t for _, t in pictures], batch_size=batch_size, image_size=size, strides=STRIDES)


def loader_of(
    pictures: Pictures,
    options: argparse.Namespace,
    *,
    data: Dataset[Sample] | None = None,
    padded: bool = False,
    **more: Any,
) -> DataLoader[Any]:
    """Batches in the order of the pictures, planned on the host; `data` has the same pictures in another form."""
    join = partial(collate, plan=plan_of(pictures, options.batch_size), padded=padded)
    more = {"batch_size": options.batch_size, "collate_fn": join, "drop_last": True, **more}
    return DataLoader(pictures if data is None else data, **more)


class Detection(nn.Module):
    """A detector with its loss: images and targets to the mean loss of an image, so that one compile holds both.

    `total` carries B, the images of this call. The mean does not, and is what averages of processes, of accumulated
    steps and of logs are right for: `total / B` here, `total` where a recipe's learning rate expects the sum.
    """

    def __init__(self, classes: int, *, distributed: bool = False) -> None:
        super().__init__()
        self.model = Detector(classes, width=24)
        # A batch norm's statistics depend on how a batch is cut, which would hide what the programs compare.
        for parent in [*self.model.modules()]:
            for name, child in parent.named_children():
                if isinstance(child, nn.BatchNorm2d):
                    setattr(parent, name, nn.GroupNorm(8, child.num_features))
        self.criterion = DetectionLoss(classes, STRIDES, distributed=distributed)

    def forward(self, images: Tensor, targets: Targets) -> Tensor:
        return self.criterion(*self.model(images), targets).total / images.shape[0]


def make_step(pictures: Pictures, *, distributed: bool = False) -> Detection:
    """The same weights in every program and process."""
    torch.manual_seed(0)
    return Detection(pictures.classes, distributed=distributed)


def make_optimizer(module: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(module.parameters(), lr=0.02, momentum=0.9)


def endless(loader: Iterable[Any], steps: int) -> Iterator[Any]:
    """As many batches as there are steps, epoch after epoch."""
    done = 0
    while True:
        for batch in loader:
            if done == steps:
                return
            yield batch
            done += 1


def eager_losses(pictures: Pictures, options: argparse.Namespace) -> list[float]:
    """What one process without a trainer and without a compiler sees, in the plainest of loops."""
    step = make_step(pictures).to(options.device)
    optimizer, losses = make_optimizer(step), []
    for images, targets in endless(loader_of(pictures, options), options.steps):
        loss = step(images.to(options.device), targets.to(options.device))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses
