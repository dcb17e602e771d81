"""Runs that leave no trace: what a function holds is restored, and random numbers repeat."""

import collections
import contextlib
import random
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from compiled_loss.audit.reach import State


@contextlib.contextmanager
def restored(state: State) -> Iterator[None]:
    """Run the block, then restore tensors, gradients, attributes, containers and random states."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    # If one part cannot be restored, the stack continues with the others. It runs in reverse order: containers before
    # what they hold.
    with contextlib.ExitStack() as after:
        for x in state.tensors.values():
            after.callback(_keep(x))
        for slot in (*state.slots, *state.bindings):
            after.callback(slot.put_back)
        for container in state.containers:
            after.callback(_put_back, container, container.copy())
        after.callback(torch.set_default_dtype, torch.get_default_dtype())
        after.callback(random.setstate, random.getstate())
        if numpy := sys.modules.get("numpy"):
            after.callback(numpy.random.set_state, numpy.random.get_state())
        with torch.random.fork_rng(devices=devices), torch.enable_grad():
            for x in state.tensors.values():
                if x.is_leaf and x.grad is not None:
                    x.grad = x.grad.clone()
            yield


def _keep(x: Tensor) -> Callable[[], None]:
    """A function that restores a tensor's memory, values, gradient and hooks as they are now."""
    memory, value, leaf, learns = x.detach(), x.detach().clone(), x.is_leaf, x.requires_grad
    gradient = x.grad if leaf else None
    hooks = {name: getattr(x, name, None) for name in ("_backward_hooks", "_post_accumulate_grad_hooks")}
    contents = {name: hook.copy() for name, hook in hooks.items() if hook is not None}

    @torch.no_grad()
    def put_back() -> None:
        if leaf and not x.is_leaf:  # a buffer, after values that require a gradient were written to it
            x.detach_()
        if x.layout is torch.strided and not x.is_set_to(memory):
            x.data = memory
        if not torch.equal(x, value):
            x.copy_(value)
        if leaf:
            x.requires_grad_(learns)
            x.grad = gradient
        for name, hook in hooks.items():
            if getattr(x, name, None) is not hook:
                setattr(x, name, hook)
            elif hook is not None:
                _put_back(hook, contents[name])

    return put_back


def _put_back(container: Any, content: Any) -> None:
    """Restore the content of a container if it has changed."""
    if hasattr(container, "dtype"):  # an array of objects
        container[...] = content
        return
    if isinstance(container, set):
        same = container == content
    else:
        same = len(container) == len(content) and all(x is y for x, y in zip(container, content, strict=True))
        same = same and (not isinstance(container, dict) or all(container[key] is content[key] for key in content))
    if same:
        return
    container.clear()
    if isinstance(container, list | collections.deque):
        container.extend(content)
    else:
        container.update(content)
