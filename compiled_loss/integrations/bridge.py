"""Shared by the integrations: a head's levels as `Predictions`, planning of their rows, and compilation of losses.

Letters: B images, A anchors, C classes, R distance bins.
"""

import functools
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from compiled_loss.checks import check_shape, require, true_or_false
from compiled_loss.data.plan import TargetPlan
from compiled_loss.data.rows import pad_rows
from compiled_loss.data.targets import Targets
from compiled_loss.losses.dense import DenseLoss
from compiled_loss.torch_private import check_backend, each_size_for_itself
from compiled_loss.types import Predictions

_ANNOUNCEMENT = "the first step compiles the loss, which may take a minute or more"


class Compilation(NamedTuple):
    """How a loss is compiled: the options of `torch.compile`."""

    backend: str | Callable[..., Any] = "inductor"
    mode: str | None = None
    dynamic: bool | None = None

    def checked(self, **switches: bool) -> "Compilation | None":
        """Return self if one of these switches is on, otherwise None.

        Raises:
            ValueError: if options are given without a switch, or `dynamic` is not True, False or None.

        Example:
            >>> Compilation(mode="max-autotune").checked(compile=False)
            Traceback (most recent call last):
            ValueError: backend, mode, dynamic: expected compile=True with them, got False
        """
        wanted = True in [true_or_false(name, switch) for name, switch in switches.items()]  # every one is checked
        expected = f"{' or '.join(f'{name}=True' for name in switches)} with them"
        require(wanted or self == Compilation(), "backend, mode, dynamic", expected, False)
        kinds = self.dynamic is None or isinstance(self.dynamic, bool)
        require(kinds, "dynamic", "True, False or None", self.dynamic)
        if not wanted:
            return None
        check_backend(self.backend)
        return self

    @property
    def name(self) -> str:
        """The backend's name."""
        return str(getattr(self.backend, "__name__", self.backend))


@functools.cache
def announce_compilation() -> None:
    """Announce, once per process, that the first step takes long, since compilation itself reports nothing.

    The message goes to the logger `compiled_loss` at level INFO if that is handled, otherwise to standard error, unless
    the logger's level was set higher.
    """
    logger = logging.getLogger("compiled_loss")
    if logger.isEnabledFor(logging.INFO) and logger.hasHandlers():
        logger.info(_ANNOUNCEMENT)
    elif logger.level == logging.NOTSET:
        sys.stderr.write(f"compiled_loss: {_ANNOUNCEMENT}\n")
        sys.stderr.flush()


def call_compiled(compiled: Callable[..., Any], *given: Any) -> Any:
    """Call a compiled function after announcing it; open sizes stay open even if some are equal in the first call.

    Example:
        >>> call_compiled(torch.compile(torch.add, backend="eager", dynamic=True), torch.ones(4, 4), 1).sum()
        tensor(32.)
    """
    if torch.compiler.is_compiling():  # part of another graph, whose settings are not ours
        return compiled(*given)
    announce_compilation()
    with each_size_for_itself():
        return compiled(*given)


def join_levels(maps: Sequence[Tensor], reg_max: int, num_classes: int, argument: str = "maps") -> Predictions:
    """Join the maps of a head that returns one map per level, distances before classes.

    Args:
        maps: `[B, 4*R + C, h, w]` map of each level, finest first.
        reg_max: R.
        num_classes: C.
        argument: the trainer's name for the maps.

    Returns:
        `Predictions` with `A` the sum of `h*w`.

    Raises:
        ValueError: for maps with another number of channels.

    Example:
        >>> join_levels([torch.zeros(2, 6, 4, 8), torch.zeros(2, 6, 2, 4)], reg_max=1, num_classes=2).scores.shape
        torch.Size([2, 2, 40])
    """
    require(len(maps) > 0, argument, "one map for each level", "none")
    channels = 4 * reg_max + num_classes
    why = f"{channels} = 4 * reg_max + num_classes, reg_max={reg_max}, num_classes={num_classes}"
    for i, x in enumerate(maps):
        check_shape(f"{argument}[{i}]", x, ["B", channels, "h", "w"], why)
    joined = torch.cat([x.flatten(2) for x in maps], 2)
    boxes, scores = joined.split([4 * reg_max, num_classes], 1)
    return Predictions(boxes, scores, tuple((x.shape[2], x.shape[3]) for x in maps))


def plan_of(
    loss: DenseLoss, image_size: tuple[int, int], plan: TargetPlan | None = None, *, power_of_two: bool = False
) -> TargetPlan:
    """A plan that fits a loss and a batch's images.

    Args:
        loss: the loss whose classes and candidates are counted.
        image_size: (height, width) in pixels.
        plan: the plan whose numbers of rows and pages to use; None plans each batch individually.
        power_of_two: round these up to powers of two, if there is no such plan.

    Example:
        >>> from compiled_loss import DetectionLoss
        >>> plan_of(DetectionLoss(2), (64, 96)).image_size
        (64, 96)
    """
    if plan is None:
        return loss.plan(image_size, power_of_two=power_of_two)
    return replace(plan, image_size=image_size, num_classes=loss.num_classes, region=loss.region)


def plan_beside(
    predictions: Predictions,
    targets: Targets,
    loss: DenseLoss,
    *,
    compiled: bool,
    plan: TargetPlan | None = None,
    static: bool = False,
) -> Targets:
    """Prepare rows for a loss: plan those on the host, pad the others if the loss is compiled, and move them.

    Args:
        predictions: the head's output, on its device.
        targets: rows on the host, or on the device, where their pages cannot be counted without a wait.
        loss: the loss that will read both.
        compiled: whether it is compiled.
        plan: fixed numbers for every batch, as for `plan_of`.
        static: compiled for fixed sizes: numbers are rounded up to powers of two, and no size is left open.

    Returns:
        Rows on the predictions' device; for a compiled loss their number is dynamic unless `static`.

    Raises:
        ValueError: if `Targets.validate` finds a fault in rows planned on the host.

    Example:
        >>> from compiled_loss import DetectionLoss
        >>> head = Predictions(torch.zeros(1, 64, 80), torch.zeros(1, 2, 80), ((8, 8), (4, 4)))
        >>> rows = Targets(torch.tensor([0]), torch.tensor([1]), torch.full((1, 4), 0.5))
        >>> plan_beside(head, rows, DetectionLoss(2, (8, 16)), compiled=True).labels.shape
        torch.Size([16])
    """
    device = predictions.boxes.device
    if targets.batch_idx.device.type == "cpu" and (compiled or device.type != "cpu"):
        height, width = (cells * loss.strides[0] for cells in predictions.grid_sizes[0])
        fitting = plan_of(loss, (height, width), plan, power_of_two=static)
        targets = fitting.apply(targets, predictions.boxes.shape[0])
    elif compiled:
        targets = pad_rows(targets, power_of_two=static)
    targets = targets.to(device, non_blocking=True)
    return targets.mark_dynamic() if compiled and not static else targets
