"""Graphs as exported programs: the forward ones, and the experimental joint graph of a loss and its gradients."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx import GraphModule

from compiled_loss.checks import require
from compiled_loss.exporting.accumulation import without_races
from compiled_loss.exporting.graphs import Graph, LossGraph
from compiled_loss.exporting.interface import Port, dynamic_axes, examples
from compiled_loss.exporting.outputs import gradient_outputs
from compiled_loss.torch_private import MissingInterfaceError, probe, quiet

_NOT_JOINT = "a torch whose joint graph returns the loss, its terms and a gradient for every prediction"


def joint_interface() -> Callable[[ExportedProgram], ExportedProgram]:
    """The function of torch that makes a joint graph of forward and backward, an interface that it calls unstable.

    Raises:
        ValueError: if this version of torch lacks it.
    """
    try:
        return probe("joint graph")
    except MissingInterfaceError as error:
        raise ValueError(
            f"gradients: expected a version of torch that can put them into the graph, but {error}"
        ) from None


def export_program(graph: "Graph | JointGraph") -> ExportedProgram:
    """Export a graph with torch.export, with dynamic B and N."""
    with torch.no_grad(), quiet():
        return _export(graph, graph.inputs)


class JointGraph(nn.Module):
    """A loss with its gradients for every prediction, as one function without autograd (experimental).

    Args:
        graph: the loss.

    Raises:
        ValueError: if this version of torch has no joint graph, or another kind of it.
    """

    def __init__(self, graph: LossGraph) -> None:
        super().__init__()
        make = joint_interface()
        self.inputs = graph.inputs
        self.outputs = [*graph.outputs, *gradient_outputs(graph.predictions)]
        learnt = {port.name for port in graph.predictions}
        with quiet():
            joint = make(_export(graph, graph.inputs, learnt))
        kinds = [OutputKind.LOSS_OUTPUT, *[OutputKind.USER_OUTPUT] * (len(graph.outputs) - 1)]
        kinds += [OutputKind.GRADIENT_TO_USER_INPUT] * len(learnt)
        got = [spec.kind for spec in joint.graph_signature.output_specs]
        require(got == kinds, "gradients", _NOT_JOINT, f"torch {torch.__version__}: {[x.name for x in got]}")
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
    """Replace uninitialised memory by zeros: ONNX has no operator for it, and all of it is overwritten anyway."""
    for node in body.graph.nodes:
        if node.target is torch.ops.aten.empty_permuted.default:
            node.target = torch.ops.aten.full.default
            node.args = (node.args[0], 0)
    body.recompile()


def _export(graph: nn.Module, ports: list[Port], learnt: set[str] | frozenset[str] = frozenset()) -> ExportedProgram:
    inputs: dict[str, Any] = examples(ports)
    inputs = {name: x.requires_grad_(name in learnt) for name, x in inputs.items()}
    return torch.export.export(graph, (inputs,), dynamic_shapes=(dynamic_axes(ports),))
