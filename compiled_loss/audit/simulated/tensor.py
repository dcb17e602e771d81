"""The tensors of the simulated device."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

DEVICE = torch.device("meta")


class SimulatedTensor(Tensor):
    """A tensor on the simulated device; `held` has its values on the CPU."""

    held: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> "SimulatedTensor":
        return Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            layout=inner.layout,
            device=DEVICE,
        )

    def __init__(self, inner: Tensor) -> None:
        self.held = inner

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError("a tensor of the simulated device was used outside its simulation")


def wrapped(x: Tensor) -> Tensor:
    """The tensor on the simulated device that holds `x` itself."""
    return x if isinstance(x, SimulatedTensor) else SimulatedTensor(x)


def to_device(x: Tensor) -> Tensor:
    """A leaf on the simulated device with the values of `x`."""
    return wrapped(x.detach().to("cpu", copy=True)).requires_grad_(x.requires_grad)


class Home(NamedTuple):
    """The device of the inputs, which the simulated device stands for."""

    device: torch.device

    def has(self, device: Any) -> bool:
        """Whether this names that device; `cuda` is the current CUDA device."""
        named = torch.device(device)
        if named.type == self.device.type and named.type != "cpu" and named.index is None:
            named = torch.device(named.type, torch.accelerator.current_device_index())
        return named.type == DEVICE.type or named == self.device

    def is_simulated(self, device: Any) -> bool:
        """Whether this names it within the simulation, where the CPU is always the host."""
        return torch.device(device).type != "cpu" and self.has(device)
