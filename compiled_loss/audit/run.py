"""The audit itself: every stage in turn, none of which disturbs the others or the caller."""

from __future__ import annotations

import inspect
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch.utils import _pytree as pytree

from compiled_loss.audit.findings import KINDS, AuditReport, Finding, Graph, Stage, merge
from compiled_loss.audit.places import Finder
from compiled_loss.audit.reach import reachable
from compiled_loss.audit.restoring import restored
from compiled_loss.audit.stages.breaks import find_breaks
from compiled_loss.audit.stages.compiled import CompiledRun, compare_numbers, find_cudagraph_refusals, find_recompiles
from compiled_loss.audit.stages.device import find_device_faults
from compiled_loss.audit.stages.export import find_export_faults
from compiled_loss.audit.stages.gpu import confirm_on_gpu
from compiled_loss.audit.stages.subject import Result, Subject, first_line
from compiled_loss.audit.state import call
from compiled_loss.audit.trees import is_plain, tensors_of

STAGES: Mapping[str, str] = {
    "eager": "the function itself, uncompiled",
    "device": "waits for the device, sizes that depend on values, tensors on the wrong device",
    "breaks": "graph breaks, forward and backward",
    "recompiles": "compiles after warm-up, with the guards that failed",
    "numbers": "compiled against eager outputs and gradients",
    "cudagraphs": "operators that CUDA graphs refuse",
    "gpu": "the CUDA sync detector and a real graph capture, where there is a GPU",
    "export": "torch.export and ONNX Runtime over all batches",
}


def audit(
    function: Callable[..., Any],
    batches: Iterable[Any],
    *,
    backward: bool = True,
    exportable: bool = False,
    warmup: int = 2,
    backend: str = "inductor",
    dynamic: bool | None = None,
    tolerance: float | None = None,
    skip: Iterable[str] = (),
    allow: Mapping[str, str] | None = None,
    packages: Iterable[str] = (),
    progress: Callable[[str], None] | None = None,
) -> AuditReport:
    """Find everything that keeps a function from being one graph without waits, each at the line to blame.

    The function is run on every batch: eagerly, on a simulated device, traced, compiled, and, if it claims so,
    exported. `ok` holds if no stage found anything that was not allowed and none had to stop early. The function's
    parameters, buffers and optimizers, random numbers, grad mode and torch's compile state are afterwards as before.

    Args:
        function: any callable over tensors and pytrees, a module for instance.
        batches: arguments of each call: a tuple holds several, anything else is the only one. Give batches that
            differ as they do in use: without objects, with one, with few, with many. Tensors (and parameters) that
            require gradients are differentiated, marks of `mark_dynamic` are kept.
        backward: differentiate the sum of all outputs that require gradients.
        exportable: the function claims to export: also run torch.export and ONNX Runtime.
        warmup: leading batches that may compile; the second for torch's own change to dynamic sizes. With 1, the
            first graph has to serve all.
        backend: of `torch.compile`; `"aot_eager"` is faster and sees all but the code generator's guards and rounding.
        dynamic: of `torch.compile`.
        tolerance: largest error of compiled numbers, relative to the largest entry; None: 1e-4 in float32, by dtype.
        skip: names of stages to turn off, see `STAGES`.
        allow: findings to accept, `{name: reason}`; a name is a kind or `kind@function:line` (`*` matches anything).
        packages: installed packages whose lines count as your own.
        progress: called with a line of text as each stage begins, e.g. `print`.

    Returns:
        `AuditReport`; `print(report)`, `report.raise_if_failed()`, `report.to_html(path)`.

    Raises:
        ValueError: for no batches, an unknown stage or kind, or an allowance without a reason.

    Example:
        >>> def mean_of_positive(x):
        ...     return x[x > 0].mean()
        >>> report = audit(mean_of_positive, [torch.ones(3)], skip=["recompiles", "numbers", "cudagraphs"])
        >>> report.ok, sorted(report.counts())
        (False, ['dynamic-size', 'graph-break'])
    """
    off = set(skip)
    allowed = dict(allow or {})
    if isinstance(batches, torch.Tensor | Mapping):
        raise ValueError(f"batches: expected a sequence of batches, got one {type(batches).__name__}")
    calls = [x if type(x) is tuple else (x,) for x in batches]
    _check(function, calls, off, allowed, warmup, tolerance)
    subject = Subject(
        function,
        calls,
        reachable(function, _others(calls)),
        Finder(packages),
        backward,
        warmup,
        backend,
        dynamic,
        tolerance,
    )
    stages: list[Stage] = []
    findings: list[Finding] = []
    graphs: tuple[Graph, ...] = ()
    errors: dict[str, float] = {}
    compiled: list[CompiledRun] = []

    def from_compiled(judge: Callable[[CompiledRun], Result]) -> Result:
        if not compiled:
            compiled.append(CompiledRun(subject).run())
        return judge(compiled[0])

    work: dict[str, Callable[[], Result]] = {
        "eager": partial(_run_eagerly, subject),
        "device": partial(find_device_faults, subject),
        "breaks": partial(find_breaks, subject),
        "recompiles": partial(from_compiled, find_recompiles),
        "numbers": partial(from_compiled, compare_numbers),
        "cudagraphs": partial(from_compiled, find_cudagraph_refusals),
        "gpu": partial(confirm_on_gpu, subject),
        "export": partial(find_export_faults, subject),
    }
    for name, run in work.items():
        if name in off:
            stages.append(Stage(name, "off", "turned off by the caller"))
            continue
        if name == "export" and not exportable:
            stages.append(Stage(name, "skipped", "the function does not claim to export (exportable=False)"))
            continue
        if stages and len(subject.expected) < len(calls):
            stages.append(Stage(name, "incomplete", "the eager run had to stop"))
            continue
        if progress:
            progress(f"{name}: {STAGES[name]} ...")
        start = time.perf_counter()
        try:
            result = run()
        except Exception as error:  # an interface that torch lacks, or something nobody thought of: no pass
            result = Result([], stopped=first_line(error))
        merged = [_judged(_placed(x, subject), allowed) for x in merge(result.findings)]
        findings += merged
        graphs, errors = graphs + result.graphs, errors | (result.errors or {})
        stages.append(_stage(name, result, merged, time.perf_counter() - start))
    unused = [name for name in allowed if not any(_matches(name, x) for x in findings)]
    if unused:
        stages.append(Stage("allowances", "clean", f"matched nothing: {', '.join(unused)}"))
    device = next((str(x.device) for batch in calls for x in tensors_of(batch)), "cpu")
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return AuditReport(name, torch.__version__, device, len(calls), tuple(findings), tuple(stages), graphs, errors)


