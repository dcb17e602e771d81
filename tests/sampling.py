"""Which of many alike cases `make test` runs; `make test-all` runs the others too, marked `thorough`."""

from collections.abc import Iterable
from typing import Any

import pytest


def sampled(values: Iterable[Any], every: int = 2) -> list[Any]:
    """Parameters of which one of `every` so many runs each time."""
    rest = pytest.mark.thorough
    values = (x if isinstance(x, tuple) else (x,) for x in values)
    return [pytest.param(*x, marks=[rest] if i % every else []) for i, x in enumerate(values)]
