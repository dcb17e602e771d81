"""The eager function that an exported file must agree with, rebuilt from the file's metadata."""

from collections.abc import Callable

import torch
from torch import Tensor

from compiled_loss.checks import require
from compiled_loss.exporting.graphs import AssignmentGraph, DecodingGraph, Graph, LossGraph
from compiled_loss.exporting.metadata import Metadata, rebuild
from compiled_loss.exporting.outputs import GRADIENT, gradient_outputs
from compiled_loss.losses.dense import DenseLoss

Function = Callable[[dict[str, Tensor]], dict[str, Tensor]]


def eager(metadata: Metadata, compiler: Callable[[Graph], Function] | None = None) -> Function:
    """The exported graph in eager torch, with gradients by autograd.

    Args:
        metadata: the file's metadata.
        compiler: applied to the graph, such as `torch.compile`; None leaves it eager.

    Returns:
        A function from named inputs to named outputs.

    Raises:
        ValueError: if the loss cannot be rebuilt, or the tables of inputs and outputs do not match the loss.

    Example:
        >>> from compiled_loss import DetectionLoss
        >>> from compiled_loss.exporting.interface import Setting, examples
        >>> from compiled_loss.exporting.metadata import describe
        >>> setting = Setting(image_size=(64, 64))
        >>> graph = LossGraph(DetectionLoss(2), setting)
        >>> function = eager(describe(DetectionLoss(2), setting, "loss", graph.inputs, graph.outputs))
        >>> list(function(examples(graph.inputs)))
        ['loss', 'loss_box', 'loss_cls', 'loss_dfl', 'num_positives', 'overflow']
    """
    loss, setting = rebuild(metadata)
    kinds = ("assignment", "decoding", "loss", "gradients") if isinstance(loss, DenseLoss) else ("loss", "gradients")
    require(metadata.graph in kinds, "metadata.graph", f"one of {', '.join(kinds)}", metadata.graph)
    if metadata.graph in ("assignment", "decoding"):
        assert isinstance(loss, DenseLoss)
        graph = (AssignmentGraph if metadata.graph == "assignment" else DecodingGraph)(loss, setting)
    else:
        graph = LossGraph(loss, setting)
    gradients = gradient_outputs(graph.predictions) if metadata.graph == "gradients" else []
    for name, ports in (("inputs", graph.inputs), ("outputs", [*graph.outputs, *gradients])):
        told = [(p.name, p.shape, p.dtype) for p in getattr(metadata, name)]
        expected = [(p.name, p.shape, p.dtype) for p in ports]
        require(told == expected, f"metadata.{name}", f"{expected}", told)
    forward: Function = graph if compiler is None else compiler(graph)
    learnt = [port.name for port in graph.predictions]

    def function(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        if not gradients:
            with torch.no_grad():
                return forward(inputs)
        inputs = {name: x.detach().requires_grad_(name in learnt) for name, x in inputs.items()}
        outputs = forward(inputs)
        found = torch.autograd.grad(
            outputs["loss"], [inputs[name] for name in learnt], allow_unused=True, materialize_grads=True
        )
        outputs = {name: x.detach() for name, x in outputs.items()}
        return {**outputs, **{GRADIENT + name: x for name, x in zip(learnt, found, strict=True)}}

    return function
