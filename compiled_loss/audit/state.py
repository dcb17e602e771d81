"""Runs that leave no trace: copies of the inputs, state of the function put back, random numbers replayed."""

import contextlib
import copy
import functools
import operator
import random
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from compiled_loss.audit.torch_private import copy_marks


class Outcome(NamedTuple):
    """What one call gave: every tensor it returned, and the gradients by the name of their tensor."""

    outputs: list[Tensor]
    gradients: dict[str, Tensor]
    differentiable: bool


class State(NamedTuple):
    """What a function can reach and change: modules, optimizers, and tensors outside of modules with their holders."""

    modules: dict[str, nn.Module]
    optimizers: list[torch.optim.Optimizer]
    tensors: dict[str, Tensor]
    holders: list[tuple[Any, Any]]  # (dict, list or cell, key) from where a tensor of `tensors` or a device is reached

    def parameters(self) -> dict[str, Tensor]:
        """Everything that can collect a gradient, by name."""
        found = {f"{name}.{key}": x for name, module in self.modules.items() for key, x in module.named_parameters()}
        return {name: x for name, x in (found | self.tensors).items() if x.requires_grad}

    def registered(self) -> list[Tensor]:
        """Parameters and buffers, which follow their module to a device."""
        return [x for module in self.modules.values() for x in (*module.parameters(), *module.buffers())]


def reachable(function: Callable[..., Any]) -> State:
    """Find the state that `function` holds: itself, its object, closure, defaults and the globals that it names."""
    state = State({}, [], {}, [])
    seen: set[int] = set()

    def look(name: str, value: Any, depth: int, holder: Any = None, key: Any = None) -> None:
        if isinstance(value, Tensor | torch.device) and holder is not None:
            state.holders.append((holder, key))
        if id(value) in seen or depth > 4:
            return
        seen.add(id(value))
        if isinstance(value, nn.Module):
            state.modules[name] = value
            for part in value.modules():
                for key, x in list(vars(part).items()):
                    if isinstance(x, torch.device):
                        state.holders.append((vars(part), key))
        elif isinstance(value, torch.optim.Optimizer):
            state.optimizers.append(value)
            parameters = [x for group in value.param_groups for x in group["params"]]
            state.tensors.update({f"{name}.{i}": x for i, x in enumerate(parameters)})
        elif isinstance(value, Tensor):
            state.tensors[name] = value
        elif isinstance(value, functools.partial):
            for i, x in enumerate((value.func, *value.args, *value.keywords.values())):
                look(f"{name}.{i}", x, depth + 1)
        elif isinstance(value, types.MethodType):
            look(name, value.__self__, depth + 1)
            look(name, value.__func__, depth + 1)
        elif isinstance(value, types.FunctionType):
            cells = zip(value.__code__.co_freevars, value.__closure__ or (), strict=True)
            for key, cell in cells:
                with contextlib.suppress(ValueError):  # an empty cell
                    look(key, cell.cell_contents, depth + 1, cell)
            for key in value.__code__.co_names:
                if key in value.__globals__ and not isinstance(value.__globals__[key], types.ModuleType):
                    look(key, value.__globals__[key], depth + 1, value.__globals__, key)
            if wrapped := getattr(value, "__wrapped__", None):
                look(name, wrapped, depth + 1)
        elif isinstance(value, dict | list | tuple):
            holder = None if isinstance(value, tuple) else value
            for key, x in list(value.items() if isinstance(value, dict) else enumerate(value)):
                look(f"{name}.{key}", x, depth + 1, holder, key)
        elif hasattr(value, "__dict__") and not isinstance(value, type | types.ModuleType):
            for key, x in list(vars(value).items()):
                look(f"{name}.{key}", x, depth + 1, vars(value), key)
            look(f"{name}.__call__", vars(type(value)).get("__call__"), depth + 1)

    look("self" if isinstance(function, nn.Module) else "function", function, 0)
    owned = {id(x) for x in state.registered()}
    for name in [name for name, x in state.tensors.items() if id(x) in owned]:
        del state.tensors[name]
    return state


@contextlib.contextmanager
def restored(state: State) -> Iterator[None]:
    """Run the block, then put parameters, buffers, gradients, optimizers and random numbers back."""
    tensors = [*state.registered(), *state.tensors.values()]
    values = [x.detach().clone() for x in tensors]
    gradients = [x.grad for x in tensors]
    optimizers = [copy.deepcopy(x.state_dict()) for x in state.optimizers]
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    python = random.getstate()
    try:
        with torch.random.fork_rng(devices=devices), torch.enable_grad():
            for x, gradient in zip(tensors, gradients, strict=True):
                x.grad = None if gradient is None else gradient.clone()
            yield
    finally:
        random.setstate(python)
        with torch.no_grad():
            for x, value, gradient in zip(tensors, values, gradients, strict=True):
                if not torch.equal(x, value):
                    x.copy_(value)
                x.grad = gradient
        for optimizer, saved in zip(state.optimizers, optimizers, strict=True):
            optimizer.load_state_dict(saved)


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
    outputs = tensors_of(function(*args))
    total = differentiable_sum(outputs) if backward else None
    gradients: dict[str, Tensor] = {}
    if total is not None:
        total.backward()
        leaves = named_tensors(args) | state.parameters()
        gradients = {name: x.grad.detach().clone() for name, x in leaves.items() if x.grad is not None}
    return Outcome([x.detach().clone() for x in outputs], gradients, total is not None)


def differentiable_sum(outputs: list[Tensor]) -> Tensor | None:
    """Sum of all floating outputs that require gradients, each entry with a weight of its own; None without any."""
    parts = []
    for x in outputs:
        if x.requires_grad and x.is_floating_point():
            weights = torch.linspace(1, 2, x.numel(), dtype=x.dtype, device=x.device)
            parts.append((x * weights.view(x.shape)).sum())
    return functools.reduce(operator.add, parts) if parts else None
