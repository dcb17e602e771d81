"""The command line, and how a resumed run takes its settings from the checkpoint."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from demo import checkpoint
from demo.formats.choice import KINDS
from demo.labels import DataError
from demo.parts import ASSIGNERS, CLASS_TERMS, ORIENTED, UPRIGHT


@dataclass(frozen=True)
class Settings:
    """Everything a run depends on. A checkpoint keeps those above the line; the rest may differ on resuming."""

    task: str = "pose"
    head: str = "dense"
    assigner: str = "task-aligned"
    box_term: str = ""
    class_term: str = "bce"
    data: str = ""
    val_fraction: float = 0.0
    val_labels: str = ""
    image_size: int = 0
    batch_size: int = 16
    steps: int = 0
    epochs: int = 0
    lr: float = 0.012
    ema: float = 0.99
    seed: int = 0
    # ---
    device: str = "auto"
    compile: bool = True
    workers: int = 1
    out: str = ""
    resume: str = ""
    save_every: int = 200
    timing_rounds: int = 15
    evaluations: int = 8

    def kept(self) -> dict[str, Any]:
        """The part that a checkpoint keeps."""
        names = [f.name for f in fields(self)]
        return {name: value for name, value in asdict(self).items() if name in names[: names.index("device")]}


# What each number may be where one is given. Left out some are 0, which stands for what --help says.
_LIMITS: tuple[tuple[str, str, Callable[[float], bool]], ...] = (
    ("batch_size", "a positive number", lambda x: x > 0),
    ("lr", "a positive number", lambda x: 0 < x < math.inf),
    ("val_fraction", "a number between 0 and 1", lambda x: 0 < x < 1),
    ("image_size", "a positive multiple of 32", lambda x: x > 0 and x % 32 == 0),
    ("steps", "a positive number", lambda x: x > 0),
    ("epochs", "a positive number", lambda x: x > 0),
    ("ema", "a number from 0 up to 1", lambda x: 0 <= x < 1),
    ("seed", "0 or more, below 2**63", lambda x: 0 <= x < 2**63),
    ("workers", "0 or more", lambda x: x >= 0),
    ("save_every", "a positive number", lambda x: x > 0),
    ("timing_rounds", "0 or more", lambda x: x >= 0),
    ("evaluations", "0 or more", lambda x: x >= 0),
)


def parse(arguments: list[str] | None = None) -> Settings:
    """Settings from the command line, over those of the checkpoint to resume, over the defaults."""
    given = vars(_parser().parse_args(arguments))
    # What a shell makes of a variable that is not set.
    for name in ("data", "val_labels", "out", "resume"):
        if given.get(name) == "":
            raise DataError(f"{_option(name)}: expected a path, got ''")
    for name, expected, fits in _LIMITS:
        if name in given and not fits(given[name]):
            raise DataError(f"{_option(name)}: expected {expected}, got {given[name]}")
    saved = _saved(given["resume"]) if "resume" in given else {}
    for name, value in saved.items():
        if name in given and given[name] != value:
            raise DataError(
                f"{given['resume']}: was made with {_option(name)} {value!r}, the command line says {given[name]!r}"
            )
    if saved and "out" not in given:
        given["out"] = str(Path(given["resume"]).parent)
    settings = Settings(**{**saved, **given})
    if (settings.val_fraction or settings.val_labels) and not settings.data:
        raise DataError("--val-fraction and --val-labels need pictures of your own: --data")
    if settings.val_fraction and settings.val_labels:
        raise DataError("--val-fraction and --val-labels: give only one of them, each says which pictures are held out")
    if settings.steps and settings.epochs:
        raise DataError("--steps and --epochs: give only one of them, each says how long to train")
    return settings


def _saved(resume: str) -> dict[str, Any]:
    """The settings of the checkpoint to resume."""
    saved = checkpoint.read(Path(resume))["settings"]
    others = set(saved) ^ set(Settings().kept())
    if others:
        raise DataError(f"{resume}: was made by another version of this program ({', '.join(sorted(others))})")
    return saved


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Train a small detector of any task with the loss inside the compiled step.",
        epilog="\n  ".join(["--data takes one of", *KINDS]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    add = parser.add_argument
    add("--task", choices=("detect", "pose", "obb", "segment"), help="default: pose")
    add("--head", choices=("dense", "end2end"), help="end2end: a second head that needs no suppression; default: dense")
    add("--assigner", choices=tuple(ASSIGNERS), help="which anchors learn which object; default: task-aligned")
    add("--box-term", choices=(*UPRIGHT, *ORIENTED), help="box term; default: that of the task")
    add("--class-term", choices=tuple(CLASS_TERMS), help="class term; default: bce")
    add("--data", metavar="DATA", help="your pictures, in any of the forms below; default: rendered pictures")
    add(
        "--val-fraction",
        type=float,
        metavar="SHARE",
        help="share of the pictures of --data to hold out, if nothing else says which; default: 0.2",
    )
    add(
        "--val-labels",
        metavar="FILE",
        help="labels of the held-out pictures, which are in the same folder as those of DATA/labels.json",
    )
    add("--image-size", type=int, help="side in pixels, a multiple of 32; default: 128 rendered, else 320")
    add("--batch-size", type=int, help="default: 16")
    add("--steps", type=int, help="default: 600 rendered, else from --epochs")
    add("--epochs", type=int, help="passes over the training pictures, instead of --steps; default: 40 with --data")
    add("--lr", type=float, help="peak learning rate; default: 0.012")
    add("--ema", type=float, help="decay of the moving average that is evaluated, 0 for none; default: 0.99")
    add("--seed", type=int, help="default: 0")
    add(
        "--device",
        choices=("auto", "cpu", "cuda"),
        help="default: auto, which is CUDA if there is one, with bfloat16 where possible",
    )
    add("--no-compile", dest="compile", action="store_false", help="run eagerly, to compare or to debug")
    add("--workers", type=int, help="processes that prepare batches; default: 1")
    add("--out", metavar="FOLDER", help="folder for checkpoint, pictures and results; default: runs/TASK-DATA")
    add("--resume", metavar="CHECKPOINT", help="continue from a checkpoint, bit for bit, with its settings")
    add("--save-every", type=int, metavar="STEPS", help="steps between checkpoints; default: 200")
    add(
        "--timing-rounds",
        type=int,
        metavar="N",
        help="steps to time with the loss inside and outside the graph, 0 for none; default: 15",
    )
    add(
        "--evaluations",
        type=int,
        metavar="N",
        help="measurements of average precision on some held-out pictures while training, 0 for none; default: 8",
    )
    return parser
