"""Criteria that replace LibreYOLO's own: they read its objects, run our loss and return its kind of dict.

Letters: B images, N target rows, M target slots of an image, A anchors, C classes, R distance bins.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from compiled_loss.checks import check_shape
from compiled_loss.data.targets import Targets
from compiled_loss.integrations.bridge import call_compiled, join_levels, plan_of
from compiled_loss.integrations.libre_heads import rtmdet_loss, rtmdet_maps, yolov9_loss, yolox_loss, yolox_maps
from compiled_loss.losses.dense import DenseLoss


class Criterion:
    """A loss that takes the output of the trainer's head and returns the trainer's dict.

    Args:
        loss: the loss, on the device where it trains.
        num_classes: C.
        corners: targets are (class, x1, y1, x2, y2) as fractions of the image; otherwise (class, cx, cy, w, h) in
            pixels.
        options: options of `torch.compile`; None runs the loss eagerly.
    """

    # The dict of one batch, from the head's output and rows; can be traced.
    compute: Callable[..., dict[str, Any]]

    def __init__(self, loss: DenseLoss, num_classes: int, *, corners: bool, options: dict[str, Any] | None) -> None:
        self.loss, self.num_classes, self.corners = loss, num_classes, corners
        self.run: Callable[..., dict[str, Any]] = self.compute
        if options is not None:
            self.run = partial(call_compiled, torch.compile(self.compute, fullgraph=True, **options))
        self.compiled = options is not None

    def __deepcopy__(self, memo: Any) -> "Criterion":
        return self  # it holds no state: the averaged copy of a model shares it

    def rows(self, targets: Tensor | Targets, image_size: tuple[int, int]) -> Targets:
        """Rows of the trainer's padded targets, checked, sorted and planned.

        Args:
            targets: `[B, M, 5]`; slots of size zero are padding. Targets on a device are copied to the host first.
                `Targets` are returned as they are.
            image_size: (height, width) in pixels.

        Returns:
            `Targets` on the device of `targets`.
        """
        if isinstance(targets, Targets):
            return targets
        check_shape("targets", targets, ["B", "M", 5])
        host, (height, width) = targets.detach().cpu().float(), image_size
        boxes = host[..., 1:]
        if self.corners:
            low, high = boxes.chunk(2, -1)
            boxes = torch.cat([(low + high) / 2, high - low], -1)
        else:
            boxes = boxes / torch.tensor([width, height, width, height])
        image, slot = (boxes[..., 2:] > 0).all(-1).nonzero().unbind(1)
        flat = Targets(image, host[image, slot, 0].long(), boxes[image, slot])
        plan = replace(plan_of(self.loss, image_size), num_classes=self.num_classes)  # a loss may count objectness too
        planned = plan.apply(flat, targets.shape[0]).to(targets.device)
        return planned.mark_dynamic() if self.compiled else planned


class YOLOv9(Criterion):
    """The loss of a YOLOv9 head, called like the trainer's own: `(maps, targets)`."""

    def __init__(self, own: Any, options: dict[str, Any] | None = None) -> None:
        super().__init__(yolov9_loss(own), own.num_classes, corners=True, options=options)

    def update_anchors(self, image_size: Any) -> None:
        """Nothing to do: anchors follow from the maps."""

    def __call__(self, maps: Any, targets: Tensor | Targets) -> dict[str, Any]:
        """The dict of one batch.

        Args:
            maps: `[B, 4 R + C, h, w]` of each level, finest first.
            targets: `[B, M, 5]` or `Targets`.
        """
        return self.run(maps, self.beside(maps, targets))

    def beside(self, maps: Any, targets: Tensor | Targets) -> Targets:
        """The rows, planned for the image size of these maps."""
        stride = self.loss.strides[0]
        return self.rows(targets, (maps[0].shape[2] * stride, maps[0].shape[3] * stride))

    def compute(self, maps: Any, targets: Targets) -> dict[str, Any]:
        """The dict of one batch."""
        out = self.loss(join_levels(maps, self.loss.reg_max, self.num_classes), targets)
        batch = maps[0].shape[0]
        box, dfl, cls = [out.terms[name] / batch for name in ("box", "dfl", "cls")]
        return {
            "total_loss": box + dfl + cls,
            "box_loss": box,
            "dfl_loss": dfl,
            "cls_loss": cls,
            "box": box.detach(),
            "dfl": dfl.detach(),
            "cls": cls.detach(),
            "num_fg": out.num_positives / batch,
        }


