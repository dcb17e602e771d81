"""Decoding, duplicate removal and average precision of the example."""

import numpy as np
import pytest
from demo.blobs import Blobs
from demo.boats import Boats
from demo.coco import average_precision
from demo.detections import Detections, encode
from demo.evaluate import iou, select
from demo.figures import Figures
from demo.labels import Info


@pytest.fixture(scope="module")
def truth():
    figures = Figures(128, 20)
    return figures.info, [figures.labels(i) for i in range(len(figures))]


def found_from(labels, shift=0.0):
    keypoints = labels.keypoints + np.array([shift, shift, 0])
    return Detections(np.linspace(1, 0.5, len(labels.boxes)), labels.classes, labels.boxes + shift, keypoints)


def test_the_truth_itself_has_full_precision_and_nothing_has_none(truth):
    info, labels = truth
    perfect = average_precision(info, labels, [found_from(x) for x in labels], 128)
    assert perfect[:3] == pytest.approx((1, 1, 1))
    assert perfect.ap_by_class == pytest.approx(dict.fromkeys(info.classes, 1))
    nothing = Detections(np.zeros(0), np.zeros(0, int), np.zeros((0, 4)), np.zeros((0, 13, 3)))
    none = average_precision(info, labels, [nothing] * len(labels), 128)
    assert none == (0, 0, 0, dict.fromkeys(info.classes, 0))


def test_precision_falls_with_distance_by_keypoints_and_by_boxes(truth):
    info, labels = truth
    boxes_only = Info("boxes", info.classes)
    for kind, detections in ((info, found_from), (boxes_only, lambda x, s: found_from(x, s)._replace(keypoints=None))):
        near = average_precision(kind, labels, [detections(x, 1.0) for x in labels], 128)
        far = average_precision(kind, labels, [detections(x, 6.0) for x in labels], 128)
        assert 1 > near.ap > far.ap


def test_each_class_that_the_truth_has_has_its_own_precision():
    info = Info("three", ("boat", "raft", "buoy"))
    labels = Boats(128, 20).labels(3)
    assert set(labels.classes) == {0, 1}
    assert labels.rotated is not None
    boats = labels.classes == 0
    found = Detections(np.ones(boats.sum()), labels.classes[boats], labels.boxes[boats], None, labels.rotated[boats])
    precision = average_precision(info, [labels], [found], 128)
    assert precision.ap_by_class == pytest.approx({"boat": 1, "raft": 0})
    assert precision.ap == pytest.approx(0.5)


def test_duplicates_go_and_other_classes_stay():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30]], dtype=float)
    scores = np.array([[0.9, 0.0], [0.8, 0.7], [0.0, 0.6]])
    anchors, classes = select(scores, lambda chosen: iou(boxes[chosen]))
    assert anchors.tolist() == [0, 1, 2]
    assert classes.tolist() == [0, 1, 1]


def test_end_to_end_scores_are_taken_as_they_are():
    scores = np.array([[0.9, 0.001], [0.8, 0.7], [0.0, 0.6]])
    anchors, classes = select(scores)
    assert anchors.tolist() == [0, 1, 1, 2]
    assert classes.tolist() == [0, 0, 1, 1]


def boat_found(labels, turn):
    return Detections(
        np.linspace(1, 0.5, len(labels.boxes)),
        labels.classes,
        labels.boxes,
        rotated=labels.rotated + np.array([0, 0, 0, 0, turn]),
    )


def blob_found(labels, shift):
    runs = encode(np.roll(labels.masks(), int(shift), axis=2))
    return Detections(np.linspace(1, 0.5, len(labels.boxes)), labels.classes, labels.boxes, runs=runs)


@pytest.mark.parametrize(
    ("kind", "detections", "near", "far"), [(Boats, boat_found, 0.05, 0.4), (Blobs, blob_found, 1, 5)]
)
def test_rotated_boxes_and_masks_have_full_precision_where_true_and_less_further_off(kind, detections, near, far):
    pictures = kind(128, 20)
    truth = [pictures.labels(i) for i in range(20)]
    perfect, good, bad = (
        average_precision(pictures.info, truth, [detections(x, off) for x in truth], 128).ap for off in (0.0, near, far)
    )
    assert perfect == pytest.approx(1)
    assert perfect > good > bad
