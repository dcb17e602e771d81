"""Ultralytics' own trainer, `YOLO(...).train()`, with our criterion in the place of its own.

    python examples/trainers/ultralytics_run.py [--data FOLDER] [--tasks detect pose obb segment] [--no-compile]

For each task and head: the criterion that trains is ours, and its losses are those of the model's own criterion on the
same seed. Then compiled, with mosaics and pictures of many sizes: one graph, and no recompile once it is warm. Then a
run that is killed in a validation and resumed, and checkpoints that load where this package is not.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ.setdefault("YOLO_CONFIG_DIR", tempfile.mkdtemp())

from yolo import operators  # isort: skip  # noqa: F401
import torch
from demo.engine import CompileLog
from ultralytics import YOLO  # pyright: ignore[reportMissingImports]
from yolo.folder import write_folder

from compiled_loss.integrations.criterion import Criterion
from compiled_loss.integrations.ultralytics import install

ENDINGS = {"detect": "", "pose": "-pose", "obb": "-obb", "segment": "-seg"}
BATCH, SIZE, EPOCHS = 4, 96, 4
WARM_UP = 2  # epochs in which everything may compile: every batch size and a second picture size
LOAD = "import sys; from ultralytics import YOLO; YOLO(sys.argv[1]); assert 'compiled_loss' not in sys.modules"


class KilledError(Exception):
    """Stands for a run that is killed."""


def claim(text: str, held: bool) -> None:
    """Print what holds; end the program where it does not."""
    if not held:
        sys.exit(f"FAILED  {text}")
    print(f"ok      {text}", flush=True)


class Run:
    """One `train()`: its losses by step, and the criterion that its network had."""

    def __init__(self, model: Any, folder: Path, name: str, **options: Any) -> None:
        self.losses: list[torch.Tensor] = []
        self.model = model
        model.add_callback("on_train_batch_end", self._batch)
        model.add_callback("on_train_epoch_end", self._epoch)
        options = {"epochs": EPOCHS, "imgsz": SIZE, "batch": BATCH, "nbs": 2 * BATCH, "seed": 0, **options}
        options |= {"data": str(folder / "data.yaml"), "project": str(folder / "runs"), "name": name, "exist_ok": True}
        self.weights = folder / "runs" / name / "weights"
        self.options = {**options, "device": "cpu", "workers": 0, "plots": False, "verbose": False}

    def train(self) -> Run:
        self.model.train(**self.options)
        return self

    def _batch(self, trainer: Any) -> None:
        items = trainer.loss_items
        self.losses.append(torch.stack([*items.values()] if isinstance(items, dict) else [*items]).detach().cpu())

    def _epoch(self, trainer: Any) -> None:
        self.criterion, self.averages = trainer.model.criterion, trainer.ema.ema


def same_losses(config: str, folder: Path) -> None:
    """Our losses beside those of the model's own criterion."""
    own = Run(YOLO(config), folder, "own").train()
    model = YOLO(config)
    with install(model):
        ours = Run(model, folder, "ours").train()
        claim(f"{config}: the criterion that trained is ours", isinstance(ours.criterion, Criterion))
        claim(f"{config}: so is the one that validates", isinstance(ours.averages.criterion, Criterion))
    off = [float(((a - b).abs() / b.abs().clamp(min=1e-3)).max()) for a, b in zip(ours.losses, own.losses, strict=True)]
    claim(f"{config}: first losses {ours.losses[0].tolist()} off by {off[0]:.1e}", off[0] <= 1e-5)
    print(f"        later, in {len(off)} steps, by up to {max(off):.1e}")
    first, last = (float(torch.stack(part).sum(1).mean()) for part in (own.losses[-EPOCHS:], ours.losses[-EPOCHS:]))
    claim(f"{config}: last losses {last:.3f}, its own {first:.3f}", abs(last - first) < 0.05 * first)


def one_graph(config: str, folder: Path, backend: str) -> None:
    """The same compiled, pictures of many sizes."""
    model, log = YOLO(config), CompileLog()
    model.add_callback("on_fit_epoch_end", lambda trainer: log.mark_warm() if trainer.epoch < WARM_UP else None)
    with install(model, compile=True, backend=backend, dynamic=True) as installation:
        run = Run(model, folder, "compiled", multi_scale=0.5, mosaic=1.0, epochs=2 * WARM_UP, close_mosaic=1).train()
    found = log.summary()
    log.close()
    claim(
        f"{config}: {len(installation.criteria)} criteria, {len(run.losses)} steps, {found}", found["recompiles"] == 0
    )
    claim(f"{config}: {found['graphs']} graph, {found['graph_breaks']} breaks", found["graph_breaks"] == 0)


def resumed(config: str, folder: Path) -> None:
    """A run that is killed in its third validation goes on with the schedule of its head."""

    def kill(validator: Any) -> None:
        epochs.append(0)
        if len(epochs) == 3:
            raise KilledError

    epochs: list[int] = []
    model = YOLO(config)
    model.add_callback("on_val_start", kill)
    run = Run(model, folder, "resumed")
    with install(model):
        try:
            run.train()
        except KilledError:
            print(f"        {config}: killed in validation {len(epochs)}")
    last = run.weights / "last.pt"
    model = YOLO(str(last))
    with install(model) as installation:
        again = Run(model, folder, "resumed", resume=True)
        seen: list[float] = []
        model.add_callback("on_train_start", lambda trainer: seen.append(installation.criteria[0].loss.share.item()))  # type: ignore[union-attr]
        again.train()
    right = 0.1 + 0.7 * (1 - 2 / (EPOCHS - 1))
    claim(f"{config}: resumed after 2 of {EPOCHS} epochs with share {seen[0]:.4f}", abs(seen[0] - right) < 1e-6)
    claim(f"{config}: {len(again.losses)} steps more", len(again.losses) == 2 * EPOCHS)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    for file in (last, run.weights / "best.pt"):
        done = subprocess.run(
            [sys.executable, "-c", LOAD, str(file)], env=environment, check=False, capture_output=True
        )
        claim(f"{config}: {file.name} loads without this package", done.returncode == 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="FOLDER/labels.json in COCO style and FOLDER/images/; else rendered")
    parser.add_argument("--tasks", nargs="*", default=list(ENDINGS), choices=list(ENDINGS))
    parser.add_argument("--backend", default="inductor", help="of torch.compile; none leaves that part out")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        for task in options.tasks:
            folder = Path(scratch) / task
            write_folder(folder, task, SIZE, (4 * BATCH, BATCH), options.data)
            for version in ("11", "26"):
                same_losses(f"yolo{version}n{ENDINGS[task]}.yaml", folder)
        folder = Path(scratch) / options.tasks[0]
        if options.backend != "none":
            one_graph(f"yolo11n{ENDINGS[options.tasks[0]]}.yaml", folder, options.backend)
        resumed(f"yolo26n{ENDINGS[options.tasks[0]]}.yaml", folder)


if __name__ == "__main__":
    main()
