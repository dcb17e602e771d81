"""The last results of a method by index, where making one takes long."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Recent(Generic[T]):
    """`make(index)`, remembered for the last `size` indices.

    Unlike `lru_cache` it can be sent to another process, which starts with none remembered: where processes are not
    forked, as on macOS and from Python 3.14 on, a loader sends its data set to its workers.
    """

    def __init__(self, make: Callable[[int], T], size: int):
        self.make, self.size = make, size
        self._remembered = lru_cache(size)(make)

    def __call__(self, index: int) -> T:
        return self._remembered(index)

    def __reduce__(self) -> tuple[Any, ...]:
        return Recent, (self.make, self.size)
