"""LibreYOLO (1.6) trains with our loss inside: its trainers for YOLOv9, YOLOX and RTMDet.

    from libreyolo.models.yolo9.trainer import YOLO9Trainer
    install(YOLO9Trainer, compile=True)
    LibreYOLO9(None, size="t").train(data="data.yaml")

Trainers and heads are read by their attributes alone; nothing is imported from the package.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from compiled_loss.checks import kind_of, require
from compiled_loss.integrations.bridge import Compilation
from compiled_loss.integrations.libre_criteria import YOLOX, RTMDet, TwoBranches, YOLOv9

_SEAMS = ("on_setup", "train", "on_forward", "_forward_train")


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
            rows = self_._compiled_loss.rows(targets, (imgs.shape[2], imgs.shape[3]))
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
        head: Any = getattr(network, "head", None)
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
            require(
                hasattr(trainer, "_loss_from_head") and hasattr(own, "loss_bbox"), "trainer", expected, kind_of(trainer)
            )
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
        ValueError: for anything but a class of trainers, or options of a compilation without one; when training starts,
            for an unknown head.

    Example:
        >>> install(int)
        Traceback (most recent call last):
        ValueError: trainer: expected a class of LibreYOLO's trainers, got the class int
    """
    is_one = isinstance(trainer, type) and all(hasattr(trainer, name) for name in _SEAMS)
    require(is_one, "trainer", "a class of LibreYOLO's trainers", kind_of(trainer))
    compilation = Compilation(backend, mode, dynamic).checked(compile=compile, whole_step=whole_step)
    return Installation(trainer, compilation and compilation._asdict(), whole_step=whole_step)


def _always(criterion: Any, _device: Any) -> Any:
    return criterion
