"""Which found objects are which labelled ones, as COCO's average precision at an overlap of 0.5 has it.

Letters: n labelled objects of a picture, m found ones, K keypoints.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from faster_coco_eval.core import mask as run_lengths

from demo.coco import counted, outlines
from demo.detections import Detections
from demo.labels import Info, Labels

ENOUGH = 0.5


class Match(NamedTuple):
    """What became of the objects of a picture.

    Args:
        partner: `[m]` the labelled object that each found one is, -1 where there is none.
        missed: `[n]` bool, labelled objects that nothing found is.
        false_alarm: `[m]` bool, found ones that are no labelled object and in no crowd.
    """

    partner: np.ndarray
    missed: np.ndarray
    false_alarm: np.ndarray


def match(info: Info, labels: Labels, found: Detections, size: int) -> Match:
    """The best found ones first, each takes the labelled object of its class that it overlaps most."""
    similar = similarity(info, labels, found, size)
    wanted, crowd = counted(labels), ~counted(labels)
    partner, excused = np.full(len(found.scores), -1), np.zeros(len(found.scores), dtype=bool)
    free = wanted.copy()
    for j in np.argsort(-found.scores, kind="stable"):
        fits = (similar[j] >= ENOUGH) & (labels.classes == found.classes[j])
        if (fits & free).any():
            partner[j] = np.where(fits & free, similar[j], -1).argmax()
            free[partner[j]] = False
        else:
            excused[j] = (fits & crowd).any()
    return Match(partner, free, (partner < 0) & ~excused)


def similarity(info: Info, labels: Labels, found: Detections, size: int) -> np.ndarray:
    """`[m, n]` by what is found: keypoints, rotated boxes as polygons, masks, or else boxes."""
    shape = len(found.scores), len(labels.boxes)
    if 0 in shape:
        return np.zeros(shape)
    theirs, ours = outlines(labels, size), outlines(found, size)
    if theirs is None or ours is None:
        theirs, ours = (np.column_stack([x[:, :2], x[:, 2:] - x[:, :2]]) for x in (labels.boxes, found.boxes))
    overlaps = np.asarray(run_lengths.iou(ours, theirs, labels.crowd.astype(np.uint8).tolist())).reshape(shape)
    if labels.keypoints is None or found.keypoints is None:
        return overlaps
    # Of objects without a labelled keypoint there is only the box.
    given = labels.keypoints[:, :, 2] > 0
    return np.where(given.any(1), _keypoint_similarity(info, labels, found), overlaps)


def _keypoint_similarity(info: Info, labels: Labels, found: Detections) -> np.ndarray:
    """COCO's OKS."""
    assert labels.keypoints is not None
    assert found.keypoints is not None
    given = labels.keypoints[:, :, 2] > 0  # [n, K]
    apart = ((found.keypoints[:, None, :, :2] - labels.keypoints[..., :2]) ** 2).sum(-1)  # [m, n, K]
    scale = 2 * (2 * np.array(info.sigmas)) ** 2 * (labels.areas[:, None] + np.spacing(1))
    return (np.exp(-apart / scale) * given).sum(-1) / np.maximum(given.sum(-1), 1)
