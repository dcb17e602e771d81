"""Which loss a head needs, determined only from the attributes of the head and its model.

Letters: C classes, K keypoints.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from compiled_loss.assign.task_aligned import TaskAligned
from compiled_loss.checks import finite_number, require, whole_number
from compiled_loss.losses.dense import DenseLoss
from compiled_loss.losses.detection import DetectionLoss
from compiled_loss.losses.end_to_end import EndToEndLoss, main_loss
from compiled_loss.losses.oriented import OrientedLoss
from compiled_loss.losses.pose import PoseLoss
from compiled_loss.losses.residual_pose import ResidualPoseLoss
from compiled_loss.losses.segmentation import SegmentationLoss
from compiled_loss.terms.classification import BinaryCrossEntropy

GAINS = {"box": 7.5, "cls": 0.5, "dfl": 1.5, "pose": 12.0, "kobj": 1.0, "rle": 1.0, "angle": 1.0}


class Task(NamedTuple):
    """What a criterion reads, computes and reports.

    Args:
        loss: the task's loss, of both branches if there are two.
        maps: fields of `Predictions`, with the key of each in the head's output.
        rows: keys of a batch that hold the targets.
        index_maps: whether all masks of an image come in one map.
        epochs: total epochs E, for the share of the branches.

    Example:
        >>> Task(DetectionLoss(2), {"boxes": "boxes"}, ("cls",)).names
        ('box', 'cls', 'dfl')
    """

    loss: DenseLoss | EndToEndLoss
    maps: dict[str, str]
    rows: tuple[str, ...]
    index_maps: bool = True
    epochs: float = 1

    @property
    def end_to_end(self) -> bool:
        """Whether the head has a one-to-many and a one-to-one branch."""
        return isinstance(self.loss, EndToEndLoss)

    @property
    def main(self) -> DenseLoss:
        """The loss of either branch."""
        return main_loss(self.loss)

    @property
    def names(self) -> tuple[str, ...]:
        """Terms in the order in which they are reported."""
        return tuple(self.main.gains)


def read_task(model: Any, *, distributed: bool = False, keep_zeros: bool = True) -> Task:
    """The task of a model.

    Args:
        model: a model whose `model.model[-1]` is its head.
        distributed: average the normaliser over the ranks of the default process group.
        keep_zeros: for terms that are means over positives, of keypoints and masks, count the anchors of alignment 0
            that the model's own criterion counts (`TaskAligned`).

    Returns:
        `Task`.

    Raises:
        ValueError: if the model has no detection head, its strides are not set, or a number is out of range.

    Example:
        >>> from types import SimpleNamespace
        >>> head = SimpleNamespace(nc=2, reg_max=1, stride=torch.tensor([8.0, 16.0]), ne=1)
        >>> read_task(SimpleNamespace(model=[head])).names
        ('box', 'cls', 'l1', 'angle')
    """
    model = network_of(model)
    head = head_of(model, "model")
    strides = _strides(head)
    require(min(strides, default=0) > 0, "model", "a head whose strides are set", f"stride {list(strides)}")
    given = getattr(model, "args", None) or {}
    given = given if isinstance(given, Mapping) else vars(given)

    def setting(name: str, default: float) -> float:
        return finite_number(f"model.args.{name}", default if given.get(name) is None else given[name])

    gains = {name: setting(name, default) for name, default in GAINS.items()}
    weights, sigmas = (_tensor(getattr(model, name, None), head) for name in ("class_weights", "kpt_oks_sigmas"))
    loss, maps, rows = _loss(head, gains, weights, sigmas, distributed)
    if keep_zeros and rows:  # in other tasks, an anchor with score 0 has no effect
        assert isinstance(loss.assigner, TaskAligned)
        loss = loss.with_assigner(replace(loss.assigner, keep_zeros=True))
    maps, rows = {"boxes": "boxes", "scores": "scores", **maps}, ("batch_idx", "cls", "bboxes", *rows)
    both = EndToEndLoss(loss) if _has(head, "one2one_cv2") else loss
    return Task(both, maps, rows, bool(given.get("overlap_mask", True)), setting("epochs", 1))


def _loss(
    head: Any, gains: dict[str, float], weights: Tensor | None, sigmas: Tensor | None, distributed: bool
) -> tuple[DenseLoss, dict[str, str], tuple[str, ...]]:
    """The loss of one branch, and the maps and row keys of its task besides boxes and classes."""
    classes = _count(head.nc, "nc")
    common: dict[str, Any] = {
        "strides": _strides(head),
        "reg_max": _count(head.reg_max, "reg_max"),
        "classification": BinaryCrossEntropy(weights),
        "distributed": distributed,
        **{f"{name}_gain": gains[name] for name in ("box", "cls", "dfl")},
    }
    if _has(head, "ne"):
        return OrientedLoss(classes, angle_gain=gains["angle"], **common), {"angles": "angle"}, ()
    if _has(head, "nm"):
        masks = {"coefficients": "mask_coefficient", "prototypes": "proto"}
        # For heads of this kind that compare with embeddings, the assigner does not use masks.
        seen = _has(getattr(head, "proto", None), "semseg") and not hasattr(head, "embed")
        return SegmentationLoss(classes, mask_overlap=seen, **common), masks, ("masks",)
    shape = getattr(head, "kpt_shape", None)
    if shape is None:
        return DetectionLoss(classes, **common), {}, ()
    require(isinstance(shape, Sequence) and len(shape) == 2, "model.model[-1].kpt_shape", "(K, D)", shape)
    count, dims = (_count(x, "kpt_shape") for x in shape)
    common |= {f"{name}_gain": gains[name] for name in ("pose", "kobj")} | {"sigmas": sigmas}
    if not _has(head, "flow_model"):
        return PoseLoss(classes, count, keypoint_dims=dims, **common), {"keypoints": "kpts"}, ("keypoints",)
    flow, maps = head.flow_model.log_prob, {"keypoints": "kpts", "keypoint_sigmas": "kpts_sigma"}
    loss = ResidualPoseLoss(classes, count, keypoint_dims=dims, flow=flow, rle_gain=gains["rle"], **common)
    return loss, maps, ("keypoints",)


def _count(value: Any, name: str) -> int:
    return whole_number(f"model.model[-1].{name}", value)


def _tensor(values: Any, head: Any) -> Tensor | None:
    return None if values is None else torch.as_tensor(values, device=device_of(head)).flatten()


def _has(thing: Any, name: str) -> bool:
    return getattr(thing, name, None) is not None


def network_of(model: Any, argument: str = "model") -> Any:
    """The network inside wrappers such as DDP, FSDP, `torch.compile` or weight averaging.

    Raises:
        ValueError: for anything without a head `model.model[-1]`, showing a line that works.

    Example:
        >>> from types import SimpleNamespace
        >>> network = SimpleNamespace(model=["the head"])
        >>> network_of(SimpleNamespace(module=SimpleNamespace(_orig_mod=network))) is network
        True
    """
    inner = model
    while (found := getattr(inner, "module", None) or getattr(inner, "_orig_mod", None)) is not None:
        inner = found
    layers = getattr(inner, "model", None)
    try:
        layers[-1]  # type: ignore[index]
    except (TypeError, IndexError, KeyError):
        name = type(model).__name__
        expected = "a network whose model.model[-1] is its head"
        if hasattr(layers, "model"):
            expected += (
                ", not an object that trains it, because train() builds another network. Before train(), run `from "
            )
            expected += "compiled_loss.integrations.ultralytics import install` and `install(model, compile=True)`;"
            expected += " in a loop of your own, `network = model.model` and "
            expected += "`network.criterion = compiled_criterion(network, compile=True)`"
        raise ValueError(f"{argument}: expected {expected}, got {name}") from None
    return inner


def head_of(network: Any, argument: str) -> Any:
    """The head of a network.

    Raises:
        ValueError: naming the network's argument, if there is no loss here for its head.

    Example:
        >>> from types import SimpleNamespace
        >>> head_of(SimpleNamespace(model=[torch.nn.Linear(2, 2)]), "model")
        Traceback (most recent call last):
        ValueError: model: expected a head of boxes at anchors (detect, segment, pose, obb, World or YOLOE), with nc, \
reg_max and stride, got Linear without nc, reg_max, stride
    """
    head = network.model[-1]
    lacking = [name for name in ("nc", "reg_max", "stride") if not hasattr(head, name)]
    expected = "a head of boxes at anchors (detect, segment, pose, obb, World or YOLOE), with nc, reg_max and stride"
    require(not lacking, argument, expected, f"{type(head).__name__} without {', '.join(lacking)}")
    return head


def _strides(head: Any) -> tuple[float, ...]:
    return tuple(torch.as_tensor(head.stride, device=device_of(head)).tolist())


def device_of(head: Any) -> torch.device:
    """The device of a head, regardless of the default device."""
    return head.stride.device if isinstance(head.stride, torch.Tensor) else torch.device("cpu")
