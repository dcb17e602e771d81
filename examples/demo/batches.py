"""Batches by step: batch `s` of a run is a pure function of `s`, so a resumed run sees the very same batches."""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from compiled_loss import DenseLoss, TargetPlan, Targets, collate
from demo.labels import DataError, Dataset, image_tensor

Batch = tuple[Tensor, Targets]
PLANNED_PICTURES = 20_000


class Batches(TorchDataset):
    """Every picture once per epoch in a shuffled order; item `s` is the collated batch of step `s`."""

    def __init__(self, dataset: Dataset, batch_size: int, plan: TargetPlan, seed: int):
        self.dataset, self.batch_size, self.plan, self.seed = dataset, batch_size, plan, seed

    def pictures(self, step: int) -> list[tuple[int, int]]:
        """(index, epoch) of each picture of a batch; batches run on over the end of an epoch."""
        places = range(step * self.batch_size, (step + 1) * self.batch_size)
        epochs = [divmod(place, len(self.dataset)) for place in places]
        orders = {e: np.random.default_rng([self.seed, e]).permutation(len(self.dataset)) for e, _ in epochs}
        return [(int(orders[epoch][place]), epoch) for epoch, place in epochs]

    def batch(self, step: int) -> Batch:
        samples = [self.dataset.sample(index, epoch) for index, epoch in self.pictures(step)]
        size = self.dataset.size
        return collate([(image_tensor(image), labels.targets(size)) for image, labels in samples], self.plan)

    def __getitem__(self, step: int) -> Batch | DataError:
        try:
            return self.batch(step)
        except DataError as error:
            # Raised in a worker it would reach the user wrapped in the worker's traceback.
            return error


def plan_run(dataset: Dataset, batch_size: int, loss: DenseLoss, epochs: int) -> TargetPlan:
    """One shape for the whole run, with room for the candidates of a loss.

    Augmentation is known in advance, so the very pictures to come are looked at. Of long runs only the first epochs
    are; should a later batch exceed the plan, it says so and compiles once more.
    """
    looks = max(1, PLANNED_PICTURES // len(dataset)) if dataset.augmented else 1
    varied = range(min(epochs, looks))
    # The first one comes with its masks, whose size is planned with.
    first = dataset.sample(0)[1].targets(dataset.size)
    targets = [dataset.labels(i, epoch).targets(dataset.size) for epoch in varied for i in range(len(dataset))]
    # Twice, since a batch that runs on over the end of an epoch may hold a picture a second time.
    copies = 1 + math.ceil(batch_size / len(dataset))
    size = (dataset.size, dataset.size)
    return TargetPlan.from_dataset(
        [first] + targets * copies, batch_size=batch_size, image_size=size, strides=loss.strides, region=loss.region
    )


def stream(batches: Batches, start: int, stop: int, workers: int, device: torch.device) -> Iterator[Batch]:
    """The batches of steps `start` to `stop - 1`, on the device."""
    on_gpu = device.type == "cuda"
    loader = DataLoader(
        batches,
        batch_size=None,
        sampler=range(start, stop),
        num_workers=workers,
        pin_memory=on_gpu,
        # Its own generator: by default a loader draws from the global one, and a resumed run has one loader more.
        generator=torch.Generator(),
        worker_init_fn=_leave_interrupts_to_the_main_process,
    )
    for batch in loader:
        if isinstance(batch, DataError):
            raise batch
        images, targets = batch
        images = images.to(device, non_blocking=on_gpu, memory_format=torch.channels_last)
        yield images, targets.to(device, non_blocking=on_gpu)


def _leave_interrupts_to_the_main_process(worker: int) -> None:
    """Ctrl-C reaches every process of the terminal; the main one finishes its step and then ends the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
