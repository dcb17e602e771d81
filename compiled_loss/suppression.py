"""Non-maximum suppression, by torchvision if it is installed.

Letters: B images, k detections of an image, n of them kept.
"""

import importlib
from collections.abc import Callable
from typing import Any

from torch import Tensor

from compiled_loss.checks import finite_number, require
from compiled_loss.types import Detections


def suppress(detections: Detections, *, overlap: float = 0.7, least_score: float = 0.25) -> list[Detections]:
    """Remove detections that overlap a better one of the same class too much, image by image.

    Greedy non-maximum suppression within each class, by `torchvision.ops.batched_nms`. The number of detections that
    remain depends on the values, so this is for eager code, outside graphs; end-to-end heads do not need it.

    Args:
        detections: detections of a batch, with upright boxes.
        overlap: IoU above which the lower-scoring of two detections of one class is removed.
        least_score: detections must score above this; padding, with score 0, is always removed.

    Returns:
        For each of the B images a `Detections` without the first dimension, with n of the k detections, best first.

    Raises:
        ValueError: for oriented boxes, which torchvision cannot suppress, or for numbers outside [0, 1].
        ImportError: if torchvision is missing or does not match the installed torch.

    Example:
        >>> import torch
        >>> oriented = Detections(torch.zeros(1, 3, 5), torch.zeros(1, 3), *torch.zeros(2, 1, 3).long())
        >>> suppress(oriented)
        Traceback (most recent call last):
        ValueError: detections.boxes: expected upright boxes [B, k, 4], got (1, 3, 5)
    """
    require(isinstance(detections, Detections), "detections", "Detections", type(detections).__name__)
    boxes = detections.boxes
    require(boxes.dim() == 3 and boxes.shape[2] == 4, "detections.boxes", "upright boxes [B, k, 4]", tuple(boxes.shape))
    for name, value in (("overlap", overlap), ("least_score", least_score)):
        require(finite_number(name, value) <= 1, name, "a number in [0, 1]", value)
    batched_nms = _batched_nms()
    left = []
    for i in range(boxes.shape[0]):
        one = _each(detections, lambda x, i=i: x[i])
        one = _each(one, lambda x, kept=one.scores > least_score: x[kept])
        kept = batched_nms(one.boxes, one.scores, one.labels, overlap)
        left.append(_each(one, lambda x, kept=kept: x[kept]))
    return left


def _each(detections: Detections, change: Callable[[Tensor], Tensor]) -> Detections:
    return Detections(*(None if x is None else change(x) for x in detections))  # type: ignore[arg-type]


def _batched_nms() -> Callable[..., Any]:
    try:
        return importlib.import_module("torchvision.ops").batched_nms
    except (ImportError, RuntimeError) as error:  # a torchvision built for another torch lacks its operators
        needed = "suppress needs a torchvision that fits torch: pip install torchvision"
        raise ImportError(f"{needed} ({type(error).__name__}: {error})") from error
