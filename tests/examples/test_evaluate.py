"""Decoding, duplicate removal and average precision of the example."""

import numpy as np
import pytest
import torch
from demo.evaluate import Detections, average_precision, decode, select
from demo.figures import Figures
from demo.labels import Info

from compiled_loss import Predictions


@pytest.fixture(scope="module")
def truth():
    figures = Figures(128, 20)
    return figures.info, [figures.labels(i) for i in range(len(figures))]


def found_from(labels, shift=0.0):
    keypoints = labels.keypoints + np.array([shift, shift, 0])
    return Detections(np.linspace(1, 0.5, len(labels.boxes)), labels.classes, labels.boxes + shift, keypoints)


def test_the_truth_itself_has_full_precision_and_nothing_has_none(truth):
    info, labels = truth
    perfect = average_precision(info, labels, [found_from(x) for x in labels])
    assert perfect == pytest.approx((1, 1, 1))
    nothing = Detections(np.zeros(0), np.zeros(0, int), np.zeros((0, 4)), np.zeros((0, 13, 3)))
    assert average_precision(info, labels, [nothing] * len(labels)) == (0, 0, 0)


def test_precision_falls_with_distance_by_keypoints_and_by_boxes(truth):
    info, labels = truth
    boxes_only = Info("boxes", info.classes)
    for kind, detections in ((info, found_from), (boxes_only, lambda x, s: found_from(x, s)._replace(keypoints=None))):
        near = average_precision(kind, labels, [detections(x, 1.0) for x in labels])
        far = average_precision(kind, labels, [detections(x, 6.0) for x in labels])
        assert 1 > near.ap > far.ap


def test_duplicates_go_and_other_classes_stay():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30]], dtype=float)
    scores = np.array([[0.9, 0.0], [0.8, 0.7], [0.0, 0.6]])
    kept = select(scores, boxes, None)
    assert kept.scores.tolist() == [0.9, 0.7, 0.6]
    assert kept.classes.tolist() == [0, 1, 1]
    assert kept.boxes.tolist() == [boxes[0].tolist(), boxes[1].tolist(), boxes[2].tolist()]


def test_decoding_gives_pixels_around_the_anchor():
    logits = torch.full((1, 4, 16, 21), -30.0)
    logits[:, :, 2] = 30.0
    raw = torch.zeros(1, 3, 21)
    predictions = Predictions(logits.flatten(1, 2), torch.zeros(1, 1, 21), ((4, 4), (2, 2), (1, 1)), raw)
    boxes, scores, keypoints = decode(predictions)
    assert boxes[0, 0].tolist() == pytest.approx([4 - 16, 4 - 16, 4 + 16, 4 + 16])
    assert boxes[0, 20].tolist() == pytest.approx([16 - 64, 16 - 64, 16 + 64, 16 + 64])
    assert keypoints is not None
    assert keypoints[0, 16, 0].tolist() == pytest.approx([0, 0, 0.5])
    assert scores.unique().tolist() == [0.5]
