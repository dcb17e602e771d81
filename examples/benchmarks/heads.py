"""Heads of every task: their predictions, the batch as a trainer has it, and the criteria that are compared.

Letters: A anchors.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from batches import CLASSES, GRID_SIZES, KEYPOINTS, MASK, STRIDES
from torch import Tensor

from compiled_loss import Targets
from compiled_loss.integrations.ultralytics import compiled_criterion

ANCHORS = sum(h * w for h, w in GRID_SIZES)
PROTOTYPES = 32
ARGS = SimpleNamespace(
    box=7.5, cls=0.5, dfl=1.5, pose=12.0, kobj=1.0, rle=1.0, angle=1.0, overlap_mask=True, epochs=100
)


class Head(NamedTuple):
    """The head of a task.

    Args:
        config: what the reference calls a model that has it.
        task: what `batches.add_fields` adds.
        maps: channels of the maps that it has besides boxes and scores.
        attributes: what `compiled_criterion` knows it by.
        reg_max: distance bins.
        end_to_end: whether it has two branches.
    """

    config: str
    task: str = "detect"
    maps: Mapping[str, int] = {}
    attributes: Mapping[str, Any] = {}
    reg_max: int = 16
    end_to_end: bool = False


HEADS = {
    "detect": Head("yolo11n.yaml"),
    "pose": Head("yolo11n-pose.yaml", "pose", {"kpts": 3 * KEYPOINTS}, {"kpt_shape": (KEYPOINTS, 3)}),
    "obb": Head("yolo11n-obb.yaml", "obb", {"angle": 1}, {"ne": 1}),
    "segment": Head("yolo11n-seg.yaml", "segment", {"mask_coefficient": PROTOTYPES}, {"nm": PROTOTYPES}),
    "end2end, reg_max 1": Head("yolo26n.yaml", attributes={"one2one_cv2": ()}, reg_max=1, end_to_end=True),
    "end2end, reg_max 16": Head("yolov10n.yaml", attributes={"one2one_cv2": ()}, end_to_end=True),
}


def make_preds(head: Head, images: int, device: str) -> dict[str, Any]:
    """What the head returns, as of a model in training: confident about few, boxes of all sizes; maps are leaves."""
    if head.end_to_end:
        one = head._replace(end_to_end=False)
        return {branch: make_preds(one, images, device) for branch in ("one2many", "one2one")}

    def normal(*shape: int) -> Tensor:
        return torch.randn(images, *shape, device=device)

    boxes = normal(4 * head.reg_max, ANCHORS)
    maps = {"boxes": boxes if head.reg_max > 1 else boxes.abs() * 3, "scores": normal(CLASSES, ANCHORS) - 4}
    maps |= {name: normal(channels, ANCHORS) for name, channels in head.maps.items()}
    if head.task == "segment":
        maps["proto"] = normal(PROTOTYPES, MASK, MASK)
    leaves = {name: x.requires_grad_() for name, x in maps.items()}
    return leaves | {"feats": [torch.zeros(images, 1, *size, device=device) for size in GRID_SIZES]}


def leaves_of(preds: Mapping[str, Any]) -> list[Tensor]:
    """The maps that get gradients, of both branches where there are two."""
    nested = [leaves_of(x) for x in preds.values() if isinstance(x, Mapping)]
    return [x for x in preds.values() if isinstance(x, Tensor)] + [x for leaves in nested for x in leaves]


def make_batch(targets: Targets) -> dict[str, Tensor]:
    """The rows as a trainer hands them to a criterion."""
    boxes = targets.boxes if targets.angles is None else torch.cat([targets.boxes, targets.angles[:, None]], 1)
    rows = {"batch_idx": targets.batch_idx.float(), "cls": targets.labels[:, None].float(), "bboxes": boxes}
    if targets.keypoints is not None:
        rows["keypoints"] = targets.keypoints
    if targets.index_map is not None:
        rows["masks"] = targets.index_map.float()
    return rows


def criteria(
    head: Head, preds: Mapping[str, Any], batch: Mapping[str, Tensor], with_reference: bool
) -> dict[str, Callable[[], Tensor]]:
    """The loss of one batch through the reference's own criterion and through ours, as a trainer calls them."""
    device = batch["bboxes"].device
    made: dict[str, Callable[..., Any]] = {"reference": reference_criterion(head, device)} if with_reference else {}
    for form, compile in (("eager", False), ("compiled", True)):
        made[f"criterion, {form}"] = compiled_criterion(_stand_in(head, device), compile=compile)
    return {name: lambda criterion=criterion: criterion(preds, batch)[0].sum() for name, criterion in made.items()}


def _stand_in(head: Head, device: torch.device) -> Any:
    """All that `compiled_criterion` reads of a model."""
    stride = torch.tensor([float(s) for s in STRIDES], device=device)
    last = SimpleNamespace(nc=CLASSES, reg_max=head.reg_max, stride=stride, **head.attributes)
    return SimpleNamespace(model=[last], args=ARGS)


def reference_criterion(head: Head, device: torch.device | str) -> Callable[..., Any]:
    """The criterion that the reference's own model makes."""
    from ultralytics.nn import tasks  # noqa: PLC0415  # pyright: ignore[reportMissingImports]

    kinds = {"pose": tasks.PoseModel, "obb": tasks.OBBModel, "segment": tasks.SegmentationModel}
    kind = kinds.get(head.task, tasks.DetectionModel)
    config = copy.deepcopy(kind(head.config, verbose=False).yaml) | {"nc": CLASSES, "reg_max": head.reg_max}
    model = kind(config, verbose=False).to(device)
    model.args = ARGS
    return model.init_criterion()


def make_steps(losses: Mapping[str, Callable[[], Tensor]], leaves: Sequence[Tensor]) -> dict[str, Callable[[], Tensor]]:
    """Forward and backward of each loss, gradients written anew; all must give the same loss first."""

    def step(loss: Callable[[], Tensor]) -> Tensor:
        drop_gradients(leaves)
        total = loss()
        total.backward()
        return total.detach()

    values = {name: step(loss) for name, loss in losses.items()}
    first = next(iter(values.values()))
    for name, value in values.items():
        torch.testing.assert_close(value, first, rtol=1e-4, atol=0, msg=lambda text, name=name: f"{name}: {text}")
    return {name: lambda loss=loss: step(loss) for name, loss in losses.items()}


def drop_gradients(leaves: Sequence[Tensor]) -> None:
    """Free the gradients of the last step."""
    for x in leaves:
        x.grad = None
