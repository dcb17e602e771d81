"""Everything that a function can reach and change: modules, optimizers, tensors, and the places that hold them."""

import argparse
import collections
import contextlib
import contextvars
import functools
import gc
import itertools
import sys
import threading
import types
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from compiled_loss.audit.slots import Slot, arguments, attribute, default, item, member, state_of_generator, variable
from compiled_loss.audit.unseen import types_with_tensors

# Limits of a walk, so that it does not search data sets and caches.
_DEPTH, _LENGTH, _OBJECTS = 8, 1000, 20_000
# Library objects that hold only what their users put into them.
_HOLDERS = (
    *(types.SimpleNamespace, argparse.Namespace, threading.local),
    *(collections.UserDict, collections.UserList, collections.ChainMap),
)
_OPEN = ("torch.optim", "torch.distributions")
_LIBRARIES = {"torch", "torchgen", "functorch", "numpy", "builtins", "triton", *sys.stdlib_module_names}


class State(NamedTuple):
    """What a function holds.

    Args:
        modules: every module, including submodules.
        tensors: every tensor by name, including those of modules and optimizers.
        slots: places that hold tensors or devices, without tensor attributes of modules, which `.to` does not move.
        bindings: what a call may rebind outside of containers: globals, closures, attributes of classes, `__slots__`;
            also the states of random generators.
        containers: dicts, lists, deques, sets and arrays of objects whose contents a call may change.
        unseen: types of arguments that hold tensors which the walk did not reach.
        closed: types of other objects with such tensors, which the walk does not enter.
    """

    modules: list[nn.Module]
    tensors: dict[str, Tensor]
    slots: list[Slot]
    bindings: list[Slot]
    containers: list[Any]
    unseen: list[str]
    closed: list[str]

    def learnt(self) -> dict[str, Tensor]:
        """Leaves that collect a gradient, by name."""
        return {name: x for name, x in self.tensors.items() if x.requires_grad and x.is_leaf}

    def buffers(self) -> dict[str, Tensor]:
        """Tensors that a call may write to without learning, by name."""
        return {name: x for name, x in self.tensors.items() if not x.requires_grad}


def reachable(function: Any, batches: Any = ()) -> State:
    """Walk from a function, and from its arguments that are not tensors, through everything that they hold."""
    walk = _Walk()
    walk.look("self" if isinstance(function, nn.Module) else "", function)
    for i, x in enumerate(batches):
        walk.look(f"args{i}", x)
    unseen, closed = (types_with_tensors(x, walk.seen) for x in (batches, walk.closed))
    return State(walk.modules, walk.tensors, walk.slots, walk.bindings, walk.containers, unseen, closed)


