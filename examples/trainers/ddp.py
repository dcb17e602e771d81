"""Plain DistributedDataParallel: two processes learn what one would on the joined batch.

    python examples/trainers/ddp.py [--data FOLDER]

It starts itself twice under torchrun, over gloo on a CPU.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from claims import Record
from common import Pictures, eager_losses, endless, loader_of, make_optimizer, make_step, read_options
from processes import mean_over_ranks, under_torchrun
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DistributedSampler

PROCESSES = 2


def main() -> None:
    options = read_options(__doc__)
    under_torchrun(PROCESSES)
    dist.init_process_group("gloo")
    pictures, rank, world = Pictures(options), dist.get_rank(), dist.get_world_size()

    # `distributed=True` divides every rank's sums by the mean of all ranks' normalisers, so that the mean over ranks is
    # that of the joined batch, however the objects fell to them; a rank without any takes part like the others.
    step = make_step(pictures, distributed=True)
    # Inside of DDP, whose hooks stay out of the graph; `torch.compile(ddp)` would be as good.
    step.compile(fullgraph=True, backend=options.backend)
    model = DistributedDataParallel(step)

    sampler = DistributedSampler(pictures, shuffle=False)
    loader = loader_of(pictures, options, batch_size=options.batch_size // world, sampler=sampler)
    optimizer, record = make_optimizer(model), Record()
    for images, targets in endless(loader, options.steps):
        # DDP averages gradients, and `total` carries the B of its own rank: averaged, it is 1 / world of what one
        # process gets for the joined batch. `total / B`, which `Detection` returns, needs no factor; `total` needs
        # `world * total`. (A trainer that multiplies by the number of processes itself wants the plain `total`.)
        loss = model(images, targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        record.step(mean_over_ranks(loss))

    if rank == 0:
        print(f"DistributedDataParallel, {world} processes, torch {torch.__version__}")
        record.prove(step.criterion, eager_losses(pictures, options))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
