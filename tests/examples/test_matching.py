"""Misses and false alarms: cases worked by hand, and COCO's own count of what was found."""

import numpy as np
import pytest
from demo.blobs import Blobs
from demo.boats import Boats
from demo.detections import Detections, encode
from demo.figures import Figures
from demo.labels import Info, Labels
from demo.matching import match, similarity
from faster_coco_eval import COCO, COCOeval_faster

from demo.coco import _annotations, _results  # isort: skip

INFO = Info("two", ("a", "b"))


def labels_of(boxes, classes, crowd=None):
    n = len(boxes)
    crowd = np.zeros(n, bool) if crowd is None else np.array(crowd)
    return Labels(np.array(classes), np.array(boxes, float).reshape(n, 4), np.full(n, 100.0), crowd)


def found_of(boxes, classes, scores):
    return Detections(np.array(scores), np.array(classes, int), np.array(boxes, float).reshape(len(scores), 4))


def test_the_best_takes_what_it_overlaps_most_and_a_double_is_a_false_alarm():
    labels = labels_of([[0, 0, 10, 10], [0, 0, 10, 8], [20, 20, 30, 30]], [0, 0, 1])
    found = found_of([[0, 0, 10, 9], [0, 0, 10, 10], [0, 0, 10, 10]], [0, 0, 0], [0.7, 0.9, 0.8])
    partner, missed, false = match(INFO, labels, found, 32)
    assert partner.tolist() == [-1, 0, 1]
    assert missed.tolist() == [False, False, True]
    assert false.tolist() == [True, False, False]


def test_another_class_is_both_a_miss_and_a_false_alarm_and_a_crowd_is_neither():
    labels = labels_of([[0, 0, 10, 10], [10, 10, 30, 30]], [0, 0], [False, True])
    found = found_of([[0, 0, 10, 10], [12, 12, 16, 16], [20, 20, 24, 24]], [1, 0, 0], [0.9, 0.8, 0.7])
    partner, missed, false = match(INFO, labels, found, 32)
    assert (partner.tolist(), missed.tolist()) == ([-1, -1, -1], [True, False])
    assert false.tolist() == [True, False, False]


def test_nothing_found_and_nothing_labelled():
    none, one = labels_of([], []), labels_of([[0, 0, 9, 9]], [0])
    assert match(INFO, one, found_of([], [], []), 32).missed.tolist() == [True]
    assert match(INFO, none, found_of([[0, 0, 9, 9]], [0], [0.9]), 32).false_alarm.tolist() == [True]


def test_an_overlap_of_exactly_a_half_is_enough():
    labels = labels_of([[0, 0, 10, 10]], [0])
    assert similarity(INFO, labels, found_of([[0, 0, 10, 5]], [0], [1.0]), 32) == pytest.approx(0.5)
    assert not match(INFO, labels, found_of([[0, 0, 10, 5]], [0], [1.0]), 32).missed.any()


@pytest.mark.parametrize("kind", [Figures, Boats, Blobs])
def test_as_many_are_found_as_coco_counts(kind):
    """Of objects that are moved at random, recall at 0.5 is the share that is not missed."""
    data, rng = kind(96, 12), np.random.default_rng(0)
    truth, found = [data.labels(i) for i in range(12)], []
    for labels in truth:
        n = len(labels.boxes)
        move = rng.normal(0, 0.06, (n, 2)) * (labels.boxes[:, 2:] - labels.boxes[:, :2])
        both = np.concatenate([move, move], 1)
        keypoints = None if labels.keypoints is None else labels.keypoints + np.pad(move, ((0, 0), (0, 1)))[:, None] * 2
        rotated = None if labels.rotated is None else labels.rotated + np.pad(move * 2, ((0, 0), (0, 3)))
        masks = labels.masks()
        runs = None
        if masks is not None:
            shifted = [
                np.roll(m, tuple(np.rint(2 * s).astype(int)[::-1]), (0, 1)) for m, s in zip(masks, move, strict=True)
            ]
            runs = encode(np.array(shifted).reshape(masks.shape))
        found.append(Detections(rng.uniform(size=n), labels.classes, labels.boxes + both, keypoints, rotated, runs))
    classes = [{"id": c, "name": name} for c, name in enumerate(data.info.classes)]
    images = [{"id": i, "height": 96, "width": 96} for i in range(12)]
    reference = COCO({"images": images, "categories": classes, "annotations": _annotations(truth, 96)})
    results = [row for i, one in enumerate(found) for row in _results(i, one, 96)]
    style = "keypoints" if truth[0].keypoints is not None else "segm"
    evaluation = COCOeval_faster(
        reference, reference.loadRes(results), style, kpt_oks_sigmas=list(data.info.sigmas) or None
    )
    evaluation.run()
    recall = evaluation.eval["recall"][0, :, 0, -1]
    matches = [match(data.info, labels, one, 96) for labels, one in zip(truth, found, strict=True)]
    for c, share in enumerate(recall):
        if style == "keypoints":
            wanted = [labels.keypoints[:, :, 2].any(1) & (labels.classes == c) for labels in truth]
        else:
            wanted = [labels.classes == c for labels in truth]
        missed = sum(int((m.missed & w).sum()) for m, w in zip(matches, wanted, strict=True))
        total = sum(int(w.sum()) for w in wanted)
        assert 0 < missed < total
        assert 1 - missed / total == pytest.approx(share)
