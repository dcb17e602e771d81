"""Which of many alike cases `make test` runs; `make test-all` runs the others too, marked `thorough`."""

from collections.abc import Iterable
from typing import Any

import pytest


def marked(*values: Any, thorough: bool) -> Any:
    """Values of a test's arguments, marked if they are not of the sample."""
    return pytest.param(*values, marks=[pytest.mark.thorough] if thorough else [])


def sampled(values: Iterable[Any], every: int = 2) -> list[Any]:
    """Parameters of which one of `every` so many runs each time."""
    values = (x if isinstance(x, tuple) else (x,) for x in values)
    return [marked(*x, thorough=i % every > 0) for i, x in enumerate(values)]
