"""Arguments and return values as trees: pytrees, and dataclasses of any kind, whether torch knows them or not."""

import copy
import dataclasses
import enum
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

_PLAIN = (
    *(bool, int, float, complex, str, bytes, type(None), range, slice, enum.Enum),
    *(torch.dtype, torch.device, torch.layout, torch.memory_format),
)


def leaves_of(tree: Any) -> Iterator[tuple[str, Any]]:
    """All leaves with their path, as `["boxes"].xyxy[0]`, in order."""
    for path, x in pytree.tree_flatten_with_path(tree)[0]:
        name = pytree.keystr(path)
        if _is_dataclass(x):
            for field in _fields(x):
                for inner, leaf in leaves_of(getattr(x, field)):
                    yield f"{name}.{field}{inner}", leaf
        else:
            yield name, x


def map_leaves(function: Callable[[Any], Any], tree: Any) -> Any:
    """The tree with `function` of every leaf, in the order of `leaves_of`; dataclasses are copied."""

    def mapped(x: Any) -> Any:
        if not _is_dataclass(x):
            return function(x)
        made = copy.copy(x)
        for field in _fields(x):  # as `__init__` does it, which also works for a frozen dataclass
            object.__setattr__(made, field, map_leaves(function, getattr(x, field)))
        return made

    return pytree.tree_map(mapped, tree)


def map_tensors(function: Callable[[Tensor], Any], tree: Any) -> Any:
    """The tree with `function` of every tensor."""
    return map_leaves(lambda x: function(x) if isinstance(x, Tensor) else x, tree)


def tensors_of(tree: Any) -> list[Tensor]:
    """All tensors of a tree, in order."""
    return [x for _, x in leaves_of(tree) if isinstance(x, Tensor)]


def others_of(tree: Any) -> dict[str, Any]:
    """Everything that is not a tensor, by path."""
    return {name: x for name, x in leaves_of(tree) if not isinstance(x, Tensor)}


def is_plain(x: Any) -> bool:
    """Whether a comparison covers all of a value: a number, a string, a dtype, a member of an enum."""
    return isinstance(x, _PLAIN)


def _fields(x: Any) -> list[str]:
    """Names of everything that it holds: its fields, and attributes set in addition."""
    fields = [field.name for field in dataclasses.fields(x) if hasattr(x, field.name)]
    return [*fields, *(name for name in getattr(x, "__dict__", ()) if name not in fields)]


def _is_dataclass(x: Any) -> bool:
    return dataclasses.is_dataclass(x) and not isinstance(x, type | nn.Module)
