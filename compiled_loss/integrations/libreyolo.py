"""Train with our losses in LibreYOLO (1.6), in its trainers for YOLOv9, YOLOX and RTMDet.

    from libreyolo.models.yolo9.trainer import YOLO9Trainer
    install(YOLO9Trainer, compile=True)
    LibreYOLO9(None, size="t").train(data="data.yaml")

Trainers and heads are read only through their attributes; nothing is imported from the package.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from compiled_loss.checks import kind_of, require
from compiled_loss.integrations.bridge import Compilation, announce_compilation, call_compiled
from compiled_loss.integrations.libre_criteria import YOLOX, RTMDet, TwoBranches, YOLOv9
from compiled_loss.integrations.stacks import Stacked, in_force

_SEAMS = ("on_setup", "train", "on_forward", "_forward_train")


class Installation(Stacked):
    """Makes a class of trainers use our loss, until `uninstall()` or the end of a `with` block. Made by `install`."""

    def __init__(self, trainer: Any, compilation: Compilation | None, *, whole_step: bool) -> None:
        self.compilation, self.whole_step = compilation, whole_step
        super().__init__(trainer, compilation and compilation.name, lambda: _replacements(trainer))

    def attach(self, trainer: Any) -> None:
        """Replace a trainer's own loss with ours."""
        compile = self.compilation and self.compilation._asdict()
        options = None if self.whole_step else compile
        if compile is not None:
            announce_compilation()
        network = getattr(trainer.model, "module", trainer.model)
        head: Any = getattr(network, "head", None)
        if hasattr(head, "_get_loss_fn"):
            # The auxiliary head of a YOLOv9 network is trained in the same way.
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
            step = torch.compile(trainer.on_forward, fullgraph=True, **(compile or {}))
            trainer._compiled_step = partial(call_compiled, step)


def _replacements(kind: Any) -> dict[str, Any]:
    """Members of a class of trainers that behave as before, but with our loss."""
    on_setup, train, forward_train = kind.on_setup, kind.train, kind._forward_train

    def with_ours(self_: Any) -> None:
        on_setup(self_)
        in_force(kind).attach(self_)

    def train_and_detach(self_: Any) -> Any:
        try:
            return train(self_)
        finally:
            _detach(self_)

    def forward(self_: Any, imgs: Tensor, targets: Tensor, polygons: Any = None) -> Any:
        rows = self_._compiled_loss.rows(targets, (imgs.shape[2], imgs.shape[3]))
        if self_._compiled_step is not None and torch.is_grad_enabled():
            return self_._compiled_step(imgs, rows.mark_dynamic())
        return forward_train(self_, imgs, rows, polygons)

    return {"on_setup": with_ours, "train": train_and_detach, "_forward_train": forward}


def _detach(trainer: Any) -> None:
    """Remove our loss again, so that the model is like any other."""
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
    """Let every trainer of a class train with our loss instead of its own, with the same results.

    The loss becomes part of the graph, and its assignment does not loop over images. Rows are read from the trainer's
    padded targets on the host, checked and planned, before the network is called. Validation losses, and the processes
    that the package starts for several devices, keep the package's own loss. If installed several times, the latest is
    active; after uninstalling it, the one before it is active again, and finally the class's own.

    Args:
        trainer: the class `YOLO9Trainer`, `YOLO9E2ETrainer`, `YOLO9P2Trainer`, `YOLOXTrainer` or `RTMDetTrainer`.
        compile: run the loss as one compiled graph, forward and backward.
        whole_step: run network and loss together as one compiled graph instead.
        backend: as for `torch.compile`.
        mode: as for `torch.compile`.
        dynamic: as for `torch.compile`.

    Returns:
        `Installation`, which `uninstall()` undoes; also a context manager.

    Raises:
        ValueError: if the argument is not a class of trainers, or compile options are given without compiling; when
            training starts, if the head is unknown.

    Example:
        >>> install(int)
        Traceback (most recent call last):
        ValueError: trainer: expected a class of LibreYOLO's trainers, got the class int
    """
    is_one = isinstance(trainer, type) and all(hasattr(trainer, name) for name in _SEAMS)
    require(is_one, "trainer", "a class of LibreYOLO's trainers", kind_of(trainer))
    compilation = Compilation(backend, mode, dynamic).checked(compile=compile, whole_step=whole_step)
    return Installation(trainer, compilation, whole_step=whole_step)


def _always(criterion: Any, _device: Any) -> Any:
    return criterion
