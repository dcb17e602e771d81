"""accelerate: two processes, one of which loads and hands out the batches (`dispatch_batches`).

    python examples/trainers/accelerate_run.py [--data FOLDER]

It starts itself twice under torchrun, over gloo on a CPU.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import torch
from claims import Record
from common import Pictures, Sample, eager_losses, endless, loader_of, make_optimizer, make_step, read_options
from processes import mean_over_ranks, under_torchrun
from torch.utils.data import IterableDataset

from compiled_loss import PaddedTargets

OPTIONS = read_options(__doc__)
try:
    import accelerate  # type: ignore[import-not-found]
except ModuleNotFoundError:
    sys.exit("accelerate is not installed: pip install -r examples/trainers/accelerate.txt")

PROCESSES = 2


class Stream(IterableDataset[Sample]):
    """The pictures one after the other; of an iterable data set accelerate dispatches batches by default."""

    def __init__(self, pictures: Pictures) -> None:
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.pictures[i] for i in range(len(self)))


def main() -> None:
    under_torchrun(PROCESSES)
    pictures = Pictures(OPTIONS)
    config = accelerate.DataLoaderConfiguration(split_batches=True)
    accelerator = accelerate.Accelerator(cpu=True, dataloader_config=config)

    step = make_step(pictures, distributed=True)
    step.compile(fullgraph=True, backend=OPTIONS.backend)
    # The loading process joins batches, broadcasts them and cuts every tensor by image: flat rows would be cut by the
    # number of images (and fail). PaddedTargets have the images first in every field, so whatever cuts them is right.
    batches = loader_of(pictures, OPTIONS, padded=True, data=Stream(pictures))
    model, optimizer, loader = accelerator.prepare(step, make_optimizer(step), batches)
    record = Record()
    for images, targets in endless(loader, OPTIONS.steps):
        targets = PaddedTargets(*targets)
        loss = model(images, targets)
        # It averages over processes as DDP does: `total / B` (which `Detection` returns), or `world * total`. Under
        # accelerator.accumulate(model) it divides by the number of accumulated steps too.
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        record.step(mean_over_ranks(loss))

    if accelerator.is_main_process:
        print(f"accelerate {accelerate.__version__}, {accelerator.num_processes} processes, torch {torch.__version__}")
        record.prove(step.criterion, eager_losses(pictures, OPTIONS))
    accelerator.end_training()


if __name__ == "__main__":
    main()
