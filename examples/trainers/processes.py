"""A program that starts itself in several processes."""

from __future__ import annotations

import os
import subprocess
import sys

import torch.distributed as dist
from torch import Tensor


def under_torchrun(count: int) -> None:
    """Go on in each of `count` processes that torchrun starts of this program; end in the one that starts them."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
        sys.exit(subprocess.run([sys.executable, *launcher, *sys.argv]).returncode)


def mean_over_ranks(loss: Tensor) -> float:
    """What to report: the loss of the joined batch."""
    mean = loss.detach().clone()
    dist.all_reduce(mean)
    return mean.item() / dist.get_world_size()
