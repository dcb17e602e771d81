"""The ways to run a loss: eager, compiled, as an exported program, in ONNX Runtime."""

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.export import ExportedProgram

from compiled_loss import PaddedTargets, Predictions, Targets
from compiled_loss.exporting import Metadata, Setting, load
from compiled_loss.exporting.files import write
from compiled_loss.exporting.graphs import AssignmentGraph, LossGraph
from compiled_loss.exporting.metadata import describe
from compiled_loss.exporting.programs import JointGraph, export_program
from compiled_loss.losses.end_to_end import EndToEndLoss
from tests.fuzz.scenes import Scene
from tests.fuzz.setups import Setup


class Outcome(NamedTuple):
    """What a loss says about a batch."""

    total: float
    terms: dict[str, float]
    num_positives: int
    overflow: int
    gradients: list[dict[str, Tensor]]  # one dict a branch
    positives: list[tuple[Tensor, Tensor, Tensor]]  # image, anchor and row, one triple a branch


Runner = Callable[[Scene, Targets | PaddedTargets], Outcome]


def eager(setup: Setup) -> Runner:
    """Plain calls."""
    return _in_torch(setup, lambda step: step)


def compiled(setup: Setup) -> Runner:
    """One graph for every batch: another one is an error."""

    def compile(step: Callable[..., Any]) -> Callable[..., Any]:
        return torch.compile(step, fullgraph=True)

    run, graphs = _in_torch(setup, compile), 0

    def once(scene: Scene, targets: Targets | PaddedTargets) -> Outcome:
        nonlocal graphs
        before = _graphs()
        outcome = run(scene, targets.mark_dynamic())
        graphs += _graphs() - before
        assert graphs == 1, f"{graphs} graphs for one setup"
        return outcome

    return once


def _graphs() -> int:
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


def exported(setup: Setup) -> Runner:
    """Archives of torch.export."""
    return _as_files(setup, ".pt2")


def onnx(setup: Setup) -> Runner:
    """ONNX files in ONNX Runtime."""
    return _as_files(setup, ".onnx")


MODES: dict[str, Callable[[Setup], Runner]] = {
    "eager": eager,
    "compiled": compiled,
    "exported": exported,
    "onnx": onnx,
}


def _in_torch(setup: Setup, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Runner:
    """Positives are those that the loss itself finds, which spares an assignment."""
    loss, grids = setup.build(), setup.grids
    seen: list[Any] = []
    task = loss.loss if isinstance(loss, EndToEndLoss) else loss
    task.positives = _watched(task.positives, seen)

    def step(heads: list[dict[str, Tensor]], targets: Targets | PaddedTargets) -> tuple[Any, list[Any]]:
        return loss(*(Predictions(grid_sizes=grids, **maps) for maps in heads), targets), seen

    call = wrap(step)

    def run(scene: Scene, targets: Targets | PaddedTargets) -> Outcome:
        seen.clear()  # here, since a graph would be one for the list's length
        leaves = [{name: x.detach().clone().requires_grad_() for name, x in maps.items()} for maps in scene.heads]
        out, assigned = call(leaves, targets)
        flat = [x for maps in leaves for x in maps.values()]
        found = iter(torch.autograd.grad(out.total, flat, allow_unused=True, materialize_grads=True))
        gradients = [{name: next(found) for name in maps} for maps in leaves]
        positives = [tuple(x[a[3]] for x in a[:3]) for a in assigned]
        terms = {name: x.item() for name, x in out.terms.items()}
        return Outcome(out.total.item(), terms, int(out.num_positives), int(out.overflow), gradients, positives)  # type: ignore[arg-type]

    return run


def _watched(assign: Callable[..., Any], seen: list[Any]) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        seen.append(assign(*arguments))
        return seen[-1]

    return call


def _as_files(setup: Setup, suffix: str) -> Runner:
    """The loss, with its gradients where the setup says so, and the assignment of every branch."""
    loss, branches = setup.build(), ("many", "one") if setup.end_to_end else ("pred",)
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for i, (program, metadata) in enumerate(_programs(setup)):
            path = Path(folder) / f"{i}{suffix}"
            write(program, metadata, path)
            files.append(load(path))

    def run(scene: Scene, targets: Targets | PaddedTargets) -> Outcome:
        rows = {
            "cls" if name == "labels" else name: x for name, x in targets._asdict().items() if isinstance(x, Tensor)
        }
        heads = dict(zip(branches, scene.heads, strict=True))
        inputs = {f"{b}_{name}": x for b, maps in heads.items() for name, x in maps.items()} | rows
        if setup.end_to_end:
            inputs["share"] = loss.share
        out = files[0].run(inputs)
        gradients = [{name: out[f"grad_{b}_{name}"] for name in maps if setup.gradients} for b, maps in heads.items()]
        positives = []
        for file, maps in zip(files[1:], heads.values(), strict=True):
            a = file.run({f"pred_{name}": x for name, x in maps.items()} | rows)
            positives.append(tuple(a[name][a["valid"]] for name in ("image", "anchor", "row")))
        terms = {name.removeprefix("loss_"): x.item() for name, x in out.items() if name.startswith("loss_")}
        return Outcome(out["loss"].item(), terms, int(out["num_positives"]), int(out["overflow"]), gradients, positives)

    return run


@cache
def _programs(setup: Setup) -> list[tuple[ExportedProgram, Metadata]]:
    """Exported once for every kind of file."""
    loss = setup.build().requires_grad_(False)
    setting = Setting(
        image_size=setup.size,
        pages=setup.pages,
        prototypes=3,
        mask_stride=setup.strides[0] // 2,
        semantic=setup.semantic,
    )
    whole, kind = LossGraph(loss, setting), "loss"
    if setup.gradients:
        whole, kind = JointGraph(whole), "gradients"
    found = [(export_program(whole), describe(loss, setting, kind, whole.inputs, whole.outputs))]
    for one in (loss.many, loss.one) if isinstance(loss, EndToEndLoss) else (loss,):
        graph = AssignmentGraph(one, setting)
        found.append((export_program(graph), describe(one, setting, "assignment", graph.inputs, graph.outputs)))
    return found
