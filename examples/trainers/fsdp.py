"""FSDP2 (`fully_shard`): weights in two halves, the loss as one graph, and the same losses as in one process.

    python examples/trainers/fsdp.py [--data FOLDER]

It starts itself twice under torchrun, over gloo on a CPU.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from claims import Record, claim
from common import Pictures, eager_losses, endless, loader_of, make_optimizer, make_step, read_options
from processes import mean_over_ranks, under_torchrun
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.utils.data import DistributedSampler

PROCESSES = 2


def main() -> None:
    options = read_options(__doc__)
    under_torchrun(PROCESSES)
    mesh = init_device_mesh("cpu", (PROCESSES,))
    pictures, rank, world = Pictures(options), dist.get_rank(), dist.get_world_size()

    step = make_step(pictures, distributed=True)
    # FSDP2 gathers weights in hooks around every module that it shards, which one graph of model and loss cannot hold.
    # The loss has no weights and is not sharded: it is a graph of its own, and so may be any module inside of those.
    for stage in step.model.stages:
        fully_shard(stage, mesh=mesh)
    fully_shard(step.model, mesh=mesh)
    step.criterion.compile(fullgraph=True, backend=options.backend)

    sampler = DistributedSampler(pictures, shuffle=False)
    loader = loader_of(pictures, options, batch_size=options.batch_size // world, sampler=sampler)
    optimizer, record = make_optimizer(step), Record()
    for images, targets in endless(loader, options.steps):
        # FSDP averages gradients as DDP does: `total / B` (which `Detection` returns), or `world * total`.
        loss = step(images, targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        record.step(mean_over_ranks(loss))

    sharded = [isinstance(weight, DTensor) for weight in step.parameters()]
    if rank == 0:
        print(f"fully_shard, {world} processes, torch {torch.__version__}")
        claim(f"all {len(sharded)} weights are sharded", all(sharded))
        record.prove(step.criterion, eager_losses(pictures, options))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
