"""The class and arguments of a loss as plain values that a file can hold, and the loss rebuilt from them."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from compiled_loss.assign.atss import ATSS
from compiled_loss.assign.centres import NearCentre, Nearest
from compiled_loss.assign.dynamic import DynamicSoftLabel, SimOTA
from compiled_loss.assign.regions import InBox
from compiled_loss.assign.rotated import InRotatedBox
from compiled_loss.assign.scheduled import Scheduled
from compiled_loss.assign.task_aligned import TaskAligned
from compiled_loss.checks import require
from compiled_loss.geometry.boxes import ciou, diou, giou, iou
from compiled_loss.geometry.gaussians import GWD, kfiou
from compiled_loss.geometry.overlaps import NWD, InnerIoU, MPDIoU, eiou, siou
from compiled_loss.geometry.rotated import probiou
from compiled_loss.losses.comparing import OneMinus
from compiled_loss.losses.dense import DenseLoss
from compiled_loss.losses.detection import DetectionLoss
from compiled_loss.losses.oriented import OrientedLoss
from compiled_loss.losses.pose import PoseLoss
from compiled_loss.losses.residual_pose import ResidualPoseLoss
from compiled_loss.losses.segmentation import SegmentationLoss
from compiled_loss.losses.wise import WIoU
from compiled_loss.terms.classification import BinaryCrossEntropy
from compiled_loss.terms.focal import FocalLoss, QualityFocalLoss, VarifocalLoss
from compiled_loss.terms.rotated import KFIoU, KullbackLeibler

_LOSSES: dict[str, type[DenseLoss]] = {
    kind.__name__: kind for kind in (DetectionLoss, PoseLoss, ResidualPoseLoss, OrientedLoss, SegmentationLoss)
}
_ASSIGNING = (TaskAligned, SimOTA, DynamicSoftLabel, ATSS, Scheduled, InBox, InRotatedBox, NearCentre, Nearest)
_OF_BOXES = (OneMinus, WIoU, KFIoU, KullbackLeibler, InnerIoU, MPDIoU, NWD, GWD)
_OF_CLASSES = (BinaryCrossEntropy, FocalLoss, QualityFocalLoss, VarifocalLoss)
_PARTS: dict[str, Any] = {kind.__name__: kind for kind in _ASSIGNING + _OF_BOXES + _OF_CLASSES}
_OVERLAPS = (iou, giou, diou, ciou, eiou, siou, probiou, kfiou)
_FUNCTIONS: dict[str, Callable[..., Any]] = {f.__name__: f for f in _OVERLAPS}


def plain_loss(loss: DenseLoss) -> dict[str, Any]:
    """Class and arguments of a loss.

    Example:
        >>> plain_loss(DetectionLoss(3, reg_max=1))["arguments"]["reg_max"]
        1
    """
    arguments = {name: value for name, value in loss.arguments.items() if name != "check_values"}
    return {"loss": type(loss).__name__, "arguments": {name: plain(value) for name, value in arguments.items()}}


def loss_of(constants: dict[str, Any]) -> DenseLoss:
    """Rebuild the loss that `plain_loss` described.

    Raises:
        ValueError: for a loss or a part that is not of this package.

    Example:
        >>> loss_of(plain_loss(DetectionLoss(3, assigner=TaskAligned(top_k=7)))).assigner.top_k
        7
    """
    kind = _LOSSES.get(constants["loss"])
    require(kind is not None, "constants.loss", f"one of {', '.join(_LOSSES)}", constants["loss"])
    assert kind is not None
    arguments = {name: made(f"constants.arguments.{name}", x) for name, x in constants["arguments"].items()}
    # A graph checks no values, and treats every row outside [0, B) as padding. So must the loss it is compared with.
    arguments["check_values"] = False
    return kind(**arguments).eval()  # eval: nor does a graph update a running mean


def plain(value: Any) -> Any:
    """An argument as a plain value: numbers, strings and lists unchanged, parts by name with their arguments."""
    if hasattr(value, "tolist"):  # tensors, and NumPy's arrays and numbers
        return value.tolist()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Sequence):
        return [plain(x) for x in value]
    name = type(value).__name__
    if _PARTS.get(name) is type(value):
        arguments = inspect.signature(type(value)).parameters
        return {"part": name, "arguments": {x: plain(getattr(value, x)) for x in arguments}}
    name = getattr(value, "__name__", "")
    if _FUNCTIONS.get(name) is value:
        return {"function": name}
    return {"unknown": repr(value)}


def made(argument: str, value: Any) -> Any:
    """Rebuild the argument that `plain` described.

    Raises:
        ValueError: naming the argument, for something that is not of this package.
    """
    if not isinstance(value, dict):
        return value
    expected = "a part of compiled_loss, since only these can be rebuilt"
    name = value.get("part", value.get("function", ""))
    if "function" in value and name in _FUNCTIONS:
        return _FUNCTIONS[name]
    require("part" in value and name in _PARTS, argument, expected, value.get("unknown", name))
    return _PARTS[name](**{x: made(f"{argument}.{x}", v) for x, v in value["arguments"].items()})
