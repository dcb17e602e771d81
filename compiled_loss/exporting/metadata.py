"""What an exported file says about itself, and the loss made anew from it."""

import inspect
import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

import torch
from torch import Tensor

from compiled_loss.checks import require
from compiled_loss.exporting.interface import Loss, Port, Setting, check_setting, main_loss, task_of
from compiled_loss.losses.detection import DetectionLoss
from compiled_loss.losses.end_to_end import EndToEndLoss
from compiled_loss.losses.oriented import OrientedLoss
from compiled_loss.losses.pose import PoseLoss
from compiled_loss.losses.residual_pose import ResidualPoseLoss
from compiled_loss.losses.segmentation import SegmentationLoss

INTERFACE_VERSION = 1  # counts up with every change of a name, a shape or a meaning
_LOSSES = {kind.__name__: kind for kind in (DetectionLoss, PoseLoss, ResidualPoseLoss, OrientedLoss, SegmentationLoss)}
_TENSORS = {"class_weights", "sigmas", "keypoint_weights"}
_WRITERS = ("compiled-loss", "torch", "onnx", "onnxscript")


class Metadata(NamedTuple):
    """What a file says about itself.

    Args:
        interface_version: of the names, shapes and meanings.
        graph: "assignment", "loss" or "gradients".
        experimental: whether the graph rests on an unstable interface of torch.
        task: "detect", "pose", "obb" or "segment".
        constants: class and arguments of the loss, and what else the graph fixes.
        versions: of the packages that wrote the file.
        inputs: name, shape, dtype and meaning of every input, in order.
        outputs: the same of every output.

    Example:
        >>> text = {"interface_version": "1", "graph": '"loss"', "experimental": "false", "task": '"detect"',
        ...         "constants": "{}", "versions": "{}", "inputs": "[]", "outputs": "[]"}
        >>> Metadata.from_text(text).task
        'detect'
    """

    interface_version: int
    graph: str
    experimental: bool
    task: str
    constants: dict[str, Any]
    versions: dict[str, str]
    inputs: list[Port]
    outputs: list[Port]

    def to_text(self) -> dict[str, str]:
        """Every field as JSON."""
        return {name: json.dumps(value) for name, value in self._asdict().items()}

    @classmethod
    def from_text(cls, text: dict[str, str]) -> "Metadata":
        """The fields read back.

        Raises:
            ValueError: for text that no program of this package wrote, or another version of the interface.
        """
        missing = [name for name in cls._fields if name not in text]
        require(not missing, "file", "metadata of a graph of compiled_loss", f"none of {', '.join(missing)}")
        with _as_written("metadata"):
            fields = {name: json.loads(text[name]) for name in cls._fields}
            number = fields["interface_version"]
            require(number == INTERFACE_VERSION, "interface_version", str(INTERFACE_VERSION), number)
            for name in ("inputs", "outputs"):
                fields[name] = [Port(n, tuple(shape), dtype, meaning) for n, shape, dtype, meaning in fields[name]]
            return cls(**fields)


def describe(loss: Loss, setting: Setting, graph: str, inputs: list[Port], outputs: list[Port]) -> Metadata:
    """The metadata of a graph."""
    end_to_end = isinstance(loss, EndToEndLoss)
    task = main_loss(loss)
    arguments = _arguments(task)
    if end_to_end:
        arguments = {name: value for name, value in arguments.items() if name not in ("top_k", "keep")}
    constants = {
        "loss": type(task).__name__,
        "arguments": arguments,
        "end_to_end": {"plain_sum": loss.plain_sum} if end_to_end else None,
        "setting": setting._asdict(),
    }
    versions = {name: found for name in _WRITERS if (found := _version(name)) is not None}
    experimental = graph == "gradients"
    return Metadata(INTERFACE_VERSION, graph, experimental, task_of(loss), constants, versions, inputs, outputs)


def rebuild(metadata: Metadata) -> tuple[Loss, Setting]:
    """The loss and the setting that a file was written for, made anew from its constants.

    Args:
        metadata: of the file.

    Returns:
        `(loss, setting)`.

    Raises:
        ValueError: for a loss that is no class of this package, one with a function among its arguments, or constants
            that no program of this package wrote.

    Example:
        >>> from compiled_loss import DetectionLoss
        >>> loss, setting = rebuild(describe(DetectionLoss(3), Setting(), "loss", [], []))
        >>> loss.num_classes, setting.image_size
        (3, (640, 640))
    """
    with _as_written("constants"):
        loss, setting = _rebuild(metadata.constants)
        check_setting(loss, setting)
    require(metadata.task == task_of(loss), "metadata.task", task_of(loss), metadata.task)
    return loss, setting


def _rebuild(constants: dict[str, Any]) -> tuple[Loss, Setting]:
    kind = _LOSSES.get(constants["loss"])
    require(kind is not None, "constants.loss", f"one of {', '.join(_LOSSES)}", constants["loss"])
    # A graph looks at no value, and takes every row outside [0, B) for padding; so does what it is compared with.
    arguments: dict[str, Any] = {**constants["arguments"], "check_values": False}
    for name in _TENSORS & arguments.keys():
        arguments[name] = None if arguments[name] is None else torch.tensor(arguments[name])
    flow = arguments.get("flow")
    require(flow is None, "constants.arguments.flow", "none, since a function cannot be made anew", flow)
    setting = Setting(**constants["setting"])
    if setting.image_size is not None:
        setting = setting._replace(image_size=tuple(setting.image_size))
    assert kind is not None
    if constants["end_to_end"] is None:
        return kind(**arguments), setting
    return EndToEndLoss(kind, **constants["end_to_end"], **arguments), setting


@contextmanager
def _as_written(what: str) -> Iterator[None]:
    """Names what cannot be read, in place of the error that it leads to."""
    try:
        yield
    except (KeyError, TypeError, AttributeError) as error:
        got = f"{type(error).__name__}: {error}"
        raise ValueError(f"{what}: expected what a program of compiled_loss writes, got {got}") from error


def _version(package: str) -> str | None:
    """Of an installed package; None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _arguments(loss: DetectionLoss) -> dict[str, Any]:
    """The arguments of the constructor that a graph depends on; every loss keeps them under their own names."""
    found = {}
    for cls in type(loss).__mro__:
        if not issubclass(cls, DetectionLoss):
            break
        for name, parameter in inspect.signature(cls.__init__).parameters.items():
            named = parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
            if named and hasattr(loss, name) and name != "check_values":
                found[name] = _plain(getattr(loss, name))
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.tolist()
    return repr(value) if callable(value) else value
