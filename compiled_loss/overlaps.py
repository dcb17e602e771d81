"""Overlaps of boxes, for the assigner and for the box term `OneMinus`.

For upright boxes `[..., 4]`, xyxy: `iou`, `giou`, `diou`, `ciou`, `eiou`, `siou`, `InnerIoU`, `MPDIoU` and `NWD`. For
oriented boxes `[..., 5]` (cx, cy, w, h, angle): `probiou`, `kfiou` and `GWD`. The classes hold an overlap's settings:
`DetectionLoss(80, overlap=NWD(constant=12.8))`.

All compute and return float32 or wider; half-precision boxes are converted first. Boxes of the other kind raise a
ValueError that names the argument.
"""

from compiled_loss.geometry.boxes import ciou, diou, giou, iou
from compiled_loss.geometry.gaussians import GWD, kfiou
from compiled_loss.geometry.overlaps import NWD, InnerIoU, MPDIoU, eiou, siou
from compiled_loss.geometry.rotated import probiou

__all__ = [
    "GWD",
    "NWD",
    "InnerIoU",
    "MPDIoU",
    "ciou",
    "diou",
    "eiou",
    "giou",
    "iou",
    "kfiou",
    "probiou",
    "siou",
]
