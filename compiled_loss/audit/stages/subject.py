"""What every stage works on, and what it returns."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from compiled_loss.audit.advice import advise
from compiled_loss.audit.findings import Finding, Graph, Place
from compiled_loss.audit.places import Finder
from compiled_loss.audit.reach import State
from compiled_loss.audit.state import Outcome

_HOST = torch.device("cpu")


@dataclass(frozen=True)
class Subject:
    """The audited function with its batches.

    Args:
        function: what is audited.
        batches: arguments of each call.
        state: what the function holds.
        finder: finds the user's own lines.
        backward: whether to differentiate.
        warmup: number of first batches that may compile.
        backend: as for `torch.compile`.
        dynamic: as for `torch.compile`.
        tolerance: largest error, relative to the largest entry; None depends on the dtype.
        note: a remark on how it is run.
        expected: eager outcome of each batch.
        device: device of the batches.
    """

    function: Callable[..., Any]
    batches: Sequence[tuple[Any, ...]]
    state: State
    finder: Finder
    backward: bool
    warmup: int
    backend: str | Callable[..., Any]
    dynamic: bool | None
    tolerance: float | None
    note: str = ""
    expected: list[Outcome] = field(default_factory=list)
    device: torch.device = _HOST


class Result(NamedTuple):
    """What a stage found; `stopped` says why it could not continue, `skipped` why it had nothing to do."""

    findings: list[Finding]
    stopped: str = ""
    skipped: str = ""
    note: str = ""
    graphs: tuple[Graph, ...] = ()
    errors: dict[str, float] | None = None


def finding(
    kind: str,
    message: str,
    where: tuple[Place | None, tuple[Place, ...]],
    batch: int,
    *,
    detail: str = "",
    phase: str = "forward",
) -> Finding:
    """A finding with advice."""
    place, trace = where
    advice = advise(kind, f"{message}\n{place.source if place else ''}", detail)
    return Finding(kind, message, advice, place, trace, phase, (batch,), detail=detail)


def first_line(error: BaseException | str) -> str:
    """The first line of a message; for an exception with its type, and that of the cause if torch wraps one."""
    cause = getattr(error, "inner_exception", None)
    if isinstance(cause, BaseException):
        return first_line(cause)
    text = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    name = "" if isinstance(error, str) else f"{type(error).__name__}: "
    # A line that ends in a colon makes no sense without the next.
    return name + " ".join(text[: 2 if text[0].endswith(":") else 1])
