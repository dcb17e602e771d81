"""One call on a copy of the inputs, and its results."""

import functools
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from compiled_loss.audit.reach import State
from compiled_loss.audit.trees import leaves_of, map_tensors, others_of, tensors_of
from compiled_loss.torch_private import copy_marks


class Outcome(NamedTuple):
    """The results of one call.

    Args:
        outputs: every tensor it returned.
        gradients: gradients by the name of their tensor.
        differentiable: whether an output requires a gradient.
        others: what it returned besides tensors.
        written: inputs and buffers after the call, by name.
    """

    outputs: list[Tensor]
    gradients: dict[str, Tensor]
    differentiable: bool
    others: list[Any]
    written: dict[str, Tensor]

    def forward(self) -> dict[str, Tensor]:
        """Outputs and written tensors, by their names in a report."""
        outputs = {f"output {i}": x for i, x in enumerate(self.outputs)}
        return outputs | {f"{name} after the call": x for name, x in self.written.items()}

    def backward(self) -> dict[str, Tensor]:
        """Gradients, by their names in a report."""
        return {f"gradient of {name}": x for name, x in self.gradients.items()}


def fresh(batch: tuple[Any, ...]) -> tuple[Any, ...]:
    """A copy of the arguments with its own memory; tensors keep `requires_grad`, as leaves, and their marks."""

    def copied(x: Tensor) -> Tensor:
        return copy_marks(x, x.detach().clone().requires_grad_(x.requires_grad))

    return map_tensors(copied, batch)


def call(function: Callable[..., Any], batch: tuple[Any, ...], state: State, *, backward: bool) -> Outcome:
    """Call on a copy of the batch; with `backward`, differentiate the sum of all outputs that require gradients.

    Raises:
        RuntimeError: if the function ends the process, which would end the audit as if nothing were wrong.
    """
    args = fresh(batch)
    try:
        returned = function(*args)
    except SystemExit as error:
        raise RuntimeError(f"it ends the process (SystemExit: {error.code})") from error
    outputs = tensors_of(returned)
    others = list(others_of(returned).values())
    total = differentiable_sum(outputs) if backward else None
    leaves = {f"args{name}": x for name, x in leaves_of(args) if isinstance(x, Tensor)}
    gradients: dict[str, Tensor] = {}
    if total is not None:
        total.backward()
        found = {name: x.grad for name, x in (leaves | state.learnt()).items() if x.is_leaf}
        gradients = {name: x.detach().clone() for name, x in found.items() if x is not None}
    written = {name: x.detach().clone() for name, x in (leaves | state.buffers()).items()}
    return Outcome([x.detach().clone() for x in outputs], gradients, total is not None, others, written)


def differentiable_sum(outputs: list[Tensor]) -> Tensor | None:
    """Sum of all outputs that require gradients, with a different weight for each entry; None if there are none.

    Real and imaginary parts of complex outputs count as separate entries.
    """
    parts = []
    for x in outputs:
        if x.requires_grad:
            x = torch.view_as_real(x.resolve_conj()) if x.is_complex() else x
            weights = torch.linspace(1, 2, x.numel(), dtype=x.dtype, device=x.device)
            parts.append((x * weights.view(x.shape)).sum())
    return functools.reduce(operator.add, parts) if parts else None
