"""A loss and its graph from command-line options."""

import argparse
import inspect
import math
from collections.abc import Callable
from typing import Any

from compiled_loss.assign.task_aligned import TaskAligned
from compiled_loss.exporting.interface import Setting
from compiled_loss.losses.dense import DenseLoss
from compiled_loss.losses.detection import DetectionLoss
from compiled_loss.losses.end_to_end import EndToEndLoss
from compiled_loss.losses.oriented import OrientedLoss
from compiled_loss.losses.pose import PoseLoss
from compiled_loss.losses.residual_pose import ResidualPoseLoss
from compiled_loss.losses.segmentation import SegmentationLoss

TASKS: dict[str, Callable[..., DenseLoss]] = {
    "detect": DetectionLoss,
    "pose": PoseLoss,
    "obb": OrientedLoss,
    "segment": SegmentationLoss,
}
# Options that have a meaning for only one task.
ONLY = {
    "pose": ("keypoints", "keypoint_dims", "residual"),
    "segment": ("prototypes", "mask_stride", "mask_tiles", "mask_overlap", "semantic"),
}
CLASSES = {"detect": 80, "pose": 1, "obb": 15, "segment": 80}  # as in COCO and DOTA


def add_loss(parser: argparse.ArgumentParser, out: str, *, targets: bool = True) -> None:
    """Add the options that describe a loss and its graph; those about targets only if the graph has targets."""
    add = parser.add_argument
    add("--task", choices=TASKS, default="detect", help="task of the head")
    add("--out", default=out, help=".onnx, .pt2 (torch.export archive) or .aoti.pt2 (AOTInductor package)")
    add("--image-size", nargs="+", default="640 640", metavar="PIXELS", help="HEIGHT WIDTH, or any for an open size")
    add("--classes", type=int, help="number of classes; None: as in COCO, for obb as in DOTA")
    add("--reg-max", type=int, default=16, help="distance bins per side; 1 for heads without bins")
    add("--strides", type=int, nargs="+", default=[8, 16, 32], help="pixels per cell of each level, finest first")
    add("--for-onnx-runtime", action="store_true", help="use GatherElements and 64-bit integers in an ONNX file")
    pose = parser.add_argument_group("pose")
    pose.add_argument("--keypoints", type=int, default=17, help="keypoints per object")
    pose.add_argument("--keypoint-dims", type=int, default=3, help="3 with a visibility logit, 2 without")
    pose.add_argument("--residual", action="store_true", help="keypoints are offsets, and the assigner compares them")
    segment = parser.add_argument_group("segment")
    segment.add_argument("--prototypes", type=int, default=32, help="mask prototypes")
    segment.add_argument("--mask-stride", type=int, default=4, help="image pixels per mask pixel")
    learning = parser if targets else argparse.ArgumentParser()
    _add_learning(learning.add_argument_group("learning"), segment if targets else learning)
    if not targets:  # the loss is built with the defaults of these options
        parser.set_defaults(**vars(learning.parse_args([])))


def _add_learning(learning: Any, segment: Any) -> None:
    add = learning.add_argument
    add("--top-k", type=int, default=10, help="anchors that a target row selects")
    add("--keep", type=int, help="anchors that a row keeps; one-to-one branches have --top-k 7 --keep 1")
    add("--alpha", type=float, default=0.5, help="power of the class score in the alignment")
    add("--beta", type=float, default=6.0, help="power of the overlap in the alignment")
    add("--pages", type=int, help="planned pages of 64 candidate anchors for all rows; None: room for every anchor")
    segment.add_argument("--mask-tiles", type=int, help="planned tiles of 64 mask pixels; None: room for every pixel")
    segment.add_argument("--mask-overlap", action="store_true", help="let the assigner compare masks")
    segment.add_argument("--semantic", action="store_true", help="the head predicts the class of every pixel")


def check_together(parser: argparse.ArgumentParser, given: argparse.Namespace) -> None:
    """End the program with status 2 for an option that would have no effect together with the others."""

    def refuse(names: tuple[str, ...], reason: str) -> None:
        idle = [f"--{name.replace('_', '-')}" for name in names if getattr(given, name) != parser.get_default(name)]
        if idle:
            parser.error(f"{', '.join(idle)}: {reason}")

    for task, names in ONLY.items():
        if task != given.task:
            refuse(names, f"expected only with --task {task}, got --task {given.task}")
    if getattr(given, "end_to_end", False):
        refuse(("top_k", "keep"), "expected without --end-to-end, which sets them for each branch")


def loss_of(given: argparse.Namespace, *, end_to_end: bool = False, gains: list[str] | None = None) -> Any:
    """The loss that the options describe.

    Raises:
        ValueError: naming an argument that the loss refuses.
    """
    classes = CLASSES[given.task] if given.classes is None else given.classes
    options: dict[str, Any] = {
        "num_classes": classes,
        "strides": tuple(given.strides),
        "reg_max": given.reg_max,
    }
    assigner: dict[str, Any] = {"top_k": given.top_k, "keep": given.keep, "alpha": given.alpha, "beta": given.beta}
    kind = TASKS[given.task]
    if given.task == "pose":
        options |= {"num_keypoints": given.keypoints, "keypoint_dims": given.keypoint_dims}
        if given.residual:
            kind, options["flow"] = ResidualPoseLoss, None
    elif given.task == "segment":
        options["mask_overlap"] = given.mask_overlap
    terms = _terms(kind)
    for name, factor in map(_gain, gains or []):
        if name not in terms:
            raise ValueError(f"--gain: expected a term of task {given.task} ({', '.join(terms)}), got {name}")
        options[f"{name}_gain"] = factor
    loss = kind(**options, assigner=TaskAligned(**assigner))
    return EndToEndLoss(loss) if end_to_end else loss


def setting_of(given: argparse.Namespace, slots: int | None = None) -> Setting:
    """What the graph fixes besides the loss.

    Raises:
        ValueError: for an image size that is neither two numbers nor `any`.
    """
    size, text = None, given.image_size if isinstance(given.image_size, str) else " ".join(given.image_size)
    if text != "any":
        words = text.split()
        if len(words) != 2 or not all(x.isdecimal() for x in words):
            raise ValueError(f"--image-size: expected HEIGHT WIDTH in pixels, or any, got {text}")
        size = (int(words[0]), int(words[1]))
    names = ("pages", "mask_tiles", "prototypes", "mask_stride", "semantic", "for_onnx_runtime")
    return Setting(size, slots, **{name: getattr(given, name) for name in names})


def _gain(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        factor = float(value)
    except ValueError:
        raise ValueError(f"--gain: expected TERM=NUMBER, got {text}") from None
    if not 0 <= factor < math.inf:
        raise ValueError(f"--gain: expected a finite number of 0 or more, got {text}")
    return name, factor


def _terms(kind: Callable[..., DenseLoss]) -> list[str]:
    """The terms for which a loss has gains."""
    names = inspect.signature(kind).parameters
    return sorted(name.removesuffix("_gain") for name in names if name.endswith("_gain"))
