"""The metadata of an exported file, and the loss rebuilt from it."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from types import MappingProxyType
from typing import Any, NamedTuple

from compiled_loss.checks import require
from compiled_loss.exporting.constants import loss_of, made, plain, plain_loss
from compiled_loss.exporting.interface import Loss, Port, Setting, check_setting
from compiled_loss.losses.end_to_end import EndToEndLoss, main_loss

INTERFACE_VERSION = 1  # increases with every change of a name, a shape or a meaning
_WRITERS = ("compiled-loss", "torch", "onnx", "onnxscript")


class Metadata(NamedTuple):
    """The metadata of an exported file.

    Args:
        interface_version: version of the names, shapes and meanings.
        graph: "assignment", "loss", "gradients" or "decoding".
        experimental: whether the graph relies on an unstable interface of torch.
        task: "detect", "pose", "obb" or "segment".
        constants: class and arguments of the loss, and everything else that the graph fixes.
        versions: versions of the packages that wrote the file.
        inputs: name, shape, dtype and meaning of every input, in order.
        outputs: the same for every output.
        needs: what a runtime must support for an ONNX file: "opset", "operators" and "dtypes"; empty for other files.

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
    needs: Mapping[str, Any] = MappingProxyType({})

    def to_text(self) -> dict[str, str]:
        """Every field as JSON."""
        return {name: json.dumps(value) for name, value in {**self._asdict(), "needs": dict(self.needs)}.items()}

    @classmethod
    def from_text(cls, text: dict[str, str]) -> "Metadata":
        """Read the fields back from JSON.

        Raises:
            ValueError: if this package did not write the text, or the interface version differs.
        """
        text = {"needs": "{}", **text}
        missing = [name for name in cls._fields if name not in text]
        require(not missing, "file", "metadata of a graph of compiled_loss", f"no {', '.join(missing)}")
        with _as_written("metadata"):
            fields = {name: json.loads(text[name]) for name in cls._fields}
            number = fields["interface_version"]
            require(number == INTERFACE_VERSION, "interface_version", str(INTERFACE_VERSION), number)
            for name in ("inputs", "outputs"):
                fields[name] = [Port(n, tuple(shape), dtype, meaning) for n, shape, dtype, meaning in fields[name]]
            return cls(**fields)


def describe(loss: Loss, setting: Setting, graph: str, inputs: list[Port], outputs: list[Port]) -> Metadata:
    """The metadata of a graph."""
    branches = None
    if isinstance(loss, EndToEndLoss):
        branches = {"one_to_one": plain(loss.one_to_one), "plain_sum": loss.plain_sum}
    task = main_loss(loss)
    constants = {**plain_loss(task), "end_to_end": branches, "setting": setting._asdict()}
    versions = {name: found for name in _WRITERS if (found := _version(name)) is not None}
    experimental = graph == "gradients"
    return Metadata(INTERFACE_VERSION, graph, experimental, task.task, constants, versions, inputs, outputs)


def rebuild(metadata: Metadata) -> tuple[Loss, Setting]:
    """Rebuild the loss and the setting that a file was written for from its constants.

    Args:
        metadata: the file's metadata.

    Returns:
        `(loss, setting)`.

    Raises:
        ValueError: if the loss is not from this package or has a function among its arguments, or if this package did
            not write the constants.

    Example:
        >>> from compiled_loss import DetectionLoss
        >>> loss, setting = rebuild(describe(DetectionLoss(3), Setting(), "loss", [], []))
        >>> loss.num_classes, setting.image_size
        (3, (640, 640))
    """
    with _as_written("constants"):
        loss, setting = _rebuild(metadata.constants)
        check_setting(loss, setting)
    task = main_loss(loss).task
    require(metadata.task == task, "metadata.task", task, metadata.task)
    return loss, setting


def _rebuild(constants: dict[str, Any]) -> tuple[Loss, Setting]:
    loss, branches = loss_of(constants), constants["end_to_end"]
    setting = Setting(**constants["setting"])
    sizes = {name: tuple(x) for name in ("image_size", "mask_size") if (x := getattr(setting, name)) is not None}
    setting = setting._replace(**sizes)
    if branches is None:
        return loss, setting
    one = made("constants.end_to_end.one_to_one", branches["one_to_one"])
    return EndToEndLoss(loss, one_to_one=one, plain_sum=branches["plain_sum"]), setting


@contextmanager
def _as_written(what: str) -> Iterator[None]:
    """Replace an error by one that says what cannot be read."""
    try:
        yield
    except (KeyError, TypeError, AttributeError) as error:
        got = f"{type(error).__name__}: {error}"
        raise ValueError(f"{what}: expected what compiled_loss writes, got {got}") from error


def _version(package: str) -> str | None:
    """The version of a package; None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
