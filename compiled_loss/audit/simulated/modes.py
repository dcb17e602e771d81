"""Runs every operator and function on values on the CPU, and reports what a real device would wait for or refuse."""

from collections.abc import Callable
from numbers import Integral, Number
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from compiled_loss.audit.simulated.rules import FACTORIES, arrives_later, faults_of, is_mask, reads_memory
from compiled_loss.audit.simulated.tensor import Home, SimulatedTensor, wrapped
from compiled_loss.torch_private import probe

_aten = torch.ops.aten

# Methods that read memory without calling an operator.
_READS = {
    Tensor.tolist: "tolist",
    Tensor.numpy: "numpy",
    Tensor.__array__: "numpy",
    Tensor.__repr__: "printing",
    Tensor.__format__: "formatting",
    Tensor.__reduce_ex__: "pickling",
}
_MAKES = {
    torch.tensor: "tensor",
    torch.as_tensor: "as_tensor",
    torch.from_numpy: "from_numpy",
    Tensor.new_tensor: "new_tensor",
}

_WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8)

Report = Callable[[str, str], None]  # (kind, what happened)


class Flights:
    """Host memory that is the target of copies which nobody has waited for yet."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._storages: dict[int, Any] = {}  # kept alive, so that no other memory gets the same address

    def report(self, kind: str, message: str) -> None:
        """Report something. Whatever waits for the device also waits for these copies."""
        if kind in ("sync", "dynamic-size"):
            self.land()
        self._report(kind, message)

    def land(self) -> None:
        """All copies have arrived."""
        self._storages.clear()

    def depart(self, x: Tensor) -> None:
        """A copy to this tensor has begun."""
        storage = x.untyped_storage()
        self._storages[storage._cdata] = storage

    def check(self, x: Tensor) -> None:
        """Report, once, a tensor that is read now although a copy to it may not have arrived."""
        if not self._storages or isinstance(x, SimulatedTensor) or x.layout is not torch.strided:
            return
        if self._storages.pop(x.untyped_storage()._cdata, None) is not None:
            self._report("sync", "a copy to the host is read before it has arrived: nothing waits for it")


class Operators(TorchDispatchMode):
    """Handles every operator; `resident` are plain tensors that count as being on the device."""

    def __init__(self, flights: Flights, home: Home, resident: list[Tensor]) -> None:
        super().__init__()
        self.flights = flights
        self.home = home
        self.resident = {id(x): x for x in resident}

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """True: compiled code inside the function runs unchanged."""
        return True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [x for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        on_device = [x for x in tensors if self._is_on_device(x)]
        on_host = [x for x in tensors if not self._is_on_device(x)]
        wanted = kwargs.get("device")
        stays = wanted is None or self.home.is_simulated(wanted)
        moves = wanted is not None and torch.device(wanted).type == "cpu"
        later = arrives_later(func, args, kwargs)
        if not stays and not moves:
            self.flights.report("device", f"a tensor is put on {wanted}, but the inputs are on {self.home.device}")
        # A copy back to the device is queued after the one from it, so it need not wait for the host.
        queued = later and (bool(on_device) or (wanted is not None and stays))
        if on_host and not queued and reads_memory(func):
            for x in on_host:
                self.flights.check(x)
        if on_device:
            for kind, message in faults_of(func, args, kwargs, on_host, moves=moves):
                self.flights.report(kind, message)
        elif on_host and wanted is not None and stays and not later and func.overloadpacket not in FACTORIES:
            self.flights.report("sync", "a tensor of the host's memory is copied to the device")
        plain_args, plain_kwargs = pytree.tree_map_only(SimulatedTensor, lambda x: x.held, (args, kwargs))
        if wanted is not None:
            plain_kwargs["device"] = torch.device("cpu")
        result = func(*plain_args, **plain_kwargs)
        if func in (_aten.copy_.default, _aten.set_.source_Tensor):
            stays = self._is_on_device(args[0])
        elif wanted is None:
            stays = bool(on_device) and (func.overloadpacket not in FACTORIES or "out" in kwargs)
        if not stays:
            if later and on_device:
                self.flights.depart(result)
            return result
        result = pytree.tree_map_only(Tensor, wrapped, result)
        if any(isinstance(x, SimulatedTensor) for x in tensors):
            return probe("aliasing")(func, args, kwargs, result)
        return result

    def _is_on_device(self, x: Tensor) -> bool:
        return isinstance(x, SimulatedTensor) or id(x) in self.resident


class Functions(TorchFunctionMode):
    """Handles what calls no operator: reading memory as Python or NumPy values, and making constants from them."""

    def __init__(self, flights: Flights, home: Home) -> None:
        super().__init__()
        self.flights = flights
        self.report = flights.report
        self.home = home

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _READS and not isinstance(args[0], SimulatedTensor):
            self.flights.check(args[0])
        elif func in _READS:
            self.report("sync", f"all values are read by the host ({_READS[func]})")
            return func(args[0].held.detach(), *args[1:], **kwargs)
        if func in _MAKES:
            return self._make(func, args, kwargs)
        if func is Tensor.__setitem__ and _writes_a_number_through_a_mask(*args):
            # A GPU tensor takes the number from the host; tensors of other devices would copy it to the device first.
            return func(args[0], args[1], torch.tensor(args[2], dtype=args[0].dtype))
        if func is Tensor.__setitem__ and _copies_a_number(*args):
            self.report("sync", "entries are set to a number, which is copied from the host")
        return func(*args, **kwargs)

    def _make(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Make a tensor from host values; device values among them are read one by one."""
        device = kwargs.get("device")
        first = 1 if func is Tensor.new_tensor else 0
        data = kwargs.get("data") if len(args) <= first else args[first]
        if any(isinstance(x, SimulatedTensor) for x in pytree.tree_leaves(data)) and not isinstance(data, Tensor):
            self.report("sync", f"{_MAKES[func]} reads values of the device one by one")
            data = pytree.tree_map_only(SimulatedTensor, lambda x: x.held.detach(), data)
            args, kwargs = (*args[:first], data, *args[first + 1 :]), {k: x for k, x in kwargs.items() if k != "data"}
        if first and isinstance(args[0], SimulatedTensor):
            self.report("sync", "new_tensor copies values from the host")
            return wrapped(func(args[0].held, *args[1:], **kwargs))
        if isinstance(data, Tensor) or device is None or not self.home.is_simulated(device):
            return func(*args, **kwargs)
        self.report("sync", f"{_MAKES[func]}(..., device=...) copies values from the host")
        return wrapped(func(*args, **kwargs | {"device": "cpu"}))


