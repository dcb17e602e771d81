"""From raw predictions to detections, and their COCO average precision on held-out pictures.

Letters: B images, A anchors, C classes, K keypoints, n detections of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from faster_coco_eval import COCO, COCOeval_faster
from torch import Tensor, nn

from compiled_loss import Predictions
from compiled_loss.grid import decode_distances, decode_keypoints, distances_to_boxes, make_anchors
from demo.labels import Info, Labels, image_tensor
from demo.model import STRIDES

CANDIDATES, KEPT, SAME_OBJECT_IOU, LOWEST_SCORE = 300, 100, 0.6, 0.01


class Detections(NamedTuple):
    """What was found in one picture, best first: `[n]` scores, `[n]` classes, `[n, 4]` boxes, `[n, K, 3]` keypoints."""

    scores: np.ndarray
    classes: np.ndarray
    boxes: np.ndarray
    keypoints: np.ndarray | None


class AveragePrecision(NamedTuple):
    """COCO's AP over thresholds 0.50 to 0.95, and at 0.50 and 0.75 alone; by OKS where there are keypoints."""

    ap: float
    ap50: float
    ap75: float


@torch.no_grad()
def detect(model: nn.Module, images: Tensor) -> list[Detections]:
    """Detections of every image `[B, 3, H, W]`; leaves the model in evaluation mode."""
    boxes, scores, keypoints = decode(model.eval()(images))
    return [
        select(
            scores[i].cpu().numpy(), boxes[i].cpu().numpy(), None if keypoints is None else keypoints[i].cpu().numpy()
        )
        for i in range(len(images))
    ]


def decode(predictions: Predictions) -> tuple[Tensor, Tensor, Tensor | None]:
    """Boxes `[B, A, 4]` xyxy pixels, scores `[B, A, C]` and keypoints `[B, A, K, 3]` (pixels, visibility)."""
    device = predictions.boxes.device
    points, strides = make_anchors(predictions.grid_sizes, STRIDES, device=device)
    logits = predictions.boxes.float().transpose(1, 2).unflatten(-1, (4, -1))
    boxes = distances_to_boxes(points, decode_distances(logits)) * strides[:, None]
    scores = predictions.scores.float().sigmoid().transpose(1, 2)
    if predictions.keypoints is None:
        return boxes, scores, None
    raw = predictions.keypoints.float().transpose(1, 2).unflatten(-1, (-1, 3))
    xy = decode_keypoints(raw[..., :2], points) * strides[:, None, None]
    return boxes, scores, torch.cat([xy, raw[..., 2:].sigmoid()], dim=-1)


def select(scores: np.ndarray, boxes: np.ndarray, keypoints: np.ndarray | None) -> Detections:
    """One image's best anchors without duplicates: greedy non-maximum suppression inside each class."""
    order = np.argsort(-scores, axis=None, kind="stable")[:CANDIDATES]
    order = order[scores.reshape(-1)[order] >= LOWEST_SCORE]
    anchors, classes = np.divmod(order, scores.shape[1])
    candidates = boxes[anchors]
    overlaps = (_iou(candidates) > SAME_OBJECT_IOU) & (classes[:, None] == classes)
    alive, kept = np.ones(len(order), dtype=bool), []
    for i in range(len(order)):
        if alive[i] and len(kept) < KEPT:
            kept.append(i)
            alive &= ~overlaps[i]
    anchors, classes = anchors[kept], classes[kept]
    found = None if keypoints is None else keypoints[anchors]
    return Detections(scores[anchors, classes], classes, boxes[anchors], found)


def average_precision(info: Info, truth: Sequence[Labels], found: Sequence[Detections]) -> AveragePrecision:
    """COCO average precision of the detections of each picture: by box IoU, or by OKS with the data set's sigmas."""
    kind = "keypoints" if info.keypoints else "bbox"
    results = [row for i, detections in enumerate(found) for row in _result_rows(i, detections)]
    if not results:
        return AveragePrecision(0.0, 0.0, 0.0)
    reference = COCO(
        {
            "images": [{"id": i} for i in range(len(truth))],
            "categories": [{"id": c, "name": name} for c, name in enumerate(info.classes)],
            "annotations": _annotations(truth),
        }
    )
    sigmas = list(info.sigmas) or None
    evaluation = COCOeval_faster(reference, reference.loadRes(results), kind, kpt_oks_sigmas=sigmas)
    evaluation.run()
    return AveragePrecision(*(max(float(x), 0.0) for x in evaluation.stats[:3]))


def evaluate(
    model: nn.Module, info: Info, pictures: Sequence[tuple[np.ndarray, Labels]], device: torch.device, batch_size: int
) -> tuple[AveragePrecision, list[Detections]]:
    """Average precision of the model on labelled pictures, and what it found in each."""
    found: list[Detections] = []
    for start in range(0, len(pictures), batch_size):
        images = torch.stack([image_tensor(image) for image, _ in pictures[start : start + batch_size]])
        found += detect(model, images.to(device))
    return average_precision(info, [labels for _, labels in pictures], found), found


def _annotations(truth: Sequence[Labels]) -> list[dict]:
    rows = []
    for image, labels in enumerate(truth):
        for j, (x1, y1, x2, y2) in enumerate(labels.boxes.tolist()):
            row = {
                "id": len(rows) + 1,
                "image_id": image,
                "category_id": int(labels.classes[j]),
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": float(labels.areas[j]),
                "iscrowd": int(labels.crowd[j]),
            }
            if labels.keypoints is not None:
                row["keypoints"] = labels.keypoints[j].ravel().tolist()
                row["num_keypoints"] = int((labels.keypoints[j, :, 2] > 0).sum())
            rows.append(row)
    return rows


def _result_rows(image: int, detections: Detections) -> list[dict]:
    rows = []
    for j, (x1, y1, x2, y2) in enumerate(detections.boxes.tolist()):
        row = {"image_id": image, "category_id": int(detections.classes[j]), "score": float(detections.scores[j])}
        if detections.keypoints is None:
            row["bbox"] = [x1, y1, x2 - x1, y2 - y1]
        else:
            row["keypoints"] = detections.keypoints[j].ravel().tolist()
        rows.append(row)
    return rows


def _iou(boxes: np.ndarray) -> np.ndarray:
    """`[n, n]` overlap of every two boxes."""
    sides = (np.minimum(boxes[:, None, 2:], boxes[:, 2:]) - np.maximum(boxes[:, None, :2], boxes[:, :2])).clip(0)
    shared = sides.prod(-1)
    areas = (boxes[:, 2:] - boxes[:, :2]).clip(0).prod(-1)
    return shared / (areas[:, None] + areas - shared + 1e-9)
