"""Overlaps side by side, each family a function of two sets of boxes."""

import torch
from torch import Tensor

from compiled_loss import overlaps as further
from compiled_loss.geometry.boxes import ciou, diou, giou, iou
from compiled_loss.geometry.gaussians import kalman_divergence, kullback_leibler


def overlaps(boxes: Tensor, others: Tensor) -> tuple[Tensor, ...]:
    """The four members of the IoU family."""
    family = [f(boxes, others) for f in (ciou, iou, giou, diou)]
    return torch.stack(family), *family


def further_overlaps(boxes: Tensor, others: Tensor) -> tuple[Tensor, ...]:
    """Those of later papers."""
    family = (further.eiou, further.siou, further.InnerIoU(0.8), further.MPDIoU((64, 96)), further.NWD())
    return tuple(f(boxes, others) for f in family)


def further_oriented_overlaps(boxes: Tensor, others: Tensor) -> tuple[Tensor, ...]:
    """And of later papers' box terms what they compute."""
    family = (further.kfiou, further.GWD(), kullback_leibler)
    return *(f(boxes, others) for f in family), *kalman_divergence(boxes, others)
