"""One table of the names, axes, units and meanings of all tensors that enter or leave an exported graph.

The graphs' signatures, their dynamic axes, the metadata in the files and the example inputs are all derived from it.

Letters: B images, N rows, A anchors, C classes, R distance bins, K keypoints, P positive slots, M slots per image.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.export import Dim

from compiled_loss.assign.keys import MOST_EXPORTED
from compiled_loss.checks import check_shape, require, true_or_false
from compiled_loss.losses.dense import DenseLoss
from compiled_loss.losses.end_to_end import EndToEndLoss, main_loss
from compiled_loss.losses.fields import Map
from compiled_loss.pages import PAGE

Loss = DenseLoss | EndToEndLoss
NAMES = {"labels": "cls"}  # names in the files that differ from those of Targets
# Graph axes that vary, with the size used for tracing: not 0 or 1, which torch treats as constants, and for levels
# large enough that no size computed from them is 0 or 1. The minimum of levels is 2: a single column has other strides.
_AXES = {"B": 3, "N": 7, "h": 6, "w": 7}
_LEAST = {"h": 2, "w": 2}


class Setting(NamedTuple):
    """What an exported graph fixes besides the loss.

    Args:
        image_size: (height, width) in pixels, multiples of every stride; None leaves it open, and the predictions are
            then passed as one map per level.
        slots: M slots of the padded form; None for flat rows only.
        pages: pages of 64 candidate anchors for all rows; None for every anchor in every row. Rows beyond these, or in
            either case beyond 262144 pages over the number of levels, are counted in `overflow`.
        mask_tiles: tiles of 64 mask pixels for all rows' boxes, None for all; overflow is counted in the same way.
        prototypes: number of mask prototypes of a segmentation head.
        mask_stride: image pixels per pixel of prototypes and masks.
        semantic: whether a segmentation head predicts the class of every pixel, at twice the mask stride.
        k: detections per image of a decoding graph; None for every anchor.
        mask_size: (H, W) of a decoding graph's masks; None for the prototypes' size.
        for_onnx_runtime: optimise an ONNX file for ONNX Runtime. Single numbers are read with GatherElements, ten times
            as fast as Gather there, but which onnx's reference evaluator only accepts up to 63 entries; all integers
            have 64 bits, which tract does not accept.

    Example:
        >>> Setting(image_size=(64, 96)).slots is None
        True
    """

    image_size: tuple[int, int] | None = (640, 640)
    slots: int | None = None
    pages: int | None = None
    mask_tiles: int | None = None
    prototypes: int = 32
    mask_stride: int = 4
    semantic: bool = False
    k: int | None = None
    mask_size: tuple[int, int] | None = None
    for_onnx_runtime: bool = False


class Port(NamedTuple):
    """One tensor of a graph.

    Args:
        name: its name in the file.
        shape: sizes; a string is an axis, such as "B" or, for a level's map, "4h".
        dtype: as in torch.
        meaning: what it holds, with its unit.
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: str
    meaning: str


def branches(loss: Loss) -> tuple[str, ...]:
    """Prefixes of the predictions' names, one for each of the head's branches."""
    return ("many", "one") if isinstance(loss, EndToEndLoss) else ("pred",)


def check_setting(loss: Loss, setting: Setting) -> None:
    """Check that a loss and a setting fit each other.

    Raises:
        ValueError: naming the argument, what was expected and what was given.
    """
    require(isinstance(loss, DenseLoss | EndToEndLoss), "loss", "a loss of compiled_loss", type(loss).__name__)
    require(isinstance(setting, Setting), "setting", "a Setting", type(setting).__name__)
    true_or_false("semantic", setting.semantic)
    true_or_false("for_onnx_runtime", setting.for_onnx_runtime)
    task = main_loss(loss)
    require(not task.distributed, "loss.distributed", "False, since a graph runs in one process", True)
    coarsest, size = task.strides[-1], setting.image_size
    steps = [*task.strides]
    steps += sorted({pixels * setting.mask_stride for x in task.maps for pixels in (x.pixels, 2) if x.pixels})
    require(_whole(setting.mask_stride), "mask_stride", "a positive integer", setting.mask_stride)
    if size is None:
        nested = all(coarsest % stride == 0 for stride in steps)
        require(nested, "image_size", f"(height, width), as {steps} do not all divide {coarsest}", None)
    else:
        two = isinstance(size, Sequence) and len(size) == 2 and all(_whole(n) for n in size)
        require(two, "image_size", "(height, width) in pixels, or None", size)
        fits = all(n % stride == 0 for n in size for stride in steps)
        require(fits, "image_size", f"multiples of {sorted(set(steps))}", tuple(size))
    for name in ("slots", "pages", "mask_tiles", "k"):
        value = getattr(setting, name)
        require(value is None or _whole(value), name, "a positive integer, or None", value)
    keys = (setting.pages or 0) * PAGE * len(task.strides)
    require(keys <= MOST_EXPORTED, "pages", f"at most {MOST_EXPORTED // (PAGE * len(task.strides))}", setting.pages)
    require(_whole(setting.prototypes), "prototypes", "a positive integer", setting.prototypes)
    pair = (
        isinstance(setting.mask_size, Sequence) and len(setting.mask_size) == 2 and all(map(_whole, setting.mask_size))
    )
    require(
        setting.mask_size is None or pair, "mask_size", "(height, width) in mask pixels, or None", setting.mask_size
    )


def check_unused(setting: Setting, reasons: dict[str, str]) -> None:
    """Check that settings without a meaning for a graph have their default values.

    Raises:
        ValueError: naming the field and why it has no meaning.
    """
    for name, reason in reasons.items():
        value, default = getattr(setting, name), Setting._field_defaults[name]
        require(value == default, name, f"{default}, since {reason}", value)


