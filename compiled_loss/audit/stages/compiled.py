"""One compile with the real backend over all batches: recompiles, numbers, what CUDA graphs refuse, and sizes."""

import time
import traceback
from collections.abc import Callable
from typing import Any

from compiled_loss.audit.findings import Finding, Graph
from compiled_loss.audit.places import Finder
from compiled_loss.audit.stages.compare import compare
from compiled_loss.audit.stages.subject import Result, Subject, finding, first_line
from compiled_loss.audit.state import call, restored
from compiled_loss.audit.torch_private import Compile, collect_compiles, isolated_compile, own_compile_state, probe

_LAZY = "LAZY_BACKWARD"


class CompiledRun:
    """Runs the compiled function once over all batches; the stages below read from it what they judge."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.recompiles: list[Finding] = []
        self.mismatches: list[Finding] = []
        self.refused: list[Finding] = []
        self.graphs: list[Graph] = []
        self.errors: dict[str, float] = {}
        self.stopped = ""
        self._batch = 0

    def run(self) -> "CompiledRun":
        """Compile and run every batch."""
        subject = self.subject
        with own_compile_state():
            compiled = isolated_compile(subject.function, backend=self._backend(), dynamic=subject.dynamic)
            for i, batch in enumerate(subject.batches):
                self._batch = i
                with restored(subject.state), collect_compiles() as compiles:
                    try:
                        got = call(compiled, batch, subject.state, backward=subject.backward)
                    except Exception as error:
                        self.stopped = f"batch {i}: {first_line(error)}"
                        return self
                self._judge_compiles(compiles)
                self.mismatches += compare(subject, got, i, "mismatch", "compiled", self.errors)
        return self

    def _judge_compiles(self, compiles: list[Compile]) -> None:
        if self._batch < self.subject.warmup:
            return
        # A backward that is compiled with its forward is no second finding.
        lazy = [x for x in compiles if x.trigger == _LAZY]
        for x in [x for x in compiles if x.trigger == "DYNAMO"] or lazy:
            guards = "; ".join(" ".join(g.split(": ", 1)[-1].split()) for g in x.guards) or "no graph served this batch"
            file, line, name = x.function
            frames = [traceback.FrameSummary(file, line, name)] if file else []
            where = self.subject.finder.locate(frames)
            phase = "backward" if x.trigger == _LAZY else "forward"
            if phase == "backward":
                guards = "the backward was compiled anew"
            found = finding(
                "recompile", f"compiled again: {guards}", where, self._batch, phase=phase, detail="\n".join(x.guards)
            )
            self.recompiles.append(found)

    def _backend(self) -> Callable[..., Any] | str:
        """The backend with an eye on every graph it compiles."""
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

            def seen(phase: str) -> Callable[..., Any]:
                def compiler(graph: Any, inputs: Any) -> Any:
                    self._look_at(graph, phase, 0.0)
                    return graph

                return compiler

            return probe("aot")(fw_compiler=seen("forward"), bw_compiler=seen("backward"))
        return self.subject.backend

    def _look_at(self, graph: Any, phase: str, seconds: float) -> None:
        nodes = [x for x in graph.graph.nodes if x.op == "call_function"]
        self.graphs.append(Graph(_function_of(nodes, self.subject.finder), phase, len(nodes), seconds, self._batch))
        refuses, unbacked = probe("cudagraph refusals"), probe("unbacked symbols")
        for node in nodes:
            value = node.meta.get("val")
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
    return Result(run.recompiles, run.stopped, note=note, graphs=tuple(run.graphs))


def compare_numbers(run: CompiledRun) -> Result:
    """Compiled against eager outputs and gradients."""
    worst = max(run.errors.values(), default=0.0)
    note = f"largest error {worst:.1e} of the largest entry" if run.errors else ""
    skipped = "" if run.errors or run.stopped or run.mismatches else "the function returns no tensor to compare"
    return Result(run.mismatches, run.stopped, skipped, note, errors=run.errors)


def find_cudagraph_refusals(run: CompiledRun) -> Result:
    """Operators that CUDA graphs refuse, among the compiled graphs' nodes."""
    if run.subject.backend not in ("inductor", "aot_eager"):
        return Result([], skipped=f"the graphs of backend {run.subject.backend!r} are out of sight")
    return Result(run.refused, run.stopped)