class TwoBranches:
    """The loss of an end-to-end YOLOv9 head, called like the trainer's own: the sum of both branches' losses."""

    def __init__(self, own: Any, options: dict[str, Any] | None = None) -> None:
        self.dense, self.exclusive = YOLOv9(own.dense_loss, options), YOLOv9(own.exclusive_loss, options)
        self.rows = self.dense.rows

    def __deepcopy__(self, memo: Any) -> "TwoBranches":
        return self

    def update_anchors(self, image_size: Any) -> None:
        """Nothing to do: anchors follow from the maps."""

    def __call__(self, dense: Any, exclusive: Any, targets: Tensor | Targets) -> dict[str, Any]:
        """The dict of one batch."""
        rows = self.dense.beside(dense, targets)  # once for both
        both = self.dense(dense, rows), self.exclusive(exclusive, rows)
        return {name: both[0][name] + both[1][name] for name in both[0]}


class YOLOX(Criterion):
    """The loss of a YOLOX head, called like its own `get_losses`."""

    def __init__(self, head: Any, options: dict[str, Any] | None = None) -> None:
        self.head = head
        strides = [int(x) for x in head.strides]
        super().__init__(yolox_loss(head.num_classes, strides), head.num_classes, corners=False, options=options)

    def __call__(
        self,
        imgs: Tensor,
        x_shifts: Any,
        y_shifts: Any,
        expanded_strides: Any,
        labels: Any,
        outputs: Tensor,
        *rest: Any,
        **_: Any,
    ) -> dict[str, Any]:
        """The dict of one batch.

        Args:
            imgs: `[B, 3, H, W]`; only its size is used.
            labels: `[B, M, 5]` or `Targets`.
            outputs: `[B, A, 5 + C]` decoded boxes in pixels, objectness and classes.
        """
        size = imgs.shape[2], imgs.shape[3]
        return self.run(outputs, self.rows(labels, size), size)

    def compute(self, outputs: Tensor, targets: Targets, image_size: tuple[int, int]) -> dict[str, Any]:
        """The dict of one batch."""
        out = self.loss(yolox_maps(outputs, self.loss.strides, image_size), targets)
        box, obj, cls, raw = [out.terms[name] / outputs.shape[0] for name in ("box", "obj", "cls", "raw")]
        if not self.head.use_l1:  # its trainer turns that on when it closes the mosaic
            raw = torch.zeros_like(raw)
        return {
            "total_loss": box + obj + cls + raw,
            "iou_loss": box,
            "obj_loss": obj,
            "cls_loss": cls,
            "l1_loss": raw,
            "num_fg": out.num_positives / (targets.batch_idx >= 0).sum().clamp(min=1),
        }


class RTMDet(Criterion):
    """The loss of an RTMDet head, called like its trainer's `_loss_from_head`."""

    def __init__(self, own: Any, options: dict[str, Any] | None = None) -> None:
        super().__init__(rtmdet_loss(own), own.num_classes, corners=False, options=options)

    def __call__(self, cls_scores: Any, bbox_preds: Any, targets: Tensor | Targets) -> dict[str, Any]:
        """The dict of one batch.

        Args:
            cls_scores: `[B, C, h, w]` of each level, finest first.
            bbox_preds: `[B, 4, h, w]` of each level, pixels.
            targets: `[B, M, 5]` or `Targets`.
        """
        stride, (height, width) = self.loss.strides[0], cls_scores[0].shape[2:]
        return self.run(cls_scores, bbox_preds, self.rows(targets, (height * stride, width * stride)))

    def compute(self, cls_scores: Any, bbox_preds: Any, targets: Targets) -> dict[str, Any]:
        """The dict of one batch."""
        out = self.loss(rtmdet_maps(cls_scores, bbox_preds, self.loss.strides), targets)
        cls, box = [out.terms[name] / cls_scores[0].shape[0] for name in ("cls", "box")]
        return {"total_loss": cls + box, "loss_cls": cls, "loss_bbox": box}