def prediction_ports(loss: Loss, setting: Setting) -> list[Port]:
    """The predictions: each field as one tensor for a fixed image size, or as one map per level for an open one."""
    ports = []
    for branch in branches(loss):
        for x in _maps(loss, setting):
            name, channels = f"{branch}_{x.name}", setting.prototypes if isinstance(x.channels, str) else x.channels
            if x.pixels:
                shape = ("B", channels, *_cells(loss, setting, x.pixels * setting.mask_stride))
                ports.append(Port(name, shape, "float32", x.meaning))
            elif setting.image_size is not None:
                anchors = sum(rows * columns for rows, columns in grids(loss, setting.image_size))
                ports.append(Port(name, ("B", channels, anchors), "float32", f"{x.meaning}, levels finest first"))
            else:
                for stride in main_loss(loss).strides:
                    shape = ("B", channels, *_cells(loss, setting, stride))
                    ports.append(Port(f"{name}_{stride}", shape, "float32", f"{x.meaning}, level of stride {stride}"))
    return ports


def target_ports(loss: Loss, setting: Setting) -> list[Port]:
    """The targets: flat rows, and maps of the images."""
    pixels = ("B", *_cells(loss, setting, setting.mask_stride))
    return [
        Port(NAMES.get(x.name, x.name), pixels if "H" in x.shape else ("N", *x.shape), x.dtype, x.meaning)
        for x in main_loss(loss).fields
        if not x.optional or setting.semantic
    ]


def share_port() -> Port:
    """The weight of an end-to-end loss that changes during training."""
    return Port("share", (), "float32", "share of the one-to-many branch in the loss, 0.8 falling to 0.1")


def grids(loss: Loss, image_size: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    """Rows and columns of every level."""
    height, width = image_size
    return tuple((height // stride, width // stride) for stride in main_loss(loss).strides)


def examples(ports: Sequence[Port]) -> dict[str, Tensor]:
    """Inputs to trace with: zeros, with sizes that torch does not treat as constants."""
    return {port.name: torch.zeros(sizes(port, _AXES), dtype=getattr(torch, port.dtype)) for port in ports}


def sizes(port: Port, axes: dict[str, int]) -> list[int]:
    """A tensor's sizes, given the sizes of the axes."""
    found = []
    for size in port.shape:
        if isinstance(size, str):
            factor, axis = _split(size)
            size = factor * axes[axis]
        found.append(size)
    return found


def check_inputs(ports: Sequence[Port], inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the table, in order and contiguous, since an AOTInductor package reads memory without checks.

    Raises:
        ValueError: for a missing tensor, a wrong dtype, device or shape, or two sizes for one axis.

    Example:
        >>> ports = [Port("cls", ("N",), "int64", ""), Port("boxes", ("N", 4), "float32", "")]
        >>> check_inputs(ports, {"cls": torch.tensor([0]), "boxes": torch.zeros(2, 4)})
        Traceback (most recent call last):
        ValueError: boxes: expected shape [1, 4], got (2, 4)
    """
    names = [port.name for port in ports]
    missing = [name for name in names if name not in inputs]
    require(not missing, "inputs", f"the tensors {', '.join(names)}", f"no {', '.join(missing)}")
    axes: dict[str, int] = {}
    for port in ports:
        x = inputs[port.name]
        check_shape(port.name, x, port.shape)
        require(str(x.dtype) == f"torch.{port.dtype}", port.name, f"torch.{port.dtype}", x.dtype)
        require(x.device.type == "cpu", port.name, "a tensor on the CPU", x.device)
        for got, size in zip(x.shape, port.shape, strict=True):
            if isinstance(size, str):
                factor, axis = _split(size)
                axes.setdefault(axis, got // factor)
        require(list(x.shape) == sizes(port, axes), port.name, sizes(port, axes), tuple(x.shape))
    return {name: inputs[name].detach().contiguous() for name in names}


def dynamic_axes(ports: Sequence[Port]) -> dict[str, dict[int, Any]]:
    """The dimensions of every input that vary, in the form of torch.export."""
    axes = {name: Dim(name, min=_LEAST.get(name, 0)) for name in _AXES}
    shapes: dict[str, dict[int, Any]] = {}
    for port in ports:
        varying = {i: _split(size) for i, size in enumerate(port.shape) if isinstance(size, str)}
        shapes[port.name] = {
            i: factor * axes[axis] if factor > 1 else axes[axis] for i, (factor, axis) in varying.items()
        }
    return shapes


def _maps(loss: Loss, setting: Setting) -> list[Map]:
    """The maps that the head predicts; maps of pixels come last, semantic logits only if requested."""
    maps = main_loss(loss).maps
    return [x for x in maps if not x.pixels] + [x for x in maps if x.pixels and (setting.semantic or not x.optional)]


def _cells(loss: Loss, setting: Setting, stride: int) -> tuple[int | str, int | str]:
    """Rows and columns of a map with a pixel every `stride`."""
    if setting.image_size is not None:
        height, width = setting.image_size
        return height // stride, width // stride
    factor = main_loss(loss).strides[-1] // stride
    return ("h", "w") if factor == 1 else (f"{factor}h", f"{factor}w")


def _split(size: str) -> tuple[int, str]:
    """`4h` is four times the axis h."""
    return int(size[:-1] or 1), size[-1]


def _whole(n: object) -> bool:
    return isinstance(n, int) and not isinstance(n, bool) and n >= 1
