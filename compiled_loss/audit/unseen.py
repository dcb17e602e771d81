"""Tensors in objects that the audit does not enter: it must at least know that there are some."""

import gc
import logging
import types
import weakref
from collections.abc import Container, Iterable
from typing import Any

from torch import Tensor, nn

# References that lead away from an object, to everything in the process.
_ELSEWHERE = (
    *(type, types.ModuleType, types.FunctionType, types.FrameType, types.CodeType),
    *(nn.Module, logging.Logger, logging.Handler),
)
_OBJECTS = 20_000  # limit of a search


def types_with_tensors(values: Iterable[Any], seen: Container[int]) -> list[str]:
    """Types of those values that hold, at any depth, a tensor whose `id` is not in `seen`."""
    return sorted({f"{type(x).__module__}.{type(x).__qualname__}" for x in values if _holds_another(x, seen)})


def _holds_another(value: Any, seen: Container[int]) -> bool:
    known, found = {id(value)}, [value]
    while found and len(known) < _OBJECTS:
        x = found.pop()
        if isinstance(x, Tensor):
            if id(x) not in seen:
                return True
        elif not isinstance(x, _ELSEWHERE):
            inside = [x()] if isinstance(x, weakref.ref) else gc.get_referents(x)
            new = [y for y in inside if id(y) not in known]
            known.update(map(id, new))
            found += new
    return False
