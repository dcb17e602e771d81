"""Graphs as exported programs: the forward ones, and the experimental joint graph of a loss and its gradients."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx import GraphModule
from torch.torch_version import TorchVersion

from compiled_loss.checks import require
from compiled_loss.exporting.accumulation import without_races
from compiled_loss.exporting.graphs import Graph, LossGraph
from compiled_loss.exporting.interface import Port, dynamic_axes, examples
from compiled_loss.exporting.outputs import gradient_outputs
from compiled_loss.torch_private import quiet

# The joint graph rests on an interface that torch calls unstable: first version tried, and first not tried.
_TRIED, _UNTRIED = TorchVersion("2.13"), TorchVersion("2.14.dev0")


def check_version() -> None:
    """Check that the joint graph was tried with this version of torch.

    Raises:
        ValueError: if it was not.
    """
    version = TorchVersion(torch.__version__)
    expected = f"torch {_TRIED}, which this experimental form was tried with"
    require(_TRIED <= version < _UNTRIED, "gradients", expected, f"torch {version}")


def export_program(graph: "Graph | JointGraph") -> ExportedProgram:
    """The graph as torch.export sees it, B and N dynamic."""
    with torch.no_grad(), quiet():
        return _export(graph, graph.inputs)


class JointGraph(nn.Module):
    """A loss with the gradients for every prediction, as one function without autograd (experimental).

    Args:
        graph: the loss.

    Raises:
        ValueError: on a version of torch that this was not tried with.
    """

    def __init__(self, graph: LossGraph) -> None:
        super().__init__()
        check_version()
        from torch.export.experimental import _export_forward_backward  # noqa: PLC0415  (of those versions alone)

        self.inputs = graph.inputs
        self.outputs = [*graph.outputs, *gradient_outputs(graph.predictions)]
        learnt = {port.name for port in graph.predictions}
        with quiet():
            joint = _export_forward_backward(_export(graph, graph.inputs, learnt))
        self.body = without_races(joint.graph_module)
        _without_empty(self.body)
        self._lifted: list[Tensor | None] = []
        for spec in joint.graph_signature.input_specs:
            held: Any = None
            if spec.kind != InputKind.USER_INPUT:
                held = {**joint.constants, **joint.state_dict}[str(spec.target)]
            self._lifted.append(held)

    def forward(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """The outputs by name."""
        given = (tensors[port.name] for port in self.inputs)
        results = self.body(*(next(given) if x is None else x for x in self._lifted))
        return {port.name: x for port, x in zip(self.outputs, results, strict=True)}


def _without_empty(body: GraphModule) -> None:
    """Zeros for memory that is not set yet: ONNX has no operator for that, and all of it is written over."""
    for node in body.graph.nodes:
        if node.target is torch.ops.aten.empty_permuted.default:
            node.target = torch.ops.aten.full.default
            node.args = (node.args[0], 0)
    body.recompile()


def _export(graph: nn.Module, ports: list[Port], learnt: set[str] | frozenset[str] = frozenset()) -> ExportedProgram:
    inputs: dict[str, Any] = examples(ports)
    inputs = {name: x.requires_grad_(name in learnt) for name, x in inputs.items()}
    return torch.export.export(graph, (inputs,), dynamic_shapes=(dynamic_axes(ports),))
