"""A file as a user has it, for the command to audit."""

from compiled_loss.__main__ import main

QUICK = [x for name in ("device", "recompiles", "numbers", "cudagraphs", "gpu") for x in ("--skip", name)]

MINE = """
from __future__ import annotations

import dataclasses

import torch

import sibling

limit = 3


@dataclasses.dataclass
class Scaled:
    factor: float = 2.0

    def __call__(self, x):
        return x * self.factor


scaled = Scaled()
few = [torch.ones(2), torch.ones(3)]


def clean(x):
    print("noise")
    return sibling.double(x)


def quiet(x):
    return sibling.double(x)


def breaks(x):
    return x * x.sum().item()


def raises(x):
    raise RuntimeError("never works")


def leaves(x):
    raise SystemExit(0)


def batches():
    print("making batches")
    yield torch.ones(3, requires_grad=True)
    yield torch.ones(3)


def nothing():
    return []


def broken_batches():
    yield torch.ones(3)
    raise RuntimeError("no more data")


def one_tensor():
    return torch.ones(3, 3)


def one_dict():
    return {"x": torch.ones(3)}


def pairs():
    yield torch.ones(3), torch.ones(3)
"""


def run(*arguments: object) -> int:
    """The exit status of the command, with the quick stages alone."""
    return main(["audit", *map(str, arguments), *QUICK])
