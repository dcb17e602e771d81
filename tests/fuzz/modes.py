"""The ways to run a loss: eager, compiled, as an exported program, in ONNX Runtime."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from compiled_loss import Predictions, Targets
from compiled_loss.exporting import Setting, export_assignment, export_loss, load
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


Runner = Callable[[Scene, Targets], Outcome]


def eager(setup: Setup) -> Runner:
    """Plain calls; positives are those that the loss itself found, which spares an assignment."""
    return _in_torch(setup, lambda step: step, watched=True)


def compiled(setup: Setup) -> Runner:
    """One graph for every batch: another one is an error."""

    def compile(step: Callable[..., Any]) -> Callable[..., Any]:
        return torch.compile(step, fullgraph=True)

    run, graphs = _in_torch(setup, compile), 0

    def once(scene: Scene, targets: Targets) -> Outcome:
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


def _in_torch(
    setup: Setup, wrap: Callable[[Callable[..., Any]], Callable[..., Any]], *, watched: bool = False
) -> Runner:
    loss, grids = setup.build(), setup.grids
    branches = (loss.many, loss.one) if isinstance(loss, EndToEndLoss) else (loss,)
    seen: list[Any] = []
    for one in branches if watched else ():
        one._assign = _watched(one._assign, seen)

    def step(heads: list[dict[str, Tensor]], targets: Targets) -> tuple[Any, list[Any]]:
        predictions = [Predictions(grid_sizes=grids, **maps) for maps in heads]
        if watched:
            seen.clear()
            return loss(*predictions, targets), seen
        assigned = [one.assign(p, targets) for one, p in zip(branches, predictions, strict=True)]
        return loss(*predictions, targets), assigned

    call = wrap(step)

    def run(scene: Scene, targets: Targets) -> Outcome:
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
    """The loss with its gradients, and the assignment of every branch."""
    loss = setup.build()
    setting = Setting(
        image_size=None,
        pages=setup.pages,
        prototypes=3,
        mask_stride=setup.strides[0] // 2,
        semantic=setup.semantic,
    )
    branches = {"many": loss.many, "one": loss.one} if isinstance(loss, EndToEndLoss) else {"pred": loss}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"loss{suffix}"
        export_loss(loss, path, setting, gradients=True)
        whole = load(path)
        parts = {}
        for name, one in branches.items():
            path = Path(folder) / f"{name}{suffix}"
            export_assignment(one, path, setting)
            parts[name] = load(path)

    def run(scene: Scene, targets: Targets) -> Outcome:
        rows = {"cls" if name == "labels" else name: x for name, x in targets._asdict().items() if isinstance(x, Tensor)}
        given = [_levels(scene.setup, maps) for maps in scene.heads]
        inputs = {f"{b}_{name}": x for b, maps in zip(branches, given, strict=True) for name, x in maps.items()} | rows
        if isinstance(loss, EndToEndLoss):
            inputs["share"] = loss.share
        out = whole.run(inputs)
        gradients = [
            {
                name: _flat({k: out[f"grad_{b}_{k}"] for k in maps if k == name or k.startswith(f"{name}_")}, x)
                for name, x in head.items()
            }
            for b, maps, head in zip(branches, given, scene.heads, strict=True)
        ]
        positives = []
        for (_, part), maps in zip(parts.items(), given, strict=True):
            a = part.run({f"pred_{name}": x for name, x in maps.items()} | rows)
            positives.append(tuple(a[name][a["valid"]] for name in ("image", "anchor", "row")))
        terms = {
            name.removeprefix("loss_"): x.item() for name, x in out.items() if name.startswith("loss_")
        }
        return Outcome(
            out["loss"].item(), terms, int(out["num_positives"]), int(out["overflow"]), gradients, positives
        )

    return run


def _levels(setup: Setup, maps: dict[str, Tensor]) -> dict[str, Tensor]:
    """A map for each level in place of all anchors in a row."""
    found = {}
    for name, x in maps.items():
        if x.dim() == 4:
            found[name] = x
            continue
        parts = x.split([h * w for h, w in setup.grids], 2)
        for stride, grid, part in zip(setup.strides, setup.grids, parts, strict=True):
            found[f"{name}_{stride}"] = part.unflatten(2, grid).contiguous()
    return found


def _flat(parts: dict[str, Tensor], like: Tensor) -> Tensor:
    """The way back."""
    if like.dim() == 4:
        return next(iter(parts.values()))
    return torch.cat([x.flatten(2) for x in parts.values()], 2)
