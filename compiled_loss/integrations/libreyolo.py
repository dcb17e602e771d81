"""LibreYOLO (1.6) trains with our loss inside: its trainers for YOLOv9, YOLOX and RTMDet.

    from libreyolo.models.yolo9.trainer import YOLO9Trainer
    install(YOLO9Trainer, compile=True)
    LibreYOLO9(None, size="t").train(data="data.yaml")

Trainers and heads are read by their attributes alone; nothing is imported from the package.

Letters: B images, N target rows, M target slots of an image.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from compiled_loss.checks import check_shape, kind_of, require, true_or_false
from compiled_loss.data.plan import TargetPlan
from compiled_loss.data.targets import Targets
from compiled_loss.integrations.bridge import join_levels
from compiled_loss.integrations.libre_heads import (
    rtmdet_loss,
    rtmdet_maps,
    yolov9_loss,
    yolox_loss,
    yolox_maps,
)
from compiled_loss.losses.dense import DenseLoss

_SEAMS = ("on_setup", "train", "on_forward", "_forward_train")


class Criterion:
    """A loss that takes what a head of the trainer gives, and returns the trainer's dict.

    Args:
        loss: on the device where it trains.
        num_classes: C.
        corners: targets are (class, x1, y1, x2, y2) as fractions of the image; else (class, cx, cy, w, h) in pixels.
        options: of `torch.compile`; None runs it eagerly.
    """

    def __init__(self, loss: DenseLoss, num_classes: int, *, corners: bool, options: dict[str, Any] | None) -> None:
        self.loss, self.num_classes, self.corners = loss, num_classes, corners
        self.run: Callable[..., dict[str, Any]] = self.compute
        if options is not None:
            self.run = torch.compile(self.compute, fullgraph=True, **options)
        self.compiled = options is not None

    def __deepcopy__(self, memo: Any) -> "Criterion":
        return self  # it holds no state: the averaged copy of a model shares it

    def compute(self, *given: Any) -> dict[str, Any]:
        """The dict of one batch, traceable."""
        raise NotImplementedError

    def rows(self, targets: Tensor | Targets, image_size: tuple[int, int]) -> Targets:
        """Rows of the trainer's padded targets, checked, sorted and planned.

        Args:
            targets: `[B, M, 5]`; slots without a size are padding. Those of a device are copied to the host first.
                `Targets` are returned as they are.
            image_size: (height, width) in pixels.

        Returns:
            `Targets` where `targets` was.
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
        plan = TargetPlan(image_size, self.loss.strides, num_classes=self.num_classes, region=self.loss.region)
        planned = plan.apply(flat, targets.shape[0]).to(targets.device)
        return planned.mark_dynamic() if self.compiled else planned


class YOLOv9(Criterion):
    """The loss of a YOLOv9 head, called as the trainer's own: `(maps, targets)`."""

    def __init__(self, own: Any, options: dict[str, Any] | None = None) -> None:
        super().__init__(yolov9_loss(own), own.num_classes, corners=True, options=options)

    def update_anchors(self, image_size: Any) -> None:
        """Anchors follow from the maps."""

    def __call__(self, maps: Any, targets: Tensor | Targets) -> dict[str, Any]:
        """The dict of one batch.

        Args:
            maps: `[B, 4 R + C, h, w]` of each level, finest first.
            targets: `[B, M, 5]` or `Targets`.
        """
        stride = self.loss.strides[0]
        return self.run(maps, self.rows(targets, (maps[0].shape[2] * stride, maps[0].shape[3] * stride)))

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
    """The loss of an end-to-end YOLOv9 head, called as the trainer's own: both branches' losses added."""

    def __init__(self, own: Any, options: dict[str, Any] | None = None) -> None:
        self.dense, self.exclusive = YOLOv9(own.dense_loss, options), YOLOv9(own.exclusive_loss, options)
        self.rows = self.dense.rows

    def __deepcopy__(self, memo: Any) -> "TwoBranches":
        return self

    def update_anchors(self, image_size: Any) -> None:
        """Anchors follow from the maps."""

    def __call__(self, dense: Any, exclusive: Any, targets: Tensor | Targets) -> dict[str, Any]:
        """The dict of one batch."""
        both = self.dense(dense, targets), self.exclusive(exclusive, targets)
        return {name: both[0][name] + both[1][name] for name in both[0]}


class YOLOX(Criterion):
    """The loss of a YOLOX head, called as its own `get_losses`."""

    def __init__(self, head: Any, options: dict[str, Any] | None = None) -> None:
        self.head = head
        strides = [int(x) for x in head.strides]
        super().__init__(yolox_loss(head.num_classes, strides), head.num_classes, corners=False, options=options)

    def __call__(
        self, imgs: Tensor, x_shifts: Any, y_shifts: Any, expanded_strides: Any, labels: Any, outputs: Tensor, *rest: Any, **_: Any
    ) -> dict[str, Any]:
        """The dict of one batch.

        Args:
            imgs: `[B, 3, H, W]`, whose size is read.
            labels: `[B, M, 5]` or `Targets`.
            outputs: `[B, A, 5 + C]` decoded boxes in pixels, objectness and classes.
        """
        return self.run(outputs, self.rows(labels, tuple(imgs.shape[2:])), tuple(imgs.shape[2:]))

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
    """The loss of an RTMDet head, called as its trainer's `_loss_from_head`."""

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


