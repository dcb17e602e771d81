"""What integrations share: the maps of a head's levels as `Predictions`, and rows planned beside them.

Letters: B images, A anchors, C classes, R distance bins.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from compiled_loss.checks import check_shape, require
from compiled_loss.data.plan import TargetPlan
from compiled_loss.data.rows import pad_rows
from compiled_loss.data.targets import Targets
from compiled_loss.losses.dense import DenseLoss
from compiled_loss.types import Predictions


def join_levels(maps: Sequence[Tensor], reg_max: int, num_classes: int, argument: str = "maps") -> Predictions:
    """The maps of a head that returns one of each level, distances before classes.

    Args:
        maps: `[B, 4*R + C, h, w]` of each level, finest first.
        reg_max: R.
        num_classes: C.
        argument: what the trainer calls them.

    Returns:
        `Predictions` with `A` the sum of `h*w`.

    Raises:
        ValueError: for maps with another number of channels.

    Example:
        >>> join_levels([torch.zeros(2, 6, 4, 8), torch.zeros(2, 6, 2, 4)], reg_max=1, num_classes=2).scores.shape
        torch.Size([2, 2, 40])
    """
    require(len(maps) > 0, argument, "a map of each level", "none")
    for i, x in enumerate(maps):
        check_shape(f"{argument}[{i}]", x, ["B", 4 * reg_max + num_classes, "h", "w"])
    joined = torch.cat([x.flatten(2) for x in maps], 2)
    boxes, scores = joined.split([4 * reg_max, num_classes], 1)
    return Predictions(boxes, scores, tuple((x.shape[2], x.shape[3]) for x in maps))


def plan_beside(predictions: Predictions, targets: Targets, loss: DenseLoss, *, compiled: bool) -> Targets:
    """The rows as the loss wants them beside predictions: planned where the host has them, padded to be compiled.

    Args:
        predictions: the head's output, on its device.
        targets: rows on the host, or on the device, where their pages cannot be counted without a wait.
        loss: the loss that is to read both.
        compiled: whether it is compiled.

    Returns:
        Rows on the device, their number open to a compiled graph.

    Raises:
        ValueError: what `Targets.validate` finds in rows on the host that are planned.

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
        plan = TargetPlan((height, width), loss.strides, num_classes=loss.num_classes, region=loss.region)
        targets = plan.apply(targets, predictions.boxes.shape[0])
    elif compiled:
        targets = pad_rows(targets)
    targets = targets.to(device, non_blocking=True)
    return targets.mark_dynamic() if compiled else targets
