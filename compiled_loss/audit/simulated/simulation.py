"""Running a block of code on the simulated device."""

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from compiled_loss.audit.reach import State
from compiled_loss.audit.simulated.modes import Flights, Functions, Operators, Report
from compiled_loss.audit.simulated.stand_ins import stand_ins
from compiled_loss.audit.simulated.tensor import DEVICE, Home, to_device
from compiled_loss.audit.trees import map_leaves


class Simulation:
    """The stand-ins for the tensors of a function and of its arguments."""

    def __init__(self, report: Report, home: Home) -> None:
        self.home = home
        self.flights = Flights(report)
        self.copies: dict[int, Tensor] = {}

    def learnt(self) -> list[Tensor]:
        """The leaves that collect gradients, except those among the arguments."""
        return [x for x in self.copies.values() if x.requires_grad]

    def batch(self, batch: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments on the simulated device; a device among them becomes that device."""
        return map_leaves(self._argument, batch)

    def _argument(self, x: Any) -> Any:
        if isinstance(x, Tensor):
            own = x.detach().clone().requires_grad_(x.requires_grad)
            return to_device(x) if self.home.has(x.device) else own
        return self.moved(x) if _may_move(x) else x

    def moved(self, value: Any) -> Any:
        """The stand-in for a tensor or a device, or for something immutable that holds one."""
        if isinstance(value, tuple | frozenset):
            return _remade(value, [self.moved(x) if _may_move(x) else x for x in value])
        if not self.home.has(value.device if isinstance(value, Tensor) else value):
            return value
        if not isinstance(value, Tensor):
            return DEVICE if isinstance(value, torch.device) else DEVICE.type
        return self._copy(value)

    def _copy(self, value: Tensor) -> Tensor:
        """The copy of a tensor, with its hooks; the same tensor always gets the same copy."""
        if id(value) not in self.copies:
            copy = self.copies[id(value)] = to_device(value)
            if value.is_leaf and value.grad is not None:
                copy.grad = to_device(value.grad)
            if value.requires_grad and value.is_leaf:
                copy._backward_hooks = value._backward_hooks
                hooks = getattr(value, "_post_accumulate_grad_hooks", None)
                if hooks is not None:
                    copy._post_accumulate_grad_hooks = hooks  # type: ignore[attr-defined]
        return self.copies[id(value)]


@contextlib.contextmanager
def simulation(
    report: Report, state: State, device: torch.device, batches: Iterable[tuple[Any, ...]]
) -> Iterator[tuple[Simulation, list[tuple[Any, ...]]]]:
    """Run the block with the simulated device in place of `device`, on which the inputs are.

    `report(kind, message)` is called at each offending operation. Yields the simulation and the batches on its device.

    Meanwhile, parameters, buffers and what optimizers hold are on the simulated device, as if moved by `.to(device)`.
    So are the tensors of closures, globals and plain objects, and devices that these hold become the simulated one. A
    plain tensor attribute of a module stays on the host, as it would with `.to(device)`.
    """
    simulated = Simulation(report, Home(device))
    home, flights = simulated.home, simulated.flights
    moved = [simulated.batch(batch) for batch in batches]  # before the slots change
    try:
        for slot in state.slots:
            slot.set(simulated.moved(slot.value))
        # A tensor on `device` that no slot holds is not replaced, but counts as being on the simulated device.
        resident = [
            x
            for x in state.tensors.values()
            if home.has(x.device) and id(x) not in simulated.copies and not _is_attribute(x, state)
        ]
        with stand_ins(flights.report), Functions(flights, home), Operators(flights, home, resident):
            yield simulated, moved
    finally:
        for slot in state.slots:
            with contextlib.suppress(LookupError):  # a list has become shorter: its content is restored later
                slot.put_back()


def _may_move(x: Any) -> bool:
    return isinstance(x, Tensor | torch.device | tuple | frozenset)


def _remade(value: Any, parts: list[Any]) -> Any:
    """A tuple, named tuple or frozen set of the same type with other parts."""
    if hasattr(value, "_make"):
        return value._make(parts)
    return type(value)(parts)


def _is_attribute(x: Tensor, state: State) -> bool:
    return any(x is held for module in state.modules for held in vars(module).values())