def _run_eagerly(subject: Subject) -> Result:
    """The numbers that all others are compared with."""
    with restored(subject.state):
        for i, batch in enumerate(subject.batches):
            try:
                subject.expected.append(call(subject.function, batch, subject.state, backward=subject.backward))
            except Exception as error:
                place, _ = subject.finder.of_error(error)
                return Result([], stopped=f"batch {i}: {first_line(error)} at {place}")
    hidden = {type(x) for outcome in subject.expected for x in outcome.others if not is_plain(x)}
    if hidden:
        names = ", ".join(sorted(f"{x.__module__}.{x.__qualname__}" for x in hidden))
        return Result([], stopped=f"returns {names}, in which tensors stay unseen: return containers or dataclasses")
    if subject.backward and not any(x.differentiable for x in subject.expected):
        return Result(
            [], note="no output requires a gradient, so there was no backward: set requires_grad on the inputs"
        )
    return Result([])


def _stage(name: str, result: Result, findings: list[Finding], seconds: float) -> Stage:
    failures = [x for x in findings if not x.allowed]
    if result.stopped:
        return Stage(name, "incomplete", result.stopped, seconds)
    if result.skipped:
        return Stage(name, "skipped", result.skipped, seconds)
    return Stage(name, "findings" if failures else "clean", result.note, seconds)


def _others(batches: list[Any]) -> list[Any]:
    """What is no tensor among the arguments."""
    return [x for x in pytree.tree_leaves(batches) if not isinstance(x, torch.Tensor)]


def _placed(found: Finding, subject: Subject) -> Finding:
    """A finding without a line is the whole function's."""
    return found if found.place else replace(found, place=subject.finder.of_function(subject.function)[0])


def _judged(found: Finding, allowed: Mapping[str, str]) -> Finding:
    reasons = [reason for name, reason in allowed.items() if _matches(name, found)]
    return replace(found, allowed=reasons[0]) if reasons else found


def _matches(name: str, found: Finding) -> bool:
    pattern = ".*".join(re.escape(x) for x in name.split("*"))
    return name == found.kind or re.fullmatch(pattern, found.name) is not None


def _check(
    function: Any, batches: list[Any], off: set[str], allowed: Mapping[str, str], warmup: int, tolerance: float | None
) -> None:
    if not callable(function) or inspect.iscoroutinefunction(function):
        raise ValueError(f"function: expected something to call (no coroutine), got {function!r}")
    if not batches:
        raise ValueError("batches: expected at least one, got none")
    if unknown := off - set(STAGES) | off & {"eager"}:
        known = ", ".join(x for x in STAGES if x != "eager")
        raise ValueError(f"skip: expected names among {known}, got {', '.join(sorted(unknown))}")
    if off >= set(STAGES) - {"eager"}:
        raise ValueError("skip: expected a stage that is left to run, got all of them")
    if warmup < 1:
        raise ValueError(f"warmup: expected at least 1, got {warmup}")
    if tolerance is not None and not tolerance >= 0:
        raise ValueError(f"tolerance: expected None or at least 0, got {tolerance}")
    for name, reason in allowed.items():
        if name.split("@")[0] not in KINDS:
            raise ValueError(f"allow: expected a kind among {', '.join(KINDS)}, or kind@function:line, got {name!r}")
        if not reason.strip():
            raise ValueError(f"allow: expected a reason for {name!r}, got none")
