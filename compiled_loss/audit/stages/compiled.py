"""One compiled run over all batches with the real backend: recompiles, numbers, sizes, and what CUDA graphs refuse."""

import time
from collections.abc import Callable
from typing import Any

from torch import Tensor

from compiled_loss.audit.findings import Finding, Graph
from compiled_loss.audit.places import Finder
from compiled_loss.audit.restoring import restored
from compiled_loss.audit.stages.compare import compare, tolerance_of
from compiled_loss.audit.stages.guards import FixedSizes, Where, cause_of
from compiled_loss.audit.stages.precision import tolerances_of
from compiled_loss.audit.stages.subject import Result, Subject, finding, first_line
from compiled_loss.audit.state import Outcome, call
from compiled_loss.audit.trees import tensors_of
from compiled_loss.audit.watching import collect_fixed_sizes
from compiled_loss.torch_private import (
    Compile,
    collect_compiles,
    isolated_compile,
    own_compile_state,
    probe,
)

_LAZY = "LAZY_BACKWARD"
VISIBLE = ("inductor", "aot_eager")  # backends whose graphs can be inspected


class CompiledRun:
    """Runs the compiled function once over all batches; the stages below judge what it recorded."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.recompiles: list[Finding] = []
        self.mismatches: list[Finding] = []
        self.refused: list[Finding] = []
        self.graphs: list[Graph] = []
        self.errors: dict[str, float] = {}
        self.lowest = 0.0  # tolerance of the lowest precision in any graph
        self.raised = 0.0  # largest tolerance of a number because of that
        self.stopped = ""
        self.broken = False
        self.fixed: FixedSizes = {}
        self._batch = 0

    def run(self) -> "CompiledRun":
        """Compile and run every batch."""
        subject, outcomes = self.subject, list[Outcome]()
        with own_compile_state(subject.backend), restored(subject.state), collect_fixed_sizes() as self.fixed:
            compiled = isolated_compile(subject.function, backend=self._backend(), dynamic=subject.dynamic)
            for i, batch in enumerate(subject.batches):
                self._batch = i
                with collect_compiles() as compiles:
                    try:
                        outcomes.append(call(compiled, batch, subject.state, backward=subject.backward))
                    except Exception as error:
                        self.stopped = f"batch {i}: {first_line(error)}"
                        break
                self.broken = any(probe("counters")[key] for key in ("graph_break", "unimplemented"))
                self._judge_compiles(compiles)
        self._judge_numbers(outcomes)
        return self

    def _judge_numbers(self, outcomes: list[Outcome]) -> None:
        floors: list[dict[str, float]] = [{} for _ in outcomes]
        numbers = [x for y in outcomes for x in (*y.outputs, *y.gradients.values()) if tolerance_of(x.dtype)]
        if self.lowest > min((tolerance_of(x.dtype) for x in numbers), default=self.lowest):
            floors = tolerances_of(self.subject, self.lowest)
            self.raised = max((x for floor in floors for x in floor.values()), default=0.0)
        for i, got in enumerate(outcomes):
            self.mismatches += compare(self.subject, got, i, "mismatch", "compiled", self.errors, floors[i])

    def _judge_compiles(self, compiles: list[Compile]) -> None:
        if self._batch < self.subject.warmup:
            return
        # A backward compiled along with its forward is not a second finding.
        forward = [x for x in compiles if x.trigger != _LAZY]
        self.recompiles += [self._recompile(x) for x in forward or compiles]

    def _recompile(self, compiled: Compile) -> Finding:
        finder = self.subject.finder
        detail = "\n".join(compiled.guards)
        where: Where = (None, ())
        if compiled.guards:
            file = compiled.code.co_filename if compiled.code else ""
            message, where = cause_of(compiled.guards, self.fixed, self._small_sizes(), finder, file)
        elif compiled.trigger == _LAZY:
            message = "the backward was compiled when it was first called"
        else:
            message = "compiled a part of the function that no earlier batch had reached"
        if where[0] is None:
            where = finder.of_code(compiled.code) if compiled.code else finder.of_function(self.subject.function)
        phase = "backward" if compiled.trigger == _LAZY else "forward"
        return finding("recompile", message, where, self._batch, phase=phase, detail=detail)

    def _small_sizes(self) -> set[int]:
        """Sizes of 0 or 1 in this batch in places where all earlier batches had other sizes."""
        shapes = [[x.shape for x in tensors_of(batch)] for batch in self.subject.batches[: self._batch + 1]]
        *before, now = [dict(enumerate(x)) for x in shapes]
        return {
            n
            for i, shape in now.items()
            for d, n in enumerate(shape)
            if n < 2 and all(n != x[i][d] for x in before if i in x and d < len(x[i]))
        }

    def _backend(self) -> Callable[..., Any] | str:
        """The backend, wrapped to inspect every graph that it compiles."""
        if self.subject.backend == "inductor":
            compile_fx, compile_graph = probe("inductor"), probe("inductor graph")

            def inner(graph: Any, inputs: Any, **options: Any) -> Any:
                start = time.perf_counter()
                try:
                    return compile_graph(graph, inputs, **options)
                finally:
                    phase = "backward" if options.get("is_backward") else "forward"
                    self._look_at(graph, phase, time.perf_counter() - start)

            return lambda graph, inputs: compile_fx(graph, inputs, inner_compile=inner)
        if self.subject.backend == "aot_eager":
            from functorch import compile as functorch  # noqa: PLC0415  (slow to import)

            def seen(phase: str) -> Callable[..., Any]:
                def compiler(graph: Any, inputs: Any) -> Any:
                    self._look_at(graph, phase, 0.0)
                    return functorch.make_boxed_func(graph)

                return compiler

            return probe("aot")(fw_compiler=seen("forward"), bw_compiler=seen("backward"))
        return self.subject.backend

    def _look_at(self, graph: Any, phase: str, seconds: float) -> None:
        nodes = [x for x in graph.graph.nodes if x.op == "call_function"]
        self.graphs.append(Graph(_function_of(nodes, self.subject.finder), phase, len(nodes), seconds, self._batch))
        refuses, unbacked = probe("cudagraph refusals"), probe("unbacked symbols")
        for node in nodes:
            value = node.meta.get("val")
            if isinstance(value, Tensor):
                self.lowest = max(self.lowest, tolerance_of(value.dtype))
            why = "is refused" if refuses(node) else ""
            if not why and value is not None and not isinstance(value, list | tuple) and unbacked(value):
                why = "has a size or value known only at run time"
            if why:
                where = self.subject.finder.of_text(node.meta.get("stack_trace") or "")
                self.refused.append(finding("cudagraph", f"{node.target} {why}", where, self._batch, phase=phase))


def _function_of(nodes: list[Any], finder: Finder) -> str:
    """The user's function that a graph came from."""
    for node in nodes:
        _, trace = finder.of_text(node.meta.get("stack_trace") or "")
        if trace:
            return trace[0].function
    return "?"


