"""Parts of a loss by name, for the command line: assigners, box terms and class terms."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from compiled_loss import (
    ATSS,
    Assigner,
    BinaryCrossEntropy,
    DenseLoss,
    DynamicSoftLabel,
    FocalLoss,
    KFIoU,
    KullbackLeibler,
    OneMinus,
    OrientedLoss,
    QualityFocalLoss,
    Scheduled,
    SimOTA,
    TaskAligned,
    VarifocalLoss,
    WIoU,
    overlaps,
)
from demo.labels import DataError

# Share of a run after which a schedule goes on to its second assigner, as in its source.
SWITCH = 1 / 3

ASSIGNERS: dict[str, Callable[[], Assigner]] = {
    "task-aligned": TaskAligned,
    "simota": SimOTA,
    "soft-label": DynamicSoftLabel,
    "atss": ATSS,
    "scheduled": lambda: Scheduled(ATSS(scale=5.0), TaskAligned()),
}
UPRIGHT: dict[str, Callable[[int], Any]] = {
    **{name: lambda _, name=name: OneMinus(getattr(overlaps, name)) for name in ("iou", "giou", "diou", "ciou")},
    **{name: lambda _, name=name: OneMinus(getattr(overlaps, name)) for name in ("eiou", "siou")},
    "inner-iou": lambda _: OneMinus(overlaps.InnerIoU()),
    "mpdiou": lambda size: OneMinus(overlaps.MPDIoU((size, size))),
    "nwd": lambda _: OneMinus(overlaps.NWD()),
    "wiou": lambda _: WIoU(),
}
ORIENTED: dict[str, Callable[[int], Any]] = {
    "probiou": lambda _: OneMinus(partial(overlaps.probiou, floor=0.01)),
    "kfiou": lambda _: KFIoU(),
    "gwd": lambda _: OneMinus(overlaps.GWD()),
    "kld": lambda _: KullbackLeibler(),
}
CLASS_TERMS: dict[str, Callable[[], Any]] = {
    "bce": BinaryCrossEntropy,
    "focal": FocalLoss,
    "quality-focal": QualityFocalLoss,
    "varifocal": VarifocalLoss,
}


def options_of(
    loss: type[DenseLoss], assigner: str, box_term: str, class_term: str, image_size: int, end_to_end: bool
) -> dict[str, Any]:
    """Arguments of a loss for the parts of these names; "" stands for the task's own box term.

    Raises:
        DataError: for parts that do not go together.
    """
    oriented, other = issubclass(loss, OrientedLoss), assigner != "task-aligned"
    if other and oriented:
        raise DataError(f"--assigner {assigner}: is for upright boxes, not for --task obb")
    if other and end_to_end:
        raise DataError(f"--assigner {assigner}: --head end2end has one-to-one anchors by task-aligned alone")
    known = ORIENTED if oriented else UPRIGHT
    if box_term and box_term not in known:
        kind = "oriented" if oriented else "upright"
        raise DataError(f"--box-term: expected one of {', '.join(known)} for {kind} boxes, got {box_term}")
    options: dict[str, Any] = {"assigner": ASSIGNERS[assigner](), "classification": CLASS_TERMS[class_term]()}
    if other:  # the sources of these compare by plain IoU; the box term stays what it is by default
        options |= {"overlap": overlaps.iou, "box_term": OneMinus(overlaps.ciou)}
    if box_term:
        options["box_term"] = known[box_term](image_size)
    return options
