"""The results of an audit: findings with their places, and stages with their outcomes."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

KINDS: Mapping[str, str] = {
    "graph-break": "torch.compile stops tracing here and splits the graph",
    "recompile": "another graph is compiled after warm-up",
    "sync": "the host waits for a value of the device, reads a copy too early, or copies from its own memory to it",
    "dynamic-size": "a size depends on values, so the host has to wait for them",
    "device": "a tensor lives on the host while the inputs live on the device",
    "cudagraph": "CUDA graphs refuse this operator",
    "mismatch": "the compiled function gives different numbers from the eager one",
    "export": "torch.export or ONNX cannot take the function, or the exported graph gives different numbers",
}

# Appended to a graph break's message.
FALLS_BACK = " (the whole function falls back to eager)"


@dataclass(frozen=True)
class Place:
    """A line of Python: file, line number, function and the text of the line."""

    file: str
    line: int
    function: str
    source: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Finding:
    """One thing that prevents a function from being one graph without waits.

    Args:
        kind: a key of `KINDS`.
        message: what happens, in one line.
        advice: what to do instead.
        place: the innermost line of the user's own code; None if no line is responsible.
        trace: all lines from the audited function inwards, libraries included.
        phase: `forward` or `backward`.
        batches: indices of the batches in which it occurred.
        count: how often it occurred in all of them.
        detail: torch's own message.
        allowed: the caller's reason for allowing it; empty if it counts as a failure.
    """

    kind: str
    message: str
    advice: str
    place: Place | None = None
    trace: tuple[Place, ...] = ()
    phase: str = "forward"
    batches: tuple[int, ...] = ()
    count: int = 1
    detail: str = ""
    allowed: str = ""

    @property
    def name(self) -> str:
        """`kind@function:line`, the name for allowing the finding; just `kind` if it has no place."""
        return f"{self.kind}@{self.place.function}:{self.place.line}" if self.place else self.kind


@dataclass(frozen=True)
class Stage:
    """The outcome of one stage.

    Args:
        name: name of the stage.
        outcome: `clean`, `findings`, `incomplete` (it had to stop: not a pass), `skipped` (nothing to do here, see
            `note`) or `off` (turned off by the caller).
        note: the reason for the last three outcomes; additional facts for the others.
        seconds: wall-clock time.
    """

    name: str
    outcome: str
    note: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Graph:
    """One compiled graph, forward or backward: its number of operators and seconds to compile."""

    function: str
    phase: str
    operators: int
    seconds: float
    batch: int


@dataclass(frozen=True)
class Audited:
    """Everything that an audit found, and what follows from it."""

    function: str
    torch_version: str
    device: str
    batches: int
    findings: tuple[Finding, ...]
    stages: tuple[Stage, ...]
    graphs: tuple[Graph, ...]
    largest_errors: dict[str, float] = field(default_factory=dict)

    @property
    def failures(self) -> tuple[Finding, ...]:
        """Findings that were not allowed."""
        return tuple(x for x in self.findings if not x.allowed)

    @property
    def incomplete(self) -> tuple[Stage, ...]:
        """Stages that had to stop, so their findings are unknown."""
        return tuple(x for x in self.stages if x.outcome == "incomplete")

    @property
    def unjudged(self) -> tuple[Stage, ...]:
        """Requested stages that were skipped but could judge with other batches or another backend."""
        return tuple(x for x in self.stages if x.outcome == "skipped" and x.name not in ("gpu", "export"))

    @property
    def turned_off(self) -> tuple[Stage, ...]:
        """Stages that the caller turned off."""
        return tuple(x for x in self.stages if x.outcome == "off")

    @property
    def ok(self) -> bool:
        """Whether all findings are allowed, at least one stage judged the function, and none had to stop early."""
        looked = any(x.outcome in ("clean", "findings") and x.name not in ("eager", "allowances") for x in self.stages)
        return looked and not self.failures and not self.incomplete

    def counts(self) -> dict[str, int]:
        """Number of findings by kind, without the allowed ones."""
        return {kind: n for kind in KINDS if (n := sum(x.kind == kind for x in self.failures))}


def merge(findings: list[Finding]) -> list[Finding]:
    """Merge findings of the same kind on the same line into one, with all batches and the total count.

    Example:
        >>> line = Place("loss.py", 3, "loss", "x.item()")
        >>> once = Finding("graph-break", "item()", "", line, batches=(0,))
        >>> loop = Finding("graph-break", f"item(){FALLS_BACK}", "", line, batches=(1,))
        >>> [(x.message, x.batches, x.count) for x in merge([once, loop])]
        [('item() (the whole function falls back to eager)', (0, 1), 2)]
    """
    merged: dict[tuple[object, ...], Finding] = {}
    for x in findings:
        # The guards of a recompile grow from one to the next, and errors differ. A break inside a loop makes the whole
        # function fall back; the same break outside a loop does not.
        same = "" if x.kind in ("recompile", "mismatch") and x.place else x.message.removesuffix(FALLS_BACK)
        key = x.kind, x.phase, x.place, same
        if key in merged:
            first = merged[key]
            message = x.message if x.message.endswith(FALLS_BACK) else first.message
            batches = tuple(sorted({*first.batches, *x.batches}))
            x = replace(first, message=message, batches=batches, count=first.count + x.count)
        merged[key] = x
    return list(merged.values())
