"""Runs that leave no trace: copies of the inputs, state of the function put back, random numbers replayed."""

import contextlib
import functools
import operator
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from compiled_loss.audit.reach import State
from compiled_loss.audit.torch_private import copy_marks


class Outcome(NamedTuple):
    """What one call gave.

    Args:
        outputs: every tensor it returned.
        gradients: by the name of their tensor.
        differentiable: whether an output requires a gradient.
        others: what it returned besides tensors.
        written: inputs and buffers after the call, by name.
    """

    outputs: list[Tensor]
    gradients: dict[str, Tensor]
    differentiable: bool
    others: list[Any]
    written: dict[str, Tensor]


@contextlib.contextmanager
def restored(state: State) -> Iterator[None]:
    """Run the block, then put tensors, gradients, attributes, containers and random numbers back."""
    tensors = list(state.tensors.values())
    values = [x.detach().clone() for x in tensors]
    gradients = [x.grad if x.is_leaf else None for x in tensors]
    contents = [x.copy() for x in state.containers]
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    python, numpy = random.getstate(), sys.modules.get("numpy")
    drawn = numpy.random.get_state() if numpy else None
    try:
        with torch.random.fork_rng(devices=devices), torch.enable_grad():
            for x, gradient in zip(tensors, gradients, strict=True):
                if gradient is not None:
                    x.grad = gradient.clone()
            yield
    finally:
        random.setstate(python)
        if numpy:
            numpy.random.set_state(drawn)
        for container, content in zip(state.containers, contents, strict=True):
            _put_back(container, content)
        for slot in state.slots:
            slot.set(slot.value)
        with torch.no_grad():
            for x, value, gradient in zip(tensors, values, gradients, strict=True):
                if not torch.equal(x, value):
                    x.copy_(value)
                if x.is_leaf:
                    x.grad = gradient


def _put_back(container: Any, content: Any) -> None:
    if isinstance(container, list):
        if len(container) != len(content) or any(x is not y for x, y in zip(container, content, strict=True)):
            container[:] = content
    elif isinstance(container, dict):
        if list(container) != list(content) or any(container[key] is not content[key] for key in content):
            container.clear()
            container.update(content)
    elif container != content:
        container.clear()
        container.update(content)


def fresh(batch: tuple[Any, ...]) -> tuple[Any, ...]:
    """A copy of the arguments: own memory, leaves where the originals require gradients, marks kept."""

    def copied(x: Tensor) -> Tensor:
        return copy_marks(x, x.detach().clone().requires_grad_(x.requires_grad))

    return pytree.tree_map_only(Tensor, copied, batch)


def tensors_of(tree: Any) -> list[Tensor]:
    """All tensors of a pytree, in order."""
    return [x for x in pytree.tree_leaves(tree) if isinstance(x, Tensor)]


def named_tensors(batch: Sequence[Any]) -> dict[str, Tensor]:
    """The tensors among the arguments by their path, as `args[0].boxes`."""
    leaves, _ = pytree.tree_flatten_with_path(tuple(batch))
    return {f"args{pytree.keystr(path)}": x for path, x in leaves if isinstance(x, Tensor)}


def call(function: Callable[..., Any], batch: tuple[Any, ...], state: State, *, backward: bool) -> Outcome:
    """Call on a copy of the batch; with `backward`, differentiate the sum of all outputs that require it."""
    args = fresh(batch)
    returned = function(*args)
    outputs = tensors_of(returned)
    others = [x for x in pytree.tree_leaves(returned) if not isinstance(x, Tensor)]
    total = differentiable_sum(outputs) if backward else None
    leaves = named_tensors(args)
    gradients: dict[str, Tensor] = {}
    if total is not None:
        total.backward()
        found = {name: x.grad for name, x in (leaves | state.learnt()).items() if x.is_leaf}
        gradients = {name: x.detach().clone() for name, x in found.items() if x is not None}
    written = {name: x.detach().clone() for name, x in (leaves | state.buffers()).items()}
    return Outcome([x.detach().clone() for x in outputs], gradients, total is not None, others, written)


def differentiable_sum(outputs: list[Tensor]) -> Tensor | None:
    """Sum of all floating outputs that require gradients, each entry with a weight of its own; None without any."""
    parts = []
    for x in outputs:
        if x.requires_grad and x.is_floating_point():
            weights = torch.linspace(1, 2, x.numel(), dtype=x.dtype, device=x.device)
            parts.append((x * weights.view(x.shape)).sum())
    return functools.reduce(operator.add, parts) if parts else None
