"""From raw predictions to detections: the loss decodes them; duplicates are removed where the head may give them.

Letters: B images, A anchors, C classes, n detections of an image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from compiled_loss import Decoded, DenseLoss, EndToEndLoss
from compiled_loss.geometry.masks import decode_masks
from compiled_loss.geometry.rotated import rotated_hull
from demo import rotated
from demo.coco import AveragePrecision, average_precision
from demo.detections import Detections, encode
from demo.labels import Info, Labels, image_tensor
from demo.model import Detector

CANDIDATES, KEPT, SAME_OBJECT_IOU, LOWEST_SCORE = 300, 100, 0.6, 0.01


def evaluate(
    model: Detector,
    criterion: DenseLoss | EndToEndLoss,
    info: Info,
    pictures: Sequence[tuple[np.ndarray, Labels]],
    device: torch.device,
    batch_size: int,
) -> tuple[AveragePrecision, list[Detections]]:
    """Average precision of the model on labelled pictures, and what it found in each."""
    found: list[Detections] = []
    for start in range(0, len(pictures), batch_size):
        images = torch.stack([image_tensor(image) for image, _ in pictures[start : start + batch_size]])
        found += detect(model, criterion, images.to(device))
    truth, size = [labels for _, labels in pictures], len(pictures[0][0])
    return average_precision(info, truth, found, size), found


@torch.no_grad()
def detect(model: Detector, criterion: DenseLoss | EndToEndLoss, images: Tensor) -> list[Detections]:
    """Detections of every image `[B, 3, H, W]`; leaves the model in evaluation mode.

    An end-to-end model finds every object once: its best scores are the detections.
    """
    (predictions,) = model.eval()(images)
    decoded, prototypes = criterion.decode(predictions), predictions.prototypes
    size = (images.shape[2], images.shape[3])
    return [_one_image(decoded, prototypes, i, size, duplicates=not model.end_to_end) for i in range(len(images))]


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
    decoded: Decoded, prototypes: Tensor | None, image: int, size: tuple[int, int], duplicates: bool
) -> Detections:
    boxes = decoded.boxes[image]
    turned = boxes.cpu().numpy() if boxes.shape[1] == 5 else None
    upright = boxes if turned is None else rotated_hull(boxes)
    scores, hulls = decoded.scores[image].cpu().numpy(), upright.cpu().numpy()

    def overlaps(anchors: np.ndarray) -> np.ndarray:
        return iou(hulls[anchors]) if turned is None else rotated.overlaps(turned[anchors])

    anchors, classes = select(scores, overlaps if duplicates else None)
    runs = None
    if decoded.coefficients is not None:
        assert prototypes is not None
        chosen = torch.from_numpy(anchors).to(boxes.device)[None]
        one = decoded.coefficients[image, chosen], prototypes[image, None], boxes[chosen]
        runs = encode((decode_masks(*one, size, size)[0] > 0.5).cpu().numpy()) if len(anchors) else []
    keypoints = None if decoded.keypoints is None else decoded.keypoints[image].cpu().numpy()[anchors]
    turned = None if turned is None else turned[anchors]
    return Detections(scores[anchors, classes], classes, hulls[anchors], keypoints, turned, runs)


def iou(boxes: np.ndarray) -> np.ndarray:
    """`[n, n]` overlap of every two boxes."""
    sides = (np.minimum(boxes[:, None, 2:], boxes[:, 2:]) - np.maximum(boxes[:, None, :2], boxes[:, :2])).clip(0)
    shared = sides.prod(-1)
    areas = (boxes[:, 2:] - boxes[:, :2]).clip(0).prod(-1)
    return shared / (areas[:, None] + areas - shared + 1e-9)