class Installation:
    """Trainers of a class train with our loss, until `uninstall()` or the end of a `with`. Made by `install`."""

    def __init__(self, trainer: Any, options: dict[str, Any] | None, *, whole_step: bool) -> None:
        self.trainer, self.options, self.whole_step = trainer, options, whole_step
        self.before = {name: vars(trainer).get(name) for name in _SEAMS}
        self.criteria: list[Any] = []
        own = {name: getattr(trainer, name) for name in _SEAMS}

        def on_setup(self_: Any) -> None:
            own["on_setup"](self_)
            self.attach(self_)

        def train(self_: Any) -> Any:
            try:
                return own["train"](self_)
            finally:
                self.detach(self_)

        def forward_train(self_: Any, imgs: Tensor, targets: Tensor, polygons: Any = None) -> Any:
            rows = self_._compiled_loss.rows(targets, tuple(imgs.shape[2:]))
            if self_._compiled_step is not None and torch.is_grad_enabled():
                return self_._compiled_step(imgs, rows.mark_dynamic())
            return own["_forward_train"](self_, imgs, rows, polygons)

        trainer.on_setup, trainer.train, trainer._forward_train = on_setup, train, forward_train

    def __enter__(self) -> "Installation":
        return self

    def __exit__(self, *_: Any) -> None:
        self.uninstall()

    def uninstall(self) -> None:
        """Leave the class as it was found."""
        for name, value in self.before.items():
            if value is not None:
                setattr(self.trainer, name, value)
            elif name in vars(self.trainer):
                delattr(self.trainer, name)

    def attach(self, trainer: Any) -> None:
        """Put our loss in the place of a trainer's own."""
        options = None if self.whole_step else self.options
        network = getattr(trainer.model, "module", trainer.model)
        head = getattr(network, "head", None)
        if hasattr(head, "_get_loss_fn"):
            # The auxiliary head of a YOLOv9 network trains alike.
            for one in (head, getattr(network, "aux_head", None)):
                if one is not None:
                    own = one._get_loss_fn(next(network.parameters()).device)
                    found = (TwoBranches if hasattr(own, "exclusive_loss") else YOLOv9)(own, options)
                    one._get_loss_fn = partial(_always, found)
                    self.criteria.append(found)
        elif hasattr(head, "get_losses"):
            head.get_losses = YOLOX(head, options)
            self.criteria.append(head.get_losses)
        else:
            expected = "a trainer of YOLOv9, YOLOX or RTMDet for detection"
            own = getattr(trainer, "_loss_fn", None)
            require(hasattr(trainer, "_loss_from_head") and hasattr(own, "loss_bbox"), "trainer", expected, kind_of(trainer))
            trainer._loss_from_head = RTMDet(own, options)
            self.criteria.append(trainer._loss_from_head)
        trainer._compiled_loss, trainer._compiled_step = self.criteria[-1], None
        if self.whole_step:
            trainer._compiled_step = torch.compile(trainer.on_forward, fullgraph=True, **(self.options or {}))

    def detach(self, trainer: Any) -> None:
        """Take it out again, so that the model is as any other."""
        network = getattr(trainer.model, "module", trainer.model)
        for one in (getattr(network, "head", None), getattr(network, "aux_head", None), trainer):
            for name in ("_get_loss_fn", "get_losses", "_loss_from_head", "_compiled_loss", "_compiled_step"):
                if one is not None:
                    vars(one).pop(name, None)


def install(
    trainer: type,
    *,
    compile: bool = False,
    whole_step: bool = False,
    backend: str | Callable[..., Any] = "inductor",
    mode: str | None = None,
    dynamic: bool | None = None,
) -> Installation:
    """Let every trainer of a class train with our loss in the place of its own, with the same numbers.

    Its loss becomes part of the graph, and its assignment loops over no image. Rows are read from the trainer's padded
    targets on the host, checked and planned, before the network is called. Validation losses, and the processes that
    the package starts for several devices, keep the package's own loss.

    Args:
        trainer: `YOLO9Trainer`, `YOLO9E2ETrainer`, `YOLO9P2Trainer`, `YOLOXTrainer` or `RTMDetTrainer`, the class.
        compile: run the loss as one compiled graph, forward and backward.
        whole_step: run network and loss together as one compiled graph instead.
        backend: as for `torch.compile`.
        mode: as for `torch.compile`.
        dynamic: as for `torch.compile`.

    Returns:
        `Installation`, whose `uninstall()` undoes it; a context manager too.

    Raises:
        ValueError: for what is no class of trainers; when training starts, for a head that is none of these.

    Example:
        >>> install(int)
        Traceback (most recent call last):
        ValueError: trainer: expected a class of LibreYOLO's trainers, got the class int
    """
    is_one = isinstance(trainer, type) and all(hasattr(trainer, name) for name in _SEAMS)
    require(is_one, "trainer", "a class of LibreYOLO's trainers", kind_of(trainer))
    given = {"backend": backend, "mode": mode, "dynamic": dynamic}
    wanted = true_or_false("compile", compile) or true_or_false("whole_step", whole_step)
    return Installation(trainer, given if wanted else None, whole_step=whole_step)


def _always(criterion: Any, _device: Any) -> Any:
    return criterion
