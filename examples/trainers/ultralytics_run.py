"""Ultralytics' own trainer, `YOLO(...).train()`, with our criterion in place of its own.

    python examples/trainers/ultralytics_run.py [--data FOLDER] [--tasks detect pose obb segment] [--backend none]

For each task and head, it checks that our criterion trains, and that its losses are those of the model's own criterion
with the same seed. Then it compiles, with mosaics and many sizes, and checks that nothing recompiles after the warm-up.
Then it kills a run during validation and resumes it, and loads checkpoints where this package is missing.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ.setdefault("YOLO_CONFIG_DIR", tempfile.mkdtemp())

try:
    from ultralytics import YOLO  # pyright: ignore[reportMissingImports]
    from yolo import operators  # noqa: F401  (before torchvision)
except ModuleNotFoundError:
    sys.exit("ultralytics is not installed: see examples/trainers/ultralytics.txt and ultralytics.alone.txt")
import torch
from claims import claim
from demo.engine import CompileLog
from yolo.folder import write_folder
from yolo.runs import BATCH, ENDINGS, EPOCHS, SIZE, KilledError, Run

from compiled_loss.integrations.criterion import Criterion
from compiled_loss.integrations.ultralytics import compiled_criterion, install

WARM_UP = 2  # epochs in which something may compile
ROUNDING = 2**-8  # of a bfloat16
LOAD = "import sys; from ultralytics import YOLO; YOLO(sys.argv[1]); assert 'compiled_loss' not in sys.modules"


def same_losses(config: str, folder: Path) -> None:
    """Our losses beside those of the model's own criterion, in float32 and of a network in bfloat16."""
    own = Run(YOLO(config), folder, "own").train()
    model = YOLO(config)
    with install(model):
        ours = Run(model, folder, "ours").train()
        claim(f"{config}: the criterion that trained is ours", isinstance(ours.criterion, Criterion))
        claim(f"{config}: so is the one that validates", isinstance(ours.averages.criterion, Criterion))
    off = [float(((a - b).abs() / b.abs().clamp(min=1e-3)).max()) for a, b in zip(ours.losses, own.losses, strict=True)]
    claim(f"{config}: first losses {ours.losses[0].tolist()} off by {off[0]:.1e}", off[0] <= 1e-5)
    print(f"        later, in {len(off)} steps, by up to {max(off):.1e}")
    its, last = (float(torch.stack(part).sum(1).mean()) for part in (own.losses[-EPOCHS:], ours.losses[-EPOCHS:]))
    claim(f"{config}: last losses {last:.3f}, its own {its:.3f}", abs(last - its) < 0.05 * its)
    network, trainer = own.network, own.trainer
    batch = trainer.preprocess_batch(next(iter(trainer.train_loader)))
    found = []
    with torch.autocast("cpu", torch.bfloat16):
        preds = network(batch["img"])
        for criterion in (network.init_criterion(), compiled_criterion(network)):
            network.criterion = criterion
            found.append(network.loss(batch, preds)[0].detach().float())
    apart = float(((found[1] - found[0]).abs() / found[0].abs()).max())
    claim(f"{config}: under autocast to bfloat16 off by {apart:.1e}", apart <= ROUNDING)


def one_graph(config: str, folder: Path, backend: str) -> None:
    """The same compiled, with pictures of many sizes."""
    model, log = YOLO(config), CompileLog()
    model.add_callback("on_fit_epoch_end", lambda trainer: log.mark_warm() if trainer.epoch < WARM_UP else None)
    with install(model, compile=True, backend=backend, dynamic=True):
        run = Run(model, folder, "compiled", imgsz=2 * SIZE, multi_scale=0.5, epochs=2 * WARM_UP).train()
    found = log.summary()
    log.close()
    claim(f"{config}: no recompile after {WARM_UP} epochs, {len(run.losses)} steps", found["recompiles"] == 0)
    claim(f"{config}: {found}", found["graphs"] == 1 and not found["graph_breaks"])


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
    with install(model), suppress(KilledError):
        run.train()
    last = run.weights / "last.pt"
    model = YOLO(str(last))
    with install(model):
        again = Run(model, folder, "resumed", resume=True)
        shares: list[float] = []
        model.add_callback("on_train_start", lambda trainer: shares.append(float(trainer.model.criterion.loss.share)))
        again.train()
    share, right = shares[0], 0.1 + 0.7 * (1 - 2 / (EPOCHS - 1))
    claim(f"{config}: resumed after 2 of {EPOCHS} epochs with share {share:.4f}", abs(share - right) < 1e-6)
    claim(f"{config}: {len(again.losses)} steps more", len(again.losses) == 2 * EPOCHS)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    for file in (last, run.weights / "best.pt"):
        load = [sys.executable, "-c", LOAD, str(file)]
        done = subprocess.run(load, env=environment, check=False, capture_output=True)
        claim(f"{config}: {file.name} loads without this package", done.returncode == 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="FOLDER/labels.json in COCO style and FOLDER/images/; else rendered")
    parser.add_argument("--tasks", nargs="*", default=list(ENDINGS), choices=list(ENDINGS))
    parser.add_argument("--backend", default="inductor", help="backend of torch.compile; none leaves that part out")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        for task in options.tasks:
            folder = Path(scratch) / task
            write_folder(folder, task, SIZE, (4 * BATCH, BATCH), options.data)
            for version in ("11", "26"):
                same_losses(f"yolo{version}n{ENDINGS[task]}.yaml", folder)
        folder = Path(scratch) / options.tasks[0]
        for version in ("11", "26") if options.backend != "none" else ():
            one_graph(f"yolo{version}n{ENDINGS[options.tasks[0]]}.yaml", folder, options.backend)
        resumed(f"yolo26n{ENDINGS[options.tasks[0]]}.yaml", folder)


if __name__ == "__main__":
    main()
