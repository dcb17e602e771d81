"""How long a step takes with the loss inside the compiled graph, and with the loss eager behind the compiled model."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from compiled_loss import EndToEndOutput, LossOutput, Targets
from demo.batches import Batch
from demo.engine import TrainingStep

WARM_UP_ROUNDS = 3


def compare(step: TrainingStep, batches: Sequence[Batch], rounds: int) -> tuple[float, float]:
    """Median seconds of a whole step (inside, outside), the two in turn on the same batches.

    The learning rate is 0, so both meet the same weights; the model's batch statistics move on.
    """
    predict = torch.compile(step.predict, fullgraph=True)

    def outside(images: Tensor, targets: Targets) -> LossOutput | EndToEndOutput:
        return step.criterion(*predict(images), targets)

    step.model.train()
    forms: tuple[Callable[[Tensor, Targets], LossOutput | EndToEndOutput], ...] = (step.forward_loss, outside)
    seconds: tuple[list[float], list[float]] = ([], [])
    for i in range(WARM_UP_ROUNDS + rounds):
        images, targets = batches[i % len(batches)]
        for form, times in zip(forms, seconds, strict=True):
            start = time.perf_counter()
            step.run(form, images, targets, learning_rate=0.0)
            if images.is_cuda:
                torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
    inside, eager = (statistics.median(times[WARM_UP_ROUNDS:]) for times in seconds)
    return inside, eager
