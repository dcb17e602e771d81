"""The audit itself: it runs every stage in turn, and leaves no trace for the next stage or the caller."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import cache, partial
from typing import Any

import torch
from torch.utils import _pytree as pytree

from compiled_loss.audit.arguments import calls_of, check, judged, matches, names_of
from compiled_loss.audit.findings import Finding, Graph, Stage, merge
from compiled_loss.audit.places import Finder
from compiled_loss.audit.reach import State, reachable
from compiled_loss.audit.report import AuditReport
from compiled_loss.audit.stages.breaks import find_breaks
from compiled_loss.audit.stages.compiled import CompiledRun, compare_numbers, find_cudagraph_refusals, find_recompiles
from compiled_loss.audit.stages.device import find_device_faults
from compiled_loss.audit.stages.eager import run_eagerly
from compiled_loss.audit.stages.export import find_export_faults
from compiled_loss.audit.stages.gpu import confirm_on_gpu
from compiled_loss.audit.stages.subject import Result, Subject, first_line
from compiled_loss.audit.trees import tensors_of
from compiled_loss.audit.watching import collect_breaks
from compiled_loss.torch_private import modules_called_plainly, without_compile

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
    backend: str | Callable[..., Any] = "inductor",
    dynamic: bool | None = None,
    tolerance: float | None = None,
    skip: Iterable[str] = (),
    allow: Mapping[str, str] | None = None,
    packages: Iterable[str] = (),
    progress: Callable[[str], None] | None = None,
) -> AuditReport:
    """Find everything that prevents a function from being one graph without waits, with the line responsible.

    The function is run on every batch: eagerly, on a simulated device, traced, compiled, and, with `exportable`,
    exported. `ok` is True if at least one stage judged the function, none found anything that was not allowed and none
    had to stop early. Afterwards the function's parameters, buffers and optimizers, its Python bindings, random state,
    grad mode and torch's compile state are restored; before torch 2.13 the caller's compiled functions recompile once.

    Args:
        function: any callable over tensors, pytrees and dataclasses, such as a module.
        batches: the arguments of each call: a tuple holds several, anything else is a single argument. Give batches
            that vary as in real use: without objects, with one, with few, with many. Tensors (and parameters) that
            require gradients are differentiated, and `mark_dynamic` marks are kept.
        backward: differentiate the sum of all outputs that require gradients.
        exportable: the function is meant to export: also run torch.export and ONNX Runtime.
        warmup: number of leading batches that may compile; the second is for torch's switch to dynamic sizes. With 1,
            the first graph has to serve all batches.
        backend: as for `torch.compile`; `"aot_eager"` is faster and covers all but the code generator's guards and
            rounding.
        dynamic: as for `torch.compile`.
        tolerance: largest error of compiled results, relative to the largest entry; None depends on dtype, 1e-4 for
            float32.
        skip: names of stages to turn off, see `STAGES`.
        allow: findings to accept, `{name: reason}`; a name is a kind or `kind@function:line` (`*` matches anything).
        packages: installed packages whose lines count as your own.
        progress: called with a line of text as each stage begins, e.g. `print`.

    Returns:
        `AuditReport`; use `print(report)`, `report.raise_if_failed()` or `report.to_html(path)`.

    Raises:
        ValueError: if there are no batches, a stage, kind or backend is unknown, or an allowance has no reason.

    Example:
        >>> def mean_of_positive(x):
        ...     return x[x > 0].mean()
        >>> report = audit(mean_of_positive, [torch.ones(3)], skip=["recompiles", "numbers", "cudagraphs"])
        >>> report.ok, sorted(report.counts())
        (False, ['dynamic-size', 'graph-break'])
    """
    __tracebackhide__ = True
    off, allowed, calls = names_of(skip), dict(allow or {}), calls_of(batches)
    check(function, STAGES, off, allowed, warmup, backend, tolerance, exportable=exportable)
    plain = without_compile(function)
    state = reachable(plain, _others(calls))
    finder = Finder(names_of(packages))
    with modules_called_plainly(state.modules) as compiled:
        note = "already compiled: the function inside was audited" if plain is not function else ""
        if compiled:
            note = f"compiled in place, but called uncompiled here: {', '.join({type(x).__name__ for x in compiled})}"
        device = _device_of(calls, state)
        options = (backward, warmup, backend, dynamic, tolerance, note)
        subject = Subject(plain, calls, state, finder, *options, device=device)
        stages, findings, graphs, errors = _run_stages(subject, off, allowed, exportable, progress)
    unused = [name for name in allowed if not any(matches(name, x) for x in findings)]
    if unused:
        stages.append(Stage("allowances", "clean", f"matched nothing: {', '.join(unused)}"))
    name = getattr(plain, "__qualname__", type(plain).__qualname__)
    return AuditReport(name, torch.__version__, str(device), len(calls), tuple(findings), tuple(stages), graphs, errors)


def _run_stages(
    subject: Subject,
    off: set[str],
    allowed: Mapping[str, str],
    exportable: bool,
    progress: Callable[[str], None] | None,
) -> tuple[list[Stage], list[Finding], tuple[Graph, ...], dict[str, float]]:
    stages: list[Stage] = []
    findings: list[Finding] = []
    graphs: tuple[Graph, ...] = ()
    errors: dict[str, float] = {}
    for name, run in _work(subject, off).items():
        if name in off:
            stages.append(Stage(name, "off", "turned off by the caller"))
            continue
        if name == "export" and not exportable:
            stages.append(Stage(name, "skipped", "not asked for (exportable=False)"))
            continue
        if stages and len(subject.expected) < len(subject.batches):
            stages.append(Stage(name, "incomplete", "the eager run had to stop"))
            continue
        if progress:
            progress(f"{name}: {STAGES[name]} ...")
        start = time.perf_counter()
        try:
            result = run()
        except Exception as error:  # an interface that this torch lacks, or something unforeseen: this is not a pass
            result = Result([], stopped=first_line(error))
        merged = [judged(_placed(x, subject), allowed) for x in merge(result.findings)]
        findings += merged
        graphs, errors = graphs + result.graphs, errors | (result.errors or {})
        stages.append(_stage(name, result, merged, time.perf_counter() - start))
    return stages, findings, graphs, errors


def _work(subject: Subject, off: set[str]) -> dict[str, Callable[[], Result]]:
    """Each stage by its name; three of them judge the same compiled run."""
    judges = {"recompiles": find_recompiles, "numbers": compare_numbers, "cudagraphs": find_cudagraph_refusals}

    @cache
    def the_run() -> CompiledRun:
        return CompiledRun(subject).run()

    def from_compiled(judge: Callable[[CompiledRun], Result]) -> Result:
        return judge(the_run())

    def from_breaks() -> Result:
        # Tracing takes most of an audit's time. If the compiled run was traced to its end without a break, it is not
        # traced again here; if it failed, its own stages report that.
        if judges.keys() - off:
            with contextlib.suppress(Exception), collect_breaks() as met:
                if not (the_run().stopped or met):
                    return Result([])
        return find_breaks(subject)

    return {
        "eager": partial(run_eagerly, subject),
        "device": partial(find_device_faults, subject),
        "breaks": from_breaks,
        **{name: partial(from_compiled, judge) for name, judge in judges.items()},
        "gpu": partial(confirm_on_gpu, subject),
        "export": partial(find_export_faults, subject),
    }


def _stage(name: str, result: Result, findings: list[Finding], seconds: float) -> Stage:
    failures = [x for x in findings if not x.allowed]
    if result.stopped:
        return Stage(name, "incomplete", result.stopped, seconds)
    if result.skipped:
        return Stage(name, "skipped", result.skipped, seconds)
    return Stage(name, "findings" if failures else "clean", result.note, seconds)


def _others(batches: list[Any]) -> list[Any]:
    """The arguments that are not tensors."""
    return [x for x in pytree.tree_leaves(batches) if not isinstance(x, torch.Tensor)]


def _device_of(calls: list[Any], state: State) -> torch.device:
    """The device of the arguments, otherwise of the tensors that the function holds."""
    held = sorted(state.tensors, key=lambda name: not name.startswith("args"))
    return next(
        (x.device for x in (*tensors_of(calls), *map(state.tensors.get, held)) if x is not None), torch.device("cpu")
    )


def _placed(found: Finding, subject: Subject) -> Finding:
    """Place a finding without a line at the function itself."""
    return found if found.place else replace(found, place=subject.finder.of_function(subject.function)[0])
