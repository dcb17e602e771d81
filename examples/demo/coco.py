"""Average precision by COCO's rules: of boxes, of keypoints by OKS, of masks; rotated boxes count as polygon masks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from faster_coco_eval.core import mask as run_lengths

from demo.detections import Detections, encode
from demo.labels import Info, Labels
from demo.rotated import corners


class AveragePrecision(NamedTuple):
    """COCO's AP over thresholds 0.50 to 0.95, and at 0.50 and 0.75 alone: means over the classes that the truth has.

    `ap_by_class` is that of each of them, by name. Without an object to find there is no AP: NaN.
    """

    ap: float
    ap50: float
    ap75: float
    ap_by_class: dict[str, float]


def average_precision(info: Info, truth: Sequence[Labels], found: Sequence[Detections], size: int) -> AveragePrecision:
    """COCO average precision of the detections of each picture of `size` by `size` pixels.

    By what was found: keypoints (with the data set's sigmas), rotated boxes, masks, or else boxes.
    """
    first = found[0]
    segments = first.rotated is not None or first.runs is not None
    kind = "keypoints" if first.keypoints is not None else "segm" if segments else "bbox"
    results = [row for i, detections in enumerate(found) for row in _results(i, detections, size)]
    seen = sorted({int(c) for labels in truth for c in labels.classes[counted(labels)]})
    if not seen:
        return AveragePrecision(math.nan, math.nan, math.nan, {})
    if not results:
        return AveragePrecision(0.0, 0.0, 0.0, {info.classes[c]: 0.0 for c in seen})
    reference = COCO(
        {
            "images": [{"id": i, "height": size, "width": size} for i in range(len(truth))],
            "categories": [{"id": c, "name": name} for c, name in enumerate(info.classes)],
            "annotations": _annotations(truth, size),
        }
    )
    sigmas = list(info.sigmas) or None
    evaluation = COCOeval_faster(reference, reference.loadRes(results), kind, kpt_oks_sigmas=sigmas)
    evaluation.run()
    # Thresholds, recalls, classes, area ranges (the first is all), numbers of detections; -1 in classes without truth.
    precision = evaluation.eval["precision"][:, :, :, 0, -1].mean((0, 1)).tolist()
    by_class = {name: x for name, x in zip(info.classes, precision, strict=True) if x >= 0}
    ap, ap50, ap75 = (max(float(x), 0.0) for x in evaluation.stats[:3])
    return AveragePrecision(ap, ap50, ap75, by_class)


def counted(labels: Labels) -> np.ndarray:
    """`[n]` bool: the objects that are to be found, of poses those with a labelled keypoint."""
    real = ~labels.crowd
    return real if labels.keypoints is None else real & (labels.keypoints[:, :, 2] > 0).any(1)


def _annotations(truth: Sequence[Labels], size: int) -> list[dict]:
    rows = []
    for image, labels in enumerate(truth):
        for j, fields in enumerate(_objects(image, labels, size)):
            row = {"id": len(rows) + 1, "area": float(labels.areas[j]), "iscrowd": int(labels.crowd[j]), **fields}
            if labels.keypoints is not None:
                row["num_keypoints"] = int((labels.keypoints[j, :, 2] > 0).sum())
            rows.append(row)
    return rows


def _results(image: int, detections: Detections, size: int) -> list[dict]:
    rows = _objects(image, detections, size)
    for row, score in zip(rows, detections.scores.tolist(), strict=True):
        row["score"] = score
        if "keypoints" in row or "segmentation" in row:
            # Of results the first field that fits decides what they are taken for.
            del row["bbox"]
    return rows


def outlines(objects: Labels | Detections, size: int) -> list[dict] | None:
    """Run lengths of masks, or of rotated boxes as polygons; None where there are only boxes and keypoints."""
    if objects.rotated is not None:
        polygons: Any = corners(objects.rotated).reshape(-1, 1, 8).tolist()
        return [run_lengths.segmToRle(polygon, size, size) for polygon in polygons]
    if isinstance(objects, Detections):
        return objects.runs
    masks = objects.masks()
    return None if masks is None else encode(masks)


def _objects(image: int, objects: Labels | Detections, size: int) -> list[dict]:
    """What annotations and results have in common, one dict an object."""
    runs = outlines(objects, size)
    rows = []
    for j, (x1, y1, x2, y2) in enumerate(objects.boxes.tolist()):
        row = {"image_id": image, "category_id": int(objects.classes[j]), "bbox": [x1, y1, x2 - x1, y2 - y1]}
        if objects.keypoints is not None:
            row["keypoints"] = np.asarray(objects.keypoints[j]).ravel().tolist()
        if runs is not None:
            row["segmentation"] = runs[j]
        rows.append(row)
    return rows