def find_recompiles(run: CompiledRun) -> Result:
    """Compiles after warm-up, with the guards that failed."""
    forward = sum(x.phase == "forward" for x in run.graphs)
    note = f"{forward} graphs forward, {len(run.graphs) - forward} backward" if run.graphs else ""
    visible = run.subject.backend in VISIBLE
    if visible and not run.graphs and not run.broken and not run.stopped:
        # Torch never compiles a function that did nothing when it was first traced.
        return Result([], "nothing was compiled: with the first batch, the function runs no operation on tensors")
    skipped = ""
    if len(run.subject.batches) <= run.subject.warmup:
        skipped = (
            f"there is no batch after the first {run.subject.warmup} (warm-up): give more batches, or a smaller warmup"
        )
    return Result(run.recompiles, run.stopped, skipped, note, tuple(run.graphs))


def compare_numbers(run: CompiledRun) -> Result:
    """Compiled against eager outputs and gradients."""
    worst = max(run.errors.values(), default=0.0)
    note = f"largest error {worst:.1e}, relative to the largest entry" if run.errors else ""
    if run.raised and run.subject.tolerance is None:
        note += f"; up to {run.raised:.0e} is allowed where the function computes in low precision"
    skipped = "" if run.errors or run.stopped or run.mismatches else "the function returns no tensor to compare"
    return Result(run.mismatches, run.stopped, skipped, note, errors=run.errors)


def find_cudagraph_refusals(run: CompiledRun) -> Result:
    """Operators that CUDA graphs refuse, among the compiled graphs' nodes."""
    if run.subject.backend not in VISIBLE:
        name = getattr(run.subject.backend, "__name__", run.subject.backend)
        return Result([], skipped=f"the audit cannot see the graphs of backend {name!r}")
    return Result(run.refused, run.stopped)
