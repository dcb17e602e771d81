"""The rendered figures: deterministic, in bounds, with true flags."""

from dataclasses import replace

import numpy as np
import pytest
from demo.figures import Figures, draw, pose
from demo.rendered import MOST_OBJECTS, paint


@pytest.fixture(scope="module")
def figures():
    return Figures(size=96, length=60)


@pytest.fixture(scope="module")
def samples(figures):
    return [figures.sample(i) for i in range(len(figures))]


def test_a_picture_depends_on_its_index_alone(samples):
    for index in (3, 17):
        image, labels = Figures(size=96, length=100).sample(index)
        assert np.array_equal(image, samples[index][0])
        assert labels.keypoints is not None
        assert np.array_equal(labels.keypoints, samples[index][1].keypoints)


def test_seed_split_and_index_each_change_the_picture(samples):
    for other in (Figures(96, 9, seed=1), Figures(96, 9, split=1)):
        assert not np.array_equal(other.sample(3)[0], samples[3][0])
    assert not np.array_equal(samples[4][0], samples[3][0])


def test_labels_without_drawing_are_those_of_the_sample_but_for_what_is_hidden(figures, samples):
    for index, (_, labels) in enumerate(samples):
        planned = figures.labels(index)
        assert np.array_equal(planned.boxes, labels.boxes)
        assert np.array_equal(planned.keypoints[..., :2], labels.keypoints[..., :2])
        assert np.array_equal(planned.keypoints[..., 2] > 0, labels.keypoints[..., 2] > 0)


def test_boxes_lie_in_the_picture_and_hold_their_keypoints(samples):
    for image, labels in samples:
        assert image.shape == (96, 96, 3)
        assert image.dtype == np.uint8
        assert (labels.boxes >= 0).all()
        assert (labels.boxes <= 96).all()
        assert (labels.boxes[:, 2:] > labels.boxes[:, :2]).all()
        for box, keypoints in zip(labels.boxes, labels.keypoints, strict=True):
            labelled = keypoints[keypoints[:, 2] > 0, :2]
            assert (labelled >= box[:2]).all()
            assert (labelled <= box[2:]).all()


def test_unlabelled_keypoints_are_zero_and_all_three_flags_occur(samples):
    keypoints = np.concatenate([labels.keypoints.reshape(-1, 3) for _, labels in samples])
    assert (keypoints[keypoints[:, 2] == 0] == 0).all()
    assert set(np.unique(keypoints[:, 2])) == {0, 1, 2}


def test_pictures_hold_from_none_to_many_figures_of_widely_differing_sizes(samples):
    counts = {len(labels.boxes) for _, labels in samples}
    heights = np.concatenate([labels.boxes[:, 3] - labels.boxes[:, 1] for _, labels in samples])
    assert min(counts) == 0
    assert 8 <= max(counts) <= MOST_OBJECTS
    assert heights.max() > 4 * heights.min()


def test_a_joint_is_flagged_hidden_where_the_owner_map_shows_something_else():
    rng = np.random.default_rng(0)
    behind = pose(60, 96, rng)
    before = replace(behind, colours=pose(60, 96, rng).colours)
    _, owner = paint([behind, before], 96, np.random.default_rng(1), draw)
    labels = Figures(96, 1)._labels([behind, before], owner)
    assert labels.keypoints is not None
    hidden, seen = labels.keypoints[:, :, 2]
    assert set(hidden) <= {0, 1}  # 0: outside the picture
    assert (hidden == 1).sum() >= 10
    assert ((seen == 2) == (hidden == 1)).all()


def test_targets_are_normalised_rows_of_one_image(samples):
    targets = samples[3][1].targets(96).validate()
    assert targets.boxes.shape == (len(samples[3][1].boxes), 4)
    assert targets.keypoints is not None
    assert targets.keypoints.shape[1:] == (13, 3)
    assert float(targets.boxes.max()) <= 1
