"""A block of code on the simulated device."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from compiled_loss.audit.reach import State
from compiled_loss.audit.simulated.modes import Functions, Operators, Report
from compiled_loss.audit.simulated.stand_ins import stand_ins
from compiled_loss.audit.simulated.tensor import DEVICE, to_device
from compiled_loss.audit.trees import map_leaves


@contextlib.contextmanager
def simulation(report: Report, state: State) -> Iterator[list[Tensor]]:
    """Run the block with the simulated device; `report(kind, message)` is called at the offending operation.

    Parameters, buffers and what optimizers hold live on the device meanwhile, as if moved there by `.to(device)`, and
    so do the tensors of closures, globals and plain objects; devices that these keep are the simulated one. A plain
    tensor kept as a module's attribute stays on the host, as it would. Yields the leaves that collect gradients.
    """
    # What is found in no slot, as in a tuple, counts as being on the device where it is.
    resident = [x for x in state.tensors.values() if not any(x is slot.value for slot in state.slots)]
    resident = [x for x in resident if not _is_attribute(x, state)]
    copies: dict[int, Tensor] = {}
    try:
        for slot in state.slots:
            slot.set(_moved(slot.value, copies))
        with stand_ins(report), Functions(report), Operators(report, resident):
            yield [x for x in copies.values() if x.requires_grad]
    finally:
        for slot in state.slots:
            with contextlib.suppress(LookupError):  # a list is shorter now: its content is put back later
                slot.put_back()


def _is_attribute(x: Tensor, state: State) -> bool:
    return any(x is held for module in state.modules for held in vars(module).values())


def _moved(value: Any, copies: dict[int, Tensor]) -> Any:
    """What stands in for a tensor or a device; the same tensor gets the same copy, with its hooks."""
    if not isinstance(value, Tensor):
        return DEVICE if isinstance(value, torch.device) else DEVICE.type
    if id(value) not in copies:
        copy = copies[id(value)] = to_device(value)
        if value.is_leaf and value.grad is not None:
            copy.grad = to_device(value.grad)
        if value.requires_grad and value.is_leaf:
            copy._backward_hooks = value._backward_hooks
            hooks = getattr(value, "_post_accumulate_grad_hooks", None)
            if hooks is not None:
                copy._post_accumulate_grad_hooks = hooks  # type: ignore[attr-defined]
    return copies[id(value)]


def batch_on_device(batch: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments on the simulated device; a device among them is that one."""
    return map_leaves(_argument_on_device, batch)


def _argument_on_device(x: Any) -> Any:
    if isinstance(x, torch.device):
        return DEVICE
    return to_device(x) if isinstance(x, Tensor) else x
