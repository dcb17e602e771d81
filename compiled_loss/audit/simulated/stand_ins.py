"""Replacements for functions of torch that do not know the simulated device."""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from compiled_loss.audit.simulated.tensor import DEVICE, SimulatedTensor
from compiled_loss.torch_private import replaced


@contextlib.contextmanager
def stand_ins(report: Callable[[str, str], None]) -> Iterator[None]:
    """Run the block with autocast, generators and `torch.cond` treating the simulated device as the CPU.

    Calls that wait for the device are reported. `torch.cond` waits, even when it is compiled: the host must know which
    of the branches to launch.
    """
    with contextlib.ExitStack() as stack:
        for name in ("autocast", "autocast state", "autocast dtype"):
            stack.enter_context(replaced(name, _on_cpu))
        stack.enter_context(replaced("generator", _generators_on_cpu))
        stack.enter_context(replaced("cond", partial(_chosen_by_value, report)))
        for name in ("synchronize", "any synchronize", "stream synchronize", "event synchronize"):
            stack.enter_context(replaced(name, partial(_waits, report)))
        yield


def _known(x: Any) -> Any:
    return "cpu" if isinstance(x, str | torch.device) and str(x) == DEVICE.type else x


def _on_cpu(original: Callable[..., Any]) -> Callable[..., Any]:
    def stands_in(*args: Any, **kwargs: Any) -> Any:
        return original(*map(_known, args), **{name: _known(x) for name, x in kwargs.items()})

    return stands_in


def _generators_on_cpu(original: Any) -> Any:
    class Kind(type(original)):
        def __instancecheck__(self, instance: Any) -> bool:
            return isinstance(instance, original)

    class Generator(original, metaclass=Kind):
        def __new__(cls, device: Any = "cpu") -> Any:
            return original(_known(device))

    return Generator


def _waits(report: Callable[[str, str], None], original: Callable[..., Any]) -> Callable[..., Any]:
    def synchronize(*args: Any, **kwargs: Any) -> Any:
        report("sync", "the host waits for the device")
        return original(*args, **kwargs)

    return synchronize


def _chosen_by_value(report: Callable[[str, str], None], original: Callable[..., Any]) -> Callable[..., Any]:
    def cond(pred: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(pred, SimulatedTensor):
            report("sync", "torch.cond reads its condition on the host")
            pred = bool(pred.held)
        return original(pred, *args, **kwargs)

    return cond
