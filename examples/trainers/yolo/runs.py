"""One `train()` of Ultralytics' trainer, its losses noted, and what is claimed of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

BATCH, SIZE, EPOCHS = 4, 96, 4
# Of the names of networks, by task.
ENDINGS = {"detect": "", "pose": "-pose", "obb": "-obb", "segment": "-seg"}


class KilledError(Exception):
    """Stands for a run that is killed."""


class Run:
    """One `train()`: its losses by step, its network, and the criterion that this had."""

    def __init__(self, model: Any, folder: Path, name: str, **options: Any) -> None:
        self.losses: list[torch.Tensor] = []
        self.model = model
        model.add_callback("on_train_batch_end", self._batch)
        model.add_callback("on_train_epoch_end", self._epoch)
        # Two batches are accumulated for a step once the trainer is warm; the last two epochs are without mosaics.
        given = {"epochs": EPOCHS, "imgsz": SIZE, "batch": BATCH, "nbs": 2 * BATCH, "close_mosaic": 2, **options}
        given |= {"data": str(folder / "data.yaml"), "project": str(folder / "runs"), "name": name, "exist_ok": True}
        self.weights = folder / "runs" / name / "weights"
        self.options = {"seed": 0, "device": "cpu", "workers": 0, "plots": False, "verbose": False, **given}

    def train(self) -> Run:
        self.model.train(**self.options)
        return self

    def _batch(self, trainer: Any) -> None:
        items = trainer.loss_items
        self.losses.append(torch.stack([*items.values()] if isinstance(items, dict) else [*items]).detach().cpu())

    def _epoch(self, trainer: Any) -> None:
        self.trainer, self.network = trainer, getattr(trainer.model, "module", trainer.model)
        self.criterion, self.averages = self.network.criterion, trainer.ema.ema
