"""torchvision's operators where its build does not fit the installed torch, as beside a CPU build of another index.

Importing this makes `import torchvision` and its non-maximum suppression work there; elsewhere it changes nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor

SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def suppress(boxes: Tensor, scores: Tensor, most: float) -> Tensor:
    """Indices of boxes `[n, 4]`, best first, of which none overlaps a better one by more than `most`."""
    order = scores.argsort(descending=True, stable=True)
    boxes = boxes[order].float()
    area, left = (boxes[:, 2:] - boxes[:, :2]).prod(1), torch.arange(len(boxes))
    kept = []
    while len(left):
        best, left = left[0], left[1:]
        low, high = torch.maximum(boxes[left, :2], boxes[best, :2]), torch.minimum(boxes[left, 2:], boxes[best, 2:])
        joint = (high - low).clamp(min=0).prod(1)
        left = left[joint / (area[left] + area[best] - joint) <= most]
        kept.append(best)
    return order[torch.stack(kept)] if kept else order


def _loads() -> bool:
    try:
        import torchvision  # noqa: PLC0415  # pyright: ignore[reportMissingImports]

        torchvision.ops.nms(torch.zeros(0, 4), torch.zeros(0), 0.5)
    except RuntimeError:
        return False
    return True


if not _loads():
    LIBRARY = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        LIBRARY.define(name + SCHEMA)
    LIBRARY.impl("nms", suppress, "CPU")
    import torchvision  # pyright: ignore[reportMissingImports]

    torchvision.ops.boxes._assert_has_ops = lambda: None
