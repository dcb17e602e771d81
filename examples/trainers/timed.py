"""What the programs that time whole steps share: pictures in batches, and steps in turn.

Letters: B images of a batch.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from demo.labels import image_tensor
from torch import Tensor

Batch = TypeVar("Batch")
BATCHES = 3


def batches_of(source: Any, images: int, make: Callable[[Tensor, list[Any]], Batch]) -> list[Batch]:
    """Up to three batches: of pictures `[B, 3, H, W]` and the labels of each, what `make` makes."""
    batches = []
    for begin in range(0, min(len(source), BATCHES * images) - images + 1, images):
        samples = [source.sample(i) for i in range(begin, begin + images)]
        pictures = torch.stack([image_tensor(picture) for picture, _ in samples])
        batches.append(make(pictures, [labels for _, labels in samples]))
    return batches


def in_turn(
    steps: Mapping[str, Callable[[Batch], object]], batches: Sequence[Batch], rounds: int
) -> dict[str, tuple[float, float]]:
    """Median milliseconds of each step, and the seconds of its first call, which may compile.

    Every round runs each of them once, on the same batch, so that noise hits all alike; the first is not counted.
    """
    first = {name: milliseconds(step, batches[0]) / 1e3 for name, step in steps.items()}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds + 1):
        for name, step in steps.items():
            times[name].append(milliseconds(step, batches[turn % len(batches)]))
    return {name: (statistics.median(x[1:]), first[name]) for name, x in times.items()}


def milliseconds(step: Callable[[Batch], object], batch: Batch) -> float:
    begin = time.perf_counter()
    step(batch)
    return 1e3 * (time.perf_counter() - begin)