class _Walk:
    def __init__(self) -> None:
        self.modules: list[nn.Module] = []
        self.tensors: dict[str, Tensor] = {}
        self.slots: list[Slot] = []
        self.bindings: list[Slot] = []
        self.containers: list[Any] = []
        self.closed: list[Any] = []
        self.seen: dict[int, Any] = {}

    def look(self, name: str, value: Any, place: Slot | None = None, depth: int = 0) -> None:
        """Note a value and continue with what it holds; `place` is where it was found, if it can be set there."""
        with contextlib.suppress(Exception):  # an object that fails ends only its own branch of the walk
            if place is not None and _follows_the_device(name, value):
                self.slots.append(place)
            if id(value) in self.seen or depth > _DEPTH or len(self.seen) > _OBJECTS:
                return
            if value is None or isinstance(value, str | bytes | int | float | complex | torch.device | torch.dtype):
                return
            self.seen[id(value)] = value
            self._enter(name, value, depth + 1)

    def bind(self, name: str, place: Slot, depth: int) -> None:
        """Look at the value of a name that a call may rebind."""
        self.bindings.append(place)
        self.look(name, place.value, place, depth)

    def _enter(self, name: str, value: Any, depth: int) -> None:
        if isinstance(value, Tensor):
            self._note(name or "tensor", value)
        elif isinstance(value, functools.partial):
            self.look(f"{name}.0", value.func, None, depth)
            self.look(f"{name}.1", value.args, arguments(value), depth)
            self.look(f"{name}.2", value.keywords, None, depth)
        elif isinstance(value, types.MethodType):
            self.look(name, value.__self__, None, depth)
            self.look(name, value.__func__, None, depth)
        elif isinstance(value, types.FunctionType):
            self._function(name, value, depth)
        elif isinstance(value, types.MappingProxyType):  # a view of a mapping that may change
            self.look(name, gc.get_referents(value)[0], None, depth)
        elif isinstance(value, contextvars.ContextVar):
            self.bind(name, variable(value), depth)
        elif isinstance(value, dict | list | tuple | set | frozenset | collections.deque):
            self._container(name, value, depth)
            if not _is_library(type(value).__module__):
                self._object(name, value, depth)
        elif _is_array_of_objects(value):
            self._array(name, value, depth)
        elif isinstance(value, torch.jit.ScriptModule):  # Python cannot reach what it holds
            for key, x in value.state_dict(keep_vars=True).items():
                self._note(_join(name, key), x)
        elif generator := state_of_generator(value):
            self.bindings.append(generator)
        elif isinstance(value, types.BuiltinFunctionType):
            self.closed.append(value)
        elif isinstance(value, type):
            for base in value.__mro__:
                if not _is_library(base.__module__):
                    self._attributes(name, base, depth)
        elif not isinstance(value, types.ModuleType):
            self._object(name, value, depth)

    def _note(self, name: str, tensor: Tensor) -> None:
        """Note a tensor; a number is added if another tensor has the same name, as in two closures."""
        names = (name if i == 1 else f"{name} ({i})" for i in itertools.count(1))
        self.tensors[next(x for x in names if x not in self.tensors)] = tensor

    def _container(self, name: str, value: Any, depth: int) -> None:
        if len(value) > _LENGTH:
            return
        if not isinstance(value, tuple | frozenset):
            self.containers.append(value)
        for key, x in list(value.items() if isinstance(value, dict) else enumerate(value)):
            place = None
            if isinstance(value, set):
                place = member(value, x)
            elif not isinstance(value, tuple | frozenset):
                place = item(value, key, x)
            self.look(_join(name, key), x, place, depth)

    def _array(self, name: str, value: Any, depth: int) -> None:
        if value.size > _LENGTH:
            return
        self.containers.append(value)
        for i in range(value.size):
            key = tuple(int(x) for x in sys.modules["numpy"].unravel_index(i, value.shape))
            self.look(_join(name, i), value[key], item(value, key, value[key]), depth)

    def _function(self, name: str, function: types.FunctionType, depth: int) -> None:
        if _is_library(function.__module__):
            return
        for key, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            with contextlib.suppress(ValueError):  # an empty cell
                self.bind(key, attribute(cell, "cell_contents", setattr), depth)
        defaults = function.__defaults__ or ()
        parameters = function.__code__.co_varnames[: function.__code__.co_argcount]
        for i, key in enumerate(parameters[len(parameters) - len(defaults) :]):
            self.bind(_join(name, key), default(function, i), depth)
        if function.__kwdefaults__:
            self.look(name, function.__kwdefaults__, None, depth)
        self.look(name, getattr(function, "__wrapped__", None), None, depth)
        self._container(name, vars(function), depth)
        names = _names(function.__code__)
        for key in names & function.__globals__.keys():
            x = function.__globals__[key]
            if isinstance(x, types.ModuleType):
                self._module_attributes(x, names, depth)
            else:
                self.bind(key, item(function.__globals__, key, x), depth)

    def _module_attributes(self, module: types.ModuleType, names: set[str], depth: int) -> None:
        if not _is_library(module.__name__):
            for key in names & vars(module).keys():
                self.bind(key, item(vars(module), key, vars(module)[key]), depth)

    def _object(self, name: str, value: Any, depth: int) -> None:
        if isinstance(value, nn.Module):
            self.modules.append(value)
        kind = type(value)
        if _is_library(kind.__module__) and not isinstance(value, (nn.Module, *_HOLDERS)) and not _is_open(kind):
            self.closed.append(value)
            return
        held = getattr(value, "__dict__", None)
        if held is not None:
            self.containers.append(held)
            for key, x in list(held.items()):
                if isinstance(value, nn.Module) and key in ("_parameters", "_buffers", "_modules"):
                    # Without the dict's own name: the names are those of the module's members.
                    self._container(name, x, depth)
                    continue
                stays = isinstance(value, nn.Module) and isinstance(x, Tensor)
                self.look(_join(name, key), x, None if stays else item(held, key, x), depth)
        for base in kind.__mro__:
            if not _is_library(base.__module__):
                self._class(name, base, value, depth)

    def _class(self, name: str, kind: type, value: Any, depth: int) -> None:
        for key in getattr(kind, "__slots__", ()):
            if isinstance(key, str) and hasattr(value, key):
                # The `__setattr__` of a frozen dataclass would refuse.
                self.bind(_join(name, key), attribute(value, key, object.__setattr__), depth)
        self._attributes(name, kind, depth)
        for x in list(vars(kind).values()):
            x = (
                x.fget if isinstance(x, property) else getattr(x, "__func__", x)
            )  # the function of a static or a class method
            if isinstance(x, types.FunctionType):
                self.look(name, x, None, depth)

    def _attributes(self, name: str, kind: type, depth: int) -> None:
        """What a class holds for all its instances, or as a mere namespace."""
        for key, x in list(vars(kind).items()):
            if not key.startswith("__") and not hasattr(type(x), "__get__"):
                self.bind(_join(name, key), attribute(kind, key, type.__setattr__), depth)


def _follows_the_device(name: str, value: Any) -> bool:
    """Whether a value must be replaced on another device; the string "cpu" counts if its name says that it is a device.

    Something immutable, such as a tuple, must be replaced if anything in it must be.
    """
    if isinstance(value, str):
        return value == "cpu" and "device" in name.lower()
    if isinstance(value, tuple | frozenset):
        return any(_follows_the_device("", x) for x in value)
    return isinstance(value, Tensor | torch.device)


def _is_array_of_objects(value: Any) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray) and value.dtype == object


def _names(code: types.CodeType) -> set[str]:
    """Names that a function and the functions inside it look up."""
    inner = (_names(x) for x in code.co_consts if isinstance(x, types.CodeType))
    return set(code.co_names).union(*inner)


def _join(name: str, key: Any) -> str:
    return f"{name}.{key}" if name else str(key)


def _is_library(module: str | None) -> bool:
    # The audit's own wrappers around interfaces of torch do not belong to the function.
    return (module or "").split(".")[0] in _LIBRARIES or (module or "").startswith("compiled_loss.audit.")


def _is_open(kind: type) -> bool:
    return kind.__module__.startswith(_OPEN)
