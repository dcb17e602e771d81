"""What a run is made of."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from compiled_loss import DenseLoss, EndToEndLoss, Scheduled, TargetPlan
from demo import checkpoint
from demo.batches import Batches
from demo.engine import Progress, TrainingStep, learning_rate
from demo.labels import Dataset, Labels
from demo.model import Detector
from demo.optimizer import FlatAdamW
from demo.parts import SWITCH, options_of
from demo.settings import Settings
from demo.tasks import TASKS, make_loss, make_model

# At least so many steps lie between two measurements.
MEASURED_EVERY = 25

Pictures = Sequence[tuple[np.ndarray, Labels]]


@dataclass
class Run:
    """What a run is made of."""

    settings: Settings
    dataset: Dataset
    held_out: Pictures
    plan: TargetPlan
    step: TrainingStep
    progress: Progress
    steps: int
    out: Path

    @property
    def batches(self) -> Batches:
        return Batches(self.dataset, self.settings.batch_size, self.plan, self.settings.seed)

    @property
    def epochs(self) -> int:
        return math.ceil(self.steps * self.settings.batch_size / len(self.dataset))

    @property
    def device(self) -> torch.device:
        return self.step.learning_rate.device

    def is_measured(self, step: int) -> bool:
        """Whether average precision is measured after this step, in the course of the run."""
        times = self.settings.evaluations
        return times > 0 and step < self.steps and step % max(MEASURED_EVERY, round(self.steps / times)) == 0

    def schedule(self, step: int) -> float:
        """What changes in the course of a run: the branches' shares, a schedule's assigner, and the learning rate."""
        assigner = one_branch(self.step.criterion).assigner
        if isinstance(assigner, Scheduled):
            assigner.set_second(step >= SWITCH * self.steps)
        if isinstance(self.step.criterion, EndToEndLoss):
            self.step.criterion.set_progress(step * self.settings.batch_size // len(self.dataset), self.epochs)
        return learning_rate(step, self.steps, self.settings.lr)

    def save(self) -> Path:
        path = self.out / "checkpoint.pt"
        checkpoint.save(path, self.settings.kept(), self.step, self.progress)
        return path

    def averaged(self) -> Detector:
        """A copy of the model with the moving average of its weights."""
        model = copy.deepcopy(self.step.model)
        assert isinstance(model, Detector)
        model.load_state_dict(self.step.optimizer.averaged_state(self.step.model))
        return model


def make_step(settings: Settings, dataset: Dataset, device: torch.device) -> TrainingStep:
    """Model, loss and optimizer of a task."""
    end_to_end, info = settings.head == "end2end", dataset.info
    model = make_model(settings.task, info, end_to_end).to(device)
    names = settings.assigner, settings.box_term, settings.class_term
    parts = options_of(TASKS[settings.task].loss, *names, dataset.size, end_to_end)
    criterion = make_loss(settings.task, info, end_to_end, **parts)
    optimizer = FlatAdamW(model, ema_decay=settings.ema)
    half = device.type == "cuda" and torch.cuda.is_bf16_supported()
    return TrainingStep(model, criterion.to(device), optimizer, compiled=settings.compile, half=half)


def one_branch(criterion: DenseLoss | EndToEndLoss) -> DenseLoss:
    """The loss of the branch whose output is used; both branches have the same candidates."""
    return criterion.one if isinstance(criterion, EndToEndLoss) else criterion