def _writes_a_number_through_a_mask(target: Tensor, index: Any, value: Any) -> bool:
    """Whether one mask is the only index that is not plain: on a GPU, writing a number there is only a fill."""
    if not isinstance(target, SimulatedTensor) or not isinstance(value, Number):
        return False
    others = [x for x in _places(index) if not _is_plain(x)]
    return len(others) == 1 and is_mask(others[0]) and others[0].dim() > 0


def _copies_a_number(target: Tensor, index: Any, value: Any) -> bool:
    """Whether torch copies the number to the device: it does so for a single entry, and for entries given by an index.

    It fills a slice without a copy.
    """
    if not isinstance(target, SimulatedTensor) or not isinstance(value, Number):
        return False
    if all(map(_is_plain, _places(index))):
        return target.held.detach()[index].dim() == 0
    return any(isinstance(x, list | tuple) or (isinstance(x, Tensor) and x.dim() > 0) for x in _places(index))


def _places(index: Any) -> tuple[Any, ...]:
    return index if isinstance(index, tuple) else (index,)


def _is_plain(x: Any) -> bool:
    """Whether an index selects a row or a view."""
    if isinstance(x, Tensor):
        return not isinstance(x, SimulatedTensor) and x.dim() == 0 and x.dtype in _WHOLE
    return x is None or x is ... or (isinstance(x, Integral | slice) and not isinstance(x, bool))
