"""The dense view says what the flat assignment says, anchor by anchor."""

import pytest
import torch

from compiled_loss.assign.dense import to_dense
from tests.assign.scenes import assign, make_scene, readable


@pytest.mark.parametrize("seed", range(3))
def test_every_positive_stands_at_its_anchor_and_all_else_is_background(seed):
    scene = make_scene(seed)
    flat = assign(*scene)
    batch, classes, anchors = scene.scores.shape
    dense = to_dense(flat, scene.labels, scene.boxes, batch, anchors, classes)
    positives = readable(flat)
    assert int(dense.foreground.sum()) == len(positives) == int((dense.row >= 0).sum())
    for (image, anchor, row), score in positives.items():
        label = int(scene.labels[row])
        assert dense.foreground[image, anchor]
        assert dense.row[image, anchor] == row
        assert dense.labels[image, anchor] == label
        assert torch.equal(dense.boxes[image, anchor], scene.boxes[row])
        assert dense.scores[image, anchor, label].item() == score
    assert dense.scores.sum().item() == pytest.approx(sum(positives.values()), rel=1e-5)
    background = ~dense.foreground
    assert (dense.row[background] == -1).all()
    assert (dense.labels[background] == classes).all()
    assert (dense.boxes[background] == 0).all()
    assert (dense.scores[background] == 0).all()


def test_a_batch_without_rows_is_all_background():
    scene = make_scene(0, counts=(2, 1)).rows(torch.arange(0))
    batch, classes, anchors = scene.scores.shape
    dense = to_dense(assign(*scene), scene.labels, scene.boxes, batch, anchors, classes)
    assert dense.boxes.shape == (batch, anchors, 4)
    assert dense.scores.shape == (batch, anchors, classes)
    assert not dense.foreground.any()
    assert (dense.labels == classes).all()
