"""Ultralytics' trainer with the model's own criterion, and at every step also ours on the same maps and rows.

    python examples/trainers/same_steps.py --set pose FOLDER [--head 11] [--epochs 20]

Two runs of one seed drift apart, whatever the criteria. Here there is one run, which trains with the model's own
criterion. The program measures how far our terms and our gradients of the maps are from it, at most, as it learns.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ.setdefault("YOLO_CONFIG_DIR", tempfile.mkdtemp())

from yolo import operators  # isort: skip  # noqa: F401  (before torchvision)
import torch
from claims import claim
from torch import Tensor
from ultralytics import YOLO  # pyright: ignore[reportMissingImports]
from yolo.folder import write_folder
from yolo.runs import ENDINGS

from compiled_loss.integrations.ultralytics import compiled_criterion

TERMS, GRADIENTS = 1e-4, 1e-3


class Beside:
    """The own criterion, which trains; ours is asked too."""

    def __init__(self, own: Any, ours: Any, apart: list[tuple[float, float]]) -> None:
        self.own, self.ours, self.apart = own, ours, apart

    def __deepcopy__(self, memo: Any) -> Beside:
        return self

    def update(self) -> None:
        """An epoch is over, where the criteria have a schedule."""
        for criterion in (self.own, self.ours):
            if hasattr(criterion, "update"):
                criterion.update()

    def __call__(self, preds: Any, batch: Any) -> Any:
        """What the own criterion says."""
        found = self.own(preds, batch)
        if torch.is_grad_enabled():
            maps = leaves(preds)
            both = found[0], self.ours(preds, batch)[0]
            gradients = [torch.autograd.grad(x.sum(), maps, retain_graph=True, materialize_grads=True) for x in both]
            off = max(distance(a, b) for a, b in zip(*gradients, strict=True))
            self.apart.append((float(((both[1] - both[0]).abs() / both[0].abs().clamp(min=1e-3)).max().detach()), off))
        return found


def leaves(preds: Any) -> list[Tensor]:
    """The maps that a gradient flows to."""
    if isinstance(preds, Tensor):
        return [preds] if preds.requires_grad else []
    parts = [x for key, x in preds.items() if key != "feats"] if isinstance(preds, dict) else preds
    return [x for part in parts for x in leaves(part)] if isinstance(parts, (list, tuple)) else []


def distance(right: Tensor, other: Tensor) -> float:
    """How far apart two gradients are, of the largest."""
    return float((right - other).abs().max() / right.abs().max().clamp(min=1e-9))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", nargs=2, required=True, metavar=("TASK", "FOLDER"), dest="source")
    parser.add_argument("--head", default="11")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--size", type=int, default=128, help="side of the square pictures")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    task, source = options.source
    apart: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as place:
        file = write_folder(Path(place), task, options.size, (10**6, 10**6), Path(source))
        model = YOLO(f"yolo{options.head}n{ENDINGS[task]}.yaml")
        kind = type(model.model)
        own = kind.init_criterion
        kind.init_criterion = lambda network: Beside(own(network), compiled_criterion(network), apart)
        settings = {"data": str(file), "epochs": options.epochs, "imgsz": options.size, "batch": options.batch_size}
        settings |= {"seed": options.seed, "nbs": options.batch_size, "workers": 0, "device": "cpu", "verbose": False}
        settings |= {"val": False, "save": False, "plots": False, "fliplr": 0.0, "project": place}
        model.train(**settings)
    terms, gradients = (max(x) for x in zip(*apart, strict=True))
    claim(f"terms of {len(apart)} steps off by {terms:.1e} at most", terms <= TERMS)
    claim(f"gradients of the maps off by {gradients:.1e} of the largest at most", gradients <= GRADIENTS)


if __name__ == "__main__":
    main()
