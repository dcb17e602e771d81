"""The compiled training step and the loop around it.

Forward and loss are one graph with its backward beside it, the optimizer step is another; both are compiled in the
first step and never again.
"""

from __future__ import annotations

import contextlib
import copy
import math
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo import callback, utils

from compiled_loss import DenseLoss, EndToEndLoss, EndToEndOutput, LossOutput, Targets
from demo.batches import Batch
from demo.optimizer import FlatAdamW

WARM_UP_STEPS = 2
FLUSH_EVERY = 10


class TrainingStep:
    """One step of training; `forward_loss` and `update` are its two graphs.

    Args:
        model: images to a tuple of predictions, one for each branch, on its device.
        criterion: those predictions and targets to `LossOutput`.
        optimizer: of the model's parameters.
        compiled: whether to compile at all.
        half: run the model in bfloat16 autocast; the loss computes in float32 all the same.
    """

    def __init__(
        self,
        model: nn.Module,
        criterion: DenseLoss | EndToEndLoss,
        optimizer: FlatAdamW,
        *,
        compiled: bool = True,
        half: bool = False,
    ):
        self.model, self.criterion, self.optimizer, self.half = model, criterion, optimizer, half
        self.learning_rate = torch.zeros((), device=optimizer.weights.device)
        self.forward_loss: Callable[[Tensor, Targets], LossOutput | EndToEndOutput] = self._forward_loss
        self.update: Callable[[Tensor], None] = optimizer.step
        if compiled:
            self.forward_loss = torch.compile(self._forward_loss, fullgraph=True)
            self.update = torch.compile(optimizer.step, fullgraph=True)

    def predict(self, images: Tensor) -> Any:
        with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=self.half):
            return self.model(images)

    def _forward_loss(self, images: Tensor, targets: Targets) -> LossOutput | EndToEndOutput:
        return self.criterion(*self.predict(images), targets)

    def __call__(self, images: Tensor, targets: Targets, learning_rate: float) -> LossOutput | EndToEndOutput:
        return self.run(self.forward_loss, images, targets, learning_rate)

    @torch.no_grad()
    def trial(self, images: Tensor, targets: Targets) -> LossOutput | EndToEndOutput:
        """The loss of a batch, eagerly and on copies: nothing is changed, and what is wrong shows before compiling."""
        model, criterion = copy.deepcopy((self.model, self.criterion))
        with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=self.half):
            predictions = model.train()(images)
        return criterion(*predictions, targets)

    def run(
        self, forward_loss: Callable, images: Tensor, targets: Targets, learning_rate: float
    ) -> LossOutput | EndToEndOutput:
        """The step with another form of forward and loss in the place of the compiled one."""
        self.learning_rate.fill_(learning_rate)
        out = forward_loss(images, targets)
        out.total.backward()
        self.update(self.learning_rate)
        self.optimizer.zero_grad()
        return out


def learning_rate(step: int, steps: int, peak: float, warm_up: int = 40) -> float:
    """Linear warm-up, then a cosine down to a hundredth of the peak."""
    warm_up = min(warm_up, steps // 4)
    if step < warm_up:
        return peak * (step + 1) / warm_up
    progress = (step - warm_up) / max(1, steps - warm_up)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


@dataclass
class Progress:
    """How far a run has come: steps done, the loss terms of each, per image, and average precision after some.

    Values stay on the device until `flush`, which `train` calls now and then, so that a GPU need not wait.
    """

    steps: int = 0
    names: list[str] = field(default_factory=list)
    losses: list[list[float]] = field(default_factory=list)
    overflow: int = 0
    precision: list[tuple[int, float]] = field(default_factory=list)
    _pending: list[Tensor] = field(default_factory=list)

    def record(self, out: LossOutput | EndToEndOutput, images: int) -> None:
        values = torch.stack([out.total, *out.terms.values()]).detach() / images
        self._pending.append(torch.cat([values, out.overflow[None].to(values)]))
        self.names = ["total", *out.terms]
        self.steps += 1

    def flush(self) -> None:
        if not self._pending:
            return
        rows = torch.stack(self._pending).tolist()
        self._pending.clear()
        self.losses += [row[:-1] for row in rows]
        self.overflow += int(sum(row[-1] for row in rows))
        broken = [row[0] for row in rows if not math.isfinite(row[0])]
        if broken:
            raise FloatingPointError(f"the loss became {broken[0]} by step {self.steps}; try a lower --lr")


def train(
    step: TrainingStep,
    batches: Iterable[Batch],
    progress: Progress,
    rate: Callable[[int], float],
    after_step: Callable[[int], bool],
) -> None:
    """Step through the batches; `after_step(images)` says whether to go on."""
    step.model.train()
    for images, targets in batches:
        progress.record(step(images, targets, rate(progress.steps)), len(images))
        if not images.is_cuda or progress.steps % FLUSH_EVERY == 0:
            progress.flush()
        if not after_step(len(images)):
            break
    progress.flush()


class CompileLog:
    """Counts what `torch.compile` does: graphs, graph breaks, and compiles after `mark_warm()`."""

    def __init__(self) -> None:
        torch._dynamo.reset()
        utils.counters.clear()
        self.started = self._warm = 0
        callback.on_compile_start(self._count)

    def _count(self, _: object) -> None:
        self.started += 1

    def mark_warm(self) -> None:
        self._warm = self.started

    def summary(self) -> dict[str, int]:
        return {
            "graphs": utils.counters["stats"]["unique_graphs"],
            "graph_breaks": sum(utils.counters["graph_break"].values()),
            "recompiles": self.started - self._warm,
        }

    def close(self) -> None:
        callback.callback_handler.remove_start_callback(self._count)


class Interrupt:
    """True once Ctrl-C was pressed; a second Ctrl-C ends the program at once."""

    def __init__(self) -> None:
        self.pressed = False

    def __bool__(self) -> bool:
        return self.pressed

    @contextlib.contextmanager
    def listening(self) -> Iterator[Interrupt]:
        before = signal.signal(signal.SIGINT, self._press)
        try:
            yield self
        finally:
            signal.signal(signal.SIGINT, before)

    def _press(self, *_: object) -> None:
        self.pressed = True
        # Straight to the descriptor: the handler may have interrupted a print.
        os.write(2, b"\nfinishing this step, then saving; Ctrl-C again quits at once\n")
        signal.signal(signal.SIGINT, signal.default_int_handler)
