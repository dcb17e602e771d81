"""Which loss a head needs, from the attributes of the head and of its model alone.

Letters: C classes, K keypoints.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from compiled_loss.checks import finite_number, require, whole_number
from compiled_loss.losses.detection import DetectionLoss
from compiled_loss.losses.end_to_end import EndToEndLoss
from compiled_loss.losses.oriented import OrientedLoss
from compiled_loss.losses.pose import PoseLoss
from compiled_loss.losses.residual_pose import ResidualPoseLoss
from compiled_loss.losses.segmentation import SegmentationLoss

GAINS = {"box": 7.5, "cls": 0.5, "dfl": 1.5, "pose": 12.0, "kobj": 1.0, "rle": 1.0, "angle": 1.0}


class Task(NamedTuple):
    """What a criterion reads, computes and reports.

    Args:
        kind: class of the task's loss.
        options: its keyword arguments.
        names: terms in the order in which they are reported.
        maps: fields of `Predictions`, and the key of each in what the head returns.
        rows: keys of a batch that hold the targets.
        end_to_end: whether the head has a one-to-many and a one-to-one branch.
        index_maps: whether all masks of an image come in one.
        epochs: E of the share of the branches.

    Example:
        >>> task = Task(DetectionLoss, {"num_classes": 2}, ("box", "cls", "dfl"), {"boxes": "boxes"}, ("cls",), False)
        >>> task.kind(**task.options).num_classes
        2
    """

    kind: type[DetectionLoss]
    options: dict[str, Any]
    names: tuple[str, ...]
    maps: dict[str, str]
    rows: tuple[str, ...]
    end_to_end: bool
    index_maps: bool = True
    epochs: float = 1

    def make_loss(self) -> DetectionLoss | EndToEndLoss:
        """The loss, of both branches where there are two."""
        return EndToEndLoss(self.kind, **self.options) if self.end_to_end else self.kind(**self.options)


def read_task(model: Any) -> Task:
    """The task of a model.

    Args:
        model: a model whose `model.model[-1]` is its head.

    Returns:
        `Task`.

    Raises:
        ValueError: for a model without a detection head, or one whose strides are not set, or numbers out of range.

    Example:
        >>> from types import SimpleNamespace
        >>> head = SimpleNamespace(nc=2, reg_max=1, stride=torch.tensor([8.0, 16.0]), ne=1)
        >>> read_task(SimpleNamespace(model=[head])).names
        ('box', 'cls', 'l1', 'angle')
    """
    head = _head(model)
    given = getattr(model, "args", None) or {}
    given = given if isinstance(given, Mapping) else vars(given)

    def setting(name: str, default: float) -> float:
        return finite_number(f"model.args.{name}", default if given.get(name) is None else given[name])

    gains = {name: setting(name, default) for name, default in GAINS.items()}
    weights = getattr(model, "class_weights", None)
    options: dict[str, Any] = {
        "num_classes": _count(head.nc, "nc"),
        "strides": _strides(head),
        "reg_max": _count(head.reg_max, "reg_max"),
        "class_weights": None if weights is None else torch.as_tensor(weights, device=device_of(head)).flatten(),
        **{f"{name}_gain": gains[name] for name in ("box", "cls", "dfl")},
    }
    side = "dfl" if head.reg_max > 1 else "l1"
    maps, rows = {"boxes": "boxes", "scores": "scores"}, ("batch_idx", "cls", "bboxes")
    end_to_end = _has(head, "one2one_cv2")
    rest = (end_to_end, bool(given.get("overlap_mask", True)), setting("epochs", 1))
    if _has(head, "ne"):
        options["angle_gain"] = gains["angle"]
        names = ("box", "cls", side, "angle")
        return Task(OrientedLoss, options, names, maps | {"angles": "angle"}, rows, *rest)
    if _has(head, "nm"):
        options["mask_overlap"] = _has(getattr(head, "proto", None), "semseg")
        names = ("box", "seg", "cls", side, "sem")
        maps |= {"coefficients": "mask_coefficient", "prototypes": "proto"}
        return Task(SegmentationLoss, options, names, maps, (*rows, "masks"), *rest)
    shape = getattr(head, "kpt_shape", None)
    if shape is None:
        return Task(DetectionLoss, options, ("box", "cls", side), maps, rows, *rest)
    require(isinstance(shape, Sequence) and len(shape) == 2, "model.model[-1].kpt_shape", "(K, D)", shape)
    options |= {"num_keypoints": _count(shape[0], "kpt_shape"), "keypoint_dims": _count(shape[1], "kpt_shape")}
    options |= {"pose_gain": gains["pose"], "kobj_gain": gains["kobj"]}
    maps, rows, names = maps | {"keypoints": "kpts"}, (*rows, "keypoints"), ("box", "pose", "kobj", "cls", side)
    if not _has(head, "flow_model"):
        return Task(PoseLoss, options, names, maps, rows, *rest)
    options |= {"flow": head.flow_model.log_prob, "rle_gain": gains["rle"]}
    return Task(ResidualPoseLoss, options, (*names, "rle"), maps, rows, *rest)


def _count(value: Any, name: str) -> int:
    return whole_number(f"model.model[-1].{name}", value)


def _has(thing: Any, name: str) -> bool:
    return getattr(thing, name, None) is not None


def _head(model: Any) -> Any:
    layers = getattr(model, "model", None)
    try:
        head = layers[-1]  # type: ignore[index]
    except (TypeError, IndexError):
        raise ValueError(
            f"model: expected one whose model.model[-1] is its head, got {type(model).__name__}; "
            "of a wrapper with .train() and .predict() give the network inside, wrapper.model"
        ) from None
    kind = type(head).__name__
    lacking = [name for name in ("nc", "reg_max", "stride") if not hasattr(head, name)]
    require(not lacking, "model", "a detection head with nc, reg_max and stride", f"{kind} without {lacking}")
    strides = _strides(head)
    require(min(strides, default=0) > 0, "model", "a head whose strides are set", f"stride {list(strides)}")
    return head


def _strides(head: Any) -> tuple[float, ...]:
    return tuple(torch.as_tensor(head.stride, device=device_of(head)).tolist())


def device_of(head: Any) -> torch.device:
    """The device of a head, whatever the default one is."""
    return head.stride.device if isinstance(head.stride, torch.Tensor) else torch.device("cpu")
