"""Everything a run needs to go on bit for bit as if it had never stopped, in one file written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from demo.engine import Progress, TrainingStep
from demo.labels import DataError


def save(path: Path, settings: dict[str, Any], step: TrainingStep, progress: Progress) -> None:
    """Write model, criterion, optimizer with its moving average, progress, random state and the settings of the run."""
    progress.flush()
    state = {
        "settings": settings,
        "model": step.model.state_dict(),
        "criterion": step.criterion.state_dict(),
        "optimizer": step.optimizer.state,
        "progress": {name: getattr(progress, name) for name in ("steps", "names", "losses", "overflow", "precision")},
        "random": torch.get_rng_state(),
    }
    unfinished = path.with_suffix(".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(state, unfinished)
        os.replace(unfinished, path)
    except (OSError, RuntimeError) as error:  # a full disk fails inside torch's writer of zip files
        reason = str(error).splitlines()[0]
        raise DataError(f"{path}: the checkpoint cannot be written; is the disk full? ({reason})") from error


def read(path: Path) -> dict[str, Any]:
    """The content of a checkpoint; DataError naming the file where it is none."""
    if not path.is_file():
        raise DataError(f"{path}: no such checkpoint")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file fails in many ways, inside zip and pickle
        raise DataError(f"{path}: not a readable checkpoint ({error.__class__.__name__})") from error
    parts = {"settings", "model", "criterion", "optimizer", "progress", "random"}
    if not isinstance(state, dict) or parts - set(state) or not isinstance(state["settings"], dict):
        raise DataError(f"{path}: not a checkpoint of this program")
    return state


def restore(state: dict[str, Any], step: TrainingStep) -> Progress:
    """Put a checkpoint's state into the step and the random generator; returns the progress made."""
    step.model.load_state_dict(state["model"])
    step.criterion.load_state_dict(state["criterion"])
    step.optimizer.load_state(state["optimizer"])
    torch.set_rng_state(state["random"])
    return Progress(**state["progress"])
