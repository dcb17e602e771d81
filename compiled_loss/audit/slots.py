"""Places that hold a value, each with how to read and set it."""

import contextlib
import contextvars
import functools
import random
import types
from collections.abc import Callable
from typing import Any, NamedTuple

import torch


class Slot(NamedTuple):
    """A place that holds a value, and how to read and set it."""

    value: Any
    get: Callable[[], Any]
    set: Callable[[Any], object]

    def put_back(self) -> None:
        """Restore the value, unless the place still holds it: then the place is not set, as it may refuse that."""
        with contextlib.suppress(AttributeError, LookupError, ValueError):  # the place is empty now
            if self.get() is self.value:
                return
        self.set(self.value)


def item(held: Any, key: Any, value: Any) -> Slot:
    """An entry of a dict, list or deque."""
    return Slot(value, functools.partial(held.__getitem__, key), functools.partial(held.__setitem__, key))


def attribute(owner: Any, key: str, put: Callable[[Any, str, Any], None]) -> Slot:
    """An attribute, set by `put(owner, key, value)`."""
    return Slot(getattr(owner, key), functools.partial(getattr, owner, key), functools.partial(put, owner, key))


def member(held: set[Any], value: Any) -> Slot:
    """A member of a set."""
    now = [value]

    def get() -> Any:
        if now[0] not in held:
            raise LookupError("the set has lost this member")
        return now[0]

    def put(new: Any) -> None:
        held.discard(now[0])
        held.add(new)
        now[0] = new

    return Slot(value, get, put)


def arguments(function: functools.partial[Any]) -> Slot:
    """The arguments that a partial function holds."""

    def put(value: Any) -> None:
        function.__setstate__((function.func, value, function.keywords, vars(function)))  # type: ignore[attr-defined]

    return Slot(function.args, lambda: function.args, put)


def variable(held: contextvars.ContextVar[Any]) -> Slot:
    """The value of a context variable."""
    return Slot(held.get(), held.get, held.set)


def default(function: types.FunctionType, index: int) -> Slot:
    """The default of a parameter."""

    def get() -> Any:
        return (function.__defaults__ or ())[index]

    def put(value: Any) -> None:
        held = list(function.__defaults__ or ())
        held[index] = value
        function.__defaults__ = tuple(held)

    return Slot(get(), get, put)


def state_of_generator(value: Any) -> Slot | None:
    """The state of a random generator; None for anything else."""
    if isinstance(value, torch.Generator):
        get, put = value.get_state, value.set_state
    elif isinstance(value, random.Random):
        get, put = value.getstate, value.setstate
    elif type(value).__module__.startswith("numpy.random") and hasattr(value, "bit_generator"):
        bits = value.bit_generator
        get, put = functools.partial(getattr, bits, "state"), functools.partial(setattr, bits, "state")
    elif type(value).__module__.startswith("numpy.random") and hasattr(value, "set_state"):
        get, put = value.get_state, value.set_state
    else:
        return None
    return Slot(get(), get, put)
