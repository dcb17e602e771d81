"""Checks of the audit's arguments, and their error messages."""

import inspect
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from compiled_loss.audit.findings import KINDS, Finding
from compiled_loss.torch_private import check_backend


def names_of(given: Iterable[str]) -> set[str]:
    """The names as a set; a single string counts as one name."""
    return {given} if isinstance(given, str) else set(given)


def calls_of(batches: Any) -> list[tuple[Any, ...]]:
    """The arguments of each call: a tuple holds several, anything else is the only one.

    Raises:
        ValueError: if `batches` is a single batch, empty, or not iterable.
    """
    __tracebackhide__ = True  # pytest then shows only the user's own lines
    if isinstance(batches, Tensor | Mapping | str):
        raise ValueError(f"batches: expected a sequence of batches, got one {type(batches).__name__}")
    try:
        given = iter(batches)
    except TypeError:
        name = "function" if inspect.isroutine(batches) else type(batches).__name__
        name = "class" if isinstance(batches, type) else name
        got = f"a {name}; call it" if callable(batches) else name
        raise ValueError(f"batches: expected a sequence of batches, got {got}") from None
    calls = [x if type(x) is tuple else (x,) for x in list(given)]
    if not calls:
        raise ValueError("batches: expected at least one, got none")
    return calls


def check(
    function: Any,
    stages: Iterable[str],
    off: set[str],
    allowed: Mapping[str, Any],
    warmup: int,
    backend: Any,
    tolerance: float | None,
    *,
    exportable: bool,
) -> None:
    """Check all other arguments.

    Raises:
        ValueError: naming the argument, what was expected and what was given.
    """
    __tracebackhide__ = True
    others = [x for x in stages if x != "eager"]
    if not callable(function) or inspect.iscoroutinefunction(function):
        raise ValueError(f"function: expected a callable, and no coroutine function, got {function!r}")
    if unknown := off - set(others):
        raise ValueError(f"skip: expected names among {', '.join(others)}, got {', '.join(sorted(unknown))}")
    if not {x for x in others if exportable or x != "export"} - off:
        raise ValueError("skip: expected at least one stage to run, got all of them")
    if warmup < 1:
        raise ValueError(f"warmup: expected at least 1, got {warmup}")
    check_backend(backend)
    if tolerance is not None and not tolerance >= 0:
        raise ValueError(f"tolerance: expected None or at least 0, got {tolerance}")
    for name, reason in allowed.items():
        if not any(_fits(name.split("@")[0], kind) for kind in KINDS):
            raise ValueError(f"allow: expected a kind among {', '.join(KINDS)}, or kind@function:line, got {name!r}")
        if not isinstance(reason, str) or not reason.strip():
            raise ValueError(f"allow: expected a reason for {name!r}, got none")


def judged(found: Finding, allowed: Mapping[str, str]) -> Finding:
    """The finding, with the caller's reason if it is allowed."""
    reasons = [reason for name, reason in allowed.items() if matches(name, found)]
    return replace(found, allowed=reasons[0]) if reasons else found


def matches(name: str, found: Finding) -> bool:
    """Whether an allowance of that name is for this finding: a kind, or `kind@function:line`."""
    return _fits(name, found.kind) or _fits(name, found.name)


def _fits(pattern: str, text: str) -> bool:
    return re.fullmatch(".*".join(re.escape(x) for x in pattern.split("*")), text) is not None
