"""From raw predictions to detections: decoding, and duplicates removed where the head may give them.

Letters: B images, A anchors, C classes, K keypoints, D mask coefficients, n detections of an image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from compiled_loss import Predictions
from compiled_loss.geometry.rotated import decode_rotated, rotated_hull
from compiled_loss.grid import decode_distances, decode_keypoints, distances_to_boxes, make_anchors
from demo import rotated
from demo.coco import AveragePrecision, average_precision
from demo.detections import Detections, encode
from demo.labels import Info, Labels, image_tensor
from demo.model import STRIDES, Detector

CANDIDATES, KEPT, SAME_OBJECT_IOU, LOWEST_SCORE = 300, 100, 0.6, 0.01


class Decoded(NamedTuple):
    """Scores `[B, A, C]`, boxes `[B, A, 4]` in pixels, and what the task has: keypoints `[B, A, K, 3]`, rotated boxes
    `[B, A, 5]`, mask coefficients `[B, A, D]`.
    """

    scores: Tensor
    boxes: Tensor
    keypoints: Tensor | None = None
    rotated: Tensor | None = None
    coefficients: Tensor | None = None


def evaluate(
    model: Detector, info: Info, pictures: Sequence[tuple[np.ndarray, Labels]], device: torch.device, batch_size: int
) -> tuple[AveragePrecision, list[Detections]]:
    """Average precision of the model on labelled pictures, and what it found in each."""
    found: list[Detections] = []
    for start in range(0, len(pictures), batch_size):
        images = torch.stack([image_tensor(image) for image, _ in pictures[start : start + batch_size]])
        found += detect(model, images.to(device))
    truth, size = [labels for _, labels in pictures], len(pictures[0][0])
    return average_precision(info, truth, found, size), found


@torch.no_grad()
def detect(model: Detector, images: Tensor) -> list[Detections]:
    """Detections of every image `[B, 3, H, W]`; leaves the model in evaluation mode.

    An end-to-end model finds every object once: its best scores are the detections.
    """
    (predictions,) = model.eval()(images)
    decoded = decode(predictions)
    size = (images.shape[2], images.shape[3])
    return [_one_image(predictions, decoded, i, size, duplicates=not model.end_to_end) for i in range(len(images))]


def decode(predictions: Predictions) -> Decoded:
    """Pixels and probabilities of every anchor."""
    points, strides = make_anchors(predictions.grid_sizes, STRIDES, device=predictions.boxes.device)
    distances = decode_distances(predictions.boxes.float().transpose(1, 2).unflatten(-1, (4, -1)))
    boxes = distances_to_boxes(points, distances) * strides[:, None]
    decoded = Decoded(predictions.scores.float().sigmoid().transpose(1, 2), boxes)
    if predictions.keypoints is not None:
        raw = predictions.keypoints.float().transpose(1, 2).unflatten(-1, (-1, 3))
        xy = decode_keypoints(raw[..., :2], points) * strides[:, None, None]
        decoded = decoded._replace(keypoints=torch.cat([xy, raw[..., 2:].sigmoid()], dim=-1))
    if predictions.angles is not None:
        turned = decode_rotated(points, distances, predictions.angles.float().squeeze(1))
        turned = torch.cat([turned[..., :4] * strides[:, None], turned[..., 4:]], dim=-1)
        decoded = decoded._replace(rotated=turned, boxes=rotated_hull(turned))
    if predictions.coefficients is not None:
        decoded = decoded._replace(coefficients=predictions.coefficients.float().transpose(1, 2))
    return decoded


def select(
    scores: np.ndarray, overlaps: Callable[[np.ndarray], np.ndarray] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """One image's best anchors and their classes, of scores `[A, C]`.

    With `overlaps`, `[n, n]` of chosen anchors, without duplicates: greedy non-maximum suppression inside each class.
    """
    order = np.argsort(-scores, axis=None, kind="stable")[: KEPT if overlaps is None else CANDIDATES]
    order = order[scores.reshape(-1)[order] >= LOWEST_SCORE]
    anchors, classes = np.divmod(order, scores.shape[1])
    if overlaps is None:
        return anchors, classes
    same = (overlaps(anchors) > SAME_OBJECT_IOU) & (classes[:, None] == classes)
    alive, kept = np.ones(len(order), dtype=bool), []
    for i in range(len(order)):
        if alive[i] and len(kept) < KEPT:
            kept.append(i)
            alive &= ~same[i]
    return anchors[kept], classes[kept]


def _one_image(
    predictions: Predictions, decoded: Decoded, image: int, size: tuple[int, int], duplicates: bool
) -> Detections:
    scores, boxes, keypoints, turned = (None if x is None else x[image].cpu().numpy() for x in decoded[:4])
    assert scores is not None
    assert boxes is not None
    # What a diverged model gives is no outline.
    scores = np.where(np.isfinite(boxes).all(1, keepdims=True), scores, 0)

    def overlaps(anchors: np.ndarray) -> np.ndarray:
        return iou(boxes[anchors]) if turned is None else rotated.overlaps(turned[anchors])

    anchors, classes = select(scores, overlaps if duplicates else None)
    runs = None
    if decoded.coefficients is not None:
        assert predictions.prototypes is not None
        chosen = torch.from_numpy(anchors).to(decoded.boxes.device)
        coefficients, limits = decoded.coefficients[image, chosen], decoded.boxes[image, chosen]
        runs = encode(masks(coefficients, predictions.prototypes[image].float(), limits, size).cpu().numpy())
    keypoints, turned = (None if x is None else x[anchors] for x in (keypoints, turned))
    return Detections(scores[anchors, classes], classes, boxes[anchors], keypoints, turned, runs)


def masks(coefficients: Tensor, prototypes: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """`[n, H, W]` bool masks inside their boxes, of coefficients `[n, D]` and prototypes `[D, h, w]`."""
    if len(boxes) == 0:
        return torch.zeros(0, *size, dtype=torch.bool)
    # What the prototypes add up to is enlarged; to enlarge each of them first gives the same.
    logits = torch.einsum("nd,dhw->nhw", coefficients, prototypes)
    logits = F.interpolate(logits[None], size, mode="bilinear", align_corners=False)[0]
    y, x = (torch.arange(side, device=boxes.device) + 0.5 for side in size)
    left, top, right, bottom = (side[:, None] for side in boxes.unbind(1))
    columns, rows = (x > left) & (x < right), (y > top) & (y < bottom)
    return (logits > 0) & rows[:, :, None] & columns[:, None, :]


def iou(boxes: np.ndarray) -> np.ndarray:
    """`[n, n]` overlap of every two boxes."""
    sides = (np.minimum(boxes[:, None, 2:], boxes[:, 2:]) - np.maximum(boxes[:, None, :2], boxes[:, :2])).clip(0)
    shared = sides.prod(-1)
    areas = (boxes[:, 2:] - boxes[:, :2]).clip(0).prod(-1)
    return shared / (areas[:, None] + areas - shared + 1e-9)
