"""A simulated device: tensors that claim to live on a device of their own while their values stay on the CPU.

A function runs on them as it would on a GPU, and everything that would wait for the device or mix devices is seen at
the line that does it. Unlike fake tensors these have values, so the run goes on after the first finding.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from compiled_loss.audit.reach import State
from compiled_loss.audit.torch_private import probe
from compiled_loss.audit.trees import map_leaves

DEVICE = torch.device("meta")
_aten = torch.ops.aten

# Operators whose output size depends on values, and what they are called in a program.
_DYNAMIC_SIZES = {
    _aten.nonzero: "nonzero",
    _aten.masked_select: "masked_select",
    _aten._unique2: "unique",
    _aten.unique_dim: "unique",
    _aten.unique_consecutive: "unique_consecutive",
    _aten.unique_dim_consecutive: "unique_consecutive",
    _aten.bincount: "bincount",
    _aten.combinations: "combinations",
}
_INDEXING = (_aten.index, _aten.index_put, _aten.index_put_, _aten._index_put_impl_, _aten._unsafe_index)
_MATERIALISE = {_aten.equal, _aten.allclose, _aten.is_nonzero, _aten._local_scalar_dense, _aten.item}
# Operators that check values, or fetch sizes and counts, before they return.
_WAITS = {
    _aten._linalg_check_errors: "the check for errors of a linear-algebra operator",
    _aten._linalg_eigh: "eigh",
    _aten._linalg_svd: "svd",
    _aten.linalg_eig: "eig",
    _aten.linalg_lstsq: "lstsq",
    _aten.multinomial: "multinomial",
    _aten.histc: "histc",
    _aten._to_sparse: "to_sparse",
}
# Methods that read memory without passing through an operator.
_READS = {
    Tensor.tolist: "tolist",
    Tensor.numpy: "numpy",
    Tensor.__array__: "numpy",
    Tensor.__repr__: "printing",
    Tensor.__format__: "formatting",
}
_MAKES = {torch.tensor: "tensor", torch.as_tensor: "as_tensor", torch.from_numpy: "from_numpy"}

Report = Callable[[str, str], None]  # (kind, what happened)


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


class _Operators(TorchDispatchMode):
    """Runs every operator on the CPU values and reports what a real device would wait for or refuse."""

    def __init__(self, report: Report, resident: list[Tensor]) -> None:
        super().__init__()
        self.report = report
        self.resident = {id(x): x for x in resident}

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """Compiled code inside the function runs as it is."""
        return True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [x for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        on_device = [x for x in tensors if self._is_on_device(x)]
        on_host = [x for x in tensors if not self._is_on_device(x)]
        wanted = kwargs.get("device")
        moves = wanted is not None and torch.device(wanted).type != DEVICE.type
        if on_device:
            self._report(func, args, kwargs, on_host, moves)
        elif on_host and wanted is not None and not moves:
            self.report("sync", "a tensor of the host's memory is copied to the device")
        plain_args, plain_kwargs = pytree.tree_map_only(SimulatedTensor, lambda x: x.held, (args, kwargs))
        if wanted is not None:
            plain_kwargs["device"] = torch.device("cpu")
        result = func(*plain_args, **plain_kwargs)
        stays = (bool(on_device) and not moves) or (wanted is not None and not moves)
        if func in (_aten.copy_.default, _aten.set_.source_Tensor):
            stays = self._is_on_device(args[0])
        if not stays:
            return result
        wrapped = pytree.tree_map_only(Tensor, _to_device, result)
        if any(isinstance(x, SimulatedTensor) for x in tensors):
            return probe("aliasing")(func, args, kwargs, wrapped)
        return wrapped

    def _is_on_device(self, x: Tensor) -> bool:
        return isinstance(x, SimulatedTensor) or id(x) in self.resident

    def _report(self, func: Any, args: Any, kwargs: Any, on_host: list[Tensor], moves: bool) -> None:
        packet = func.overloadpacket
        if packet in _INDEXING:
            masks = [x for x in args[1] if x is not None and x.dtype in (torch.bool, torch.uint8)]
            if masks:
                written = "written" if "put" in packet.__name__ else "read"
                self.report("dynamic-size", f"entries are {written} through a boolean mask")
        elif packet in _DYNAMIC_SIZES:
            self.report("dynamic-size", f"the size of {_DYNAMIC_SIZES[packet]}'s result depends on values")
        elif packet is _aten.repeat_interleave and kwargs.get("output_size") is None and len(args) < 3:
            self.report("dynamic-size", "the size of repeat_interleave's result depends on values")
        elif packet in _MATERIALISE:
            self.report("sync", "a value is read by the host")
        elif packet in _WAITS:
            self.report("sync", f"{_WAITS[packet]} waits for values")
        elif packet is _aten._to_copy and moves:
            self.report("sync", "a tensor is copied to the host")
        mixed = [x for x in on_host if x.dim() > 0]
        if packet is _aten.copy_:
            if on_host:
                self.report("sync", "a tensor is copied between the host and the device")
        elif mixed and packet not in _INDEXING:
            self.report("device", f"a tensor on the host meets tensors of the device in {packet.__name__}")
        elif packet in _INDEXING and not self._is_on_device(args[0]):
            self.report("device", "a tensor on the host is indexed with tensors of the device")
        elif packet in _INDEXING and mixed:
            self.report("sync", "an index on the host is copied to the device")


class _Functions(TorchFunctionMode):
    """Sees what does not reach an operator: memory read as Python or NumPy values, and constants made from them."""

    def __init__(self, report: Report) -> None:
        super().__init__()
        self.report = report

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _READS and isinstance(args[0], SimulatedTensor):
            self.report("sync", f"all values are read by the host ({_READS[func]})")
            return func(args[0].held.detach(), *args[1:], **kwargs)
        if func is Tensor.new_tensor and isinstance(args[0], SimulatedTensor):
            self.report("sync", "new_tensor copies values from the host")
            return _to_device(func(args[0].held, *args[1:], **kwargs))
        device = kwargs.get("device")
        if func in _MAKES and device is not None and torch.device(device).type == DEVICE.type:
            data = args[0] if args else kwargs.get("data")
            if isinstance(data, Tensor):
                return func(*args, **kwargs)
            self.report("sync", f"{_MAKES[func]}(..., device=...) copies values from the host")
            return _to_device(func(*args, **kwargs | {"device": "cpu"}))
        return func(*args, **kwargs)


@contextlib.contextmanager
def simulation(report: Report, state: State) -> Iterator[list[Tensor]]:
    """Run the block with the simulated device; `report(kind, message)` is called at the offending operation.

    Parameters, buffers and what optimizers hold live on the device meanwhile, as if moved there by `.to(device)`, and
    so do the tensors of closures, globals and plain objects; devices that these keep are the simulated one. A plain
    tensor kept as a module's attribute stays on the host, as it would. Yields the leaves that collect gradients.
    """
    autocast = torch.amp.autocast_mode.autocast
    original = autocast.__init__

    def on_cpu(self: Any, device_type: str, *args: Any, **kwargs: Any) -> None:
        original(self, "cpu" if device_type == DEVICE.type else device_type, *args, **kwargs)

    autocast.__init__ = on_cpu  # autocast does not know the simulated device
    # What is found in no slot, as in a tuple, counts as being on the device where it is.
    resident = [x for x in state.tensors.values() if not any(x is slot.value for slot in state.slots)]
    resident = [x for x in resident if not _is_attribute(x, state)]
    copies: dict[int, Tensor] = {}
    try:
        for slot in state.slots:
            slot.set(_moved(slot.value, copies))
        with _Functions(report), _Operators(report, resident):
            yield [x for x in copies.values() if x.requires_grad]
    finally:
        autocast.__init__ = original
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


def to_device(x: Tensor) -> Tensor:
    """A leaf on the simulated device with the values of `x`."""
    return _to_device(x.detach().clone()).requires_grad_(x.requires_grad)


def batch_on_device(batch: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments on the simulated device; a device among them is that one."""
    return map_leaves(_argument_on_device, batch)


def _argument_on_device(x: Any) -> Any:
    if isinstance(x, torch.device):
        return DEVICE
    return to_device(x) if isinstance(x, Tensor) else x


def _to_device(x: Tensor) -> Tensor:
    return x if isinstance(x, SimulatedTensor) else SimulatedTensor(x)
