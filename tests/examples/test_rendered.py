"""The rendered boats and blobs: deterministic, in bounds, with true rotated boxes and masks."""

import numpy as np
import pytest
import torch
from demo.blobs import Blobs
from demo.boats import Boats
from demo.labels import MASK_STRIDE
from demo.model import Detector
from demo.rendered import MOST_OBJECTS
from demo.rotated import corners, half_turn, hulls, overlaps


@pytest.fixture(scope="module", params=[Boats, Blobs])
def data(request):
    return request.param(size=96, length=50)


def test_a_picture_depends_on_seed_split_and_index(data):
    image, labels = data.sample(3)
    again, same = type(data)(96, 99).sample(3)
    assert np.array_equal(image, again)
    assert np.array_equal(labels.boxes, same.boxes)
    assert np.array_equal(data.labels(3).boxes, labels.boxes)
    for other in (type(data)(96, 9, seed=1), type(data)(96, 9, split=1)):
        assert not np.array_equal(other.sample(3)[0], image)


def test_pictures_hold_from_none_to_many_objects_of_widely_differing_sizes(data):
    every = [data.labels(i) for i in range(len(data))]
    assert min(len(labels.boxes) for labels in every) == 0
    assert 8 <= max(len(labels.boxes) for labels in every) <= MOST_OBJECTS
    boxes = np.concatenate([labels.boxes for labels in every])
    assert boxes.min() >= 0
    assert boxes.max() <= 96
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    assert areas.max() > 12 * areas.min()
    assert {0, 1} == set(np.concatenate([labels.classes for labels in every]))


def test_masks_fill_their_boxes_and_stay_with_their_objects():
    for index in range(10):
        labels = Blobs(96, 10).labels(index)
        masks = labels.masks()
        assert masks is not None
        for mask, (x1, y1, x2, y2) in zip(masks, labels.boxes.astype(int), strict=True):
            assert mask.sum() == mask[y1:y2, x1:x2].sum() >= 12
            assert mask[[y1, y2 - 1]].any(1).all()
            assert mask[:, [x1, x2 - 1]].any(0).all()
        chosen = np.arange(len(labels.boxes)) % 2 == 1
        kept = labels.take(chosen).masks()
        assert kept is not None
        assert np.array_equal(kept, masks[chosen])


def test_targets_carry_angles_and_index_maps():
    boats, blobs = Boats(96, 9).labels(4), Blobs(96, 9).labels(4)
    assert boats.rotated is not None
    oriented, segmented = boats.targets(96).validate(), blobs.targets(96).validate()
    assert oriented.angles is not None
    assert oriented.boxes.numpy() * 96 == pytest.approx(boats.rotated[:, :4], rel=1e-5)
    assert segmented.index_map is not None
    assert segmented.index_map.shape == (1, 96 // MASK_STRIDE, 96 // MASK_STRIDE)
    assert segmented.index_map.max() == len(blobs.boxes)


def test_corners_hulls_and_overlaps_of_a_quarter_turn():
    boxes = np.array([[10.0, 20, 8, 4, np.pi / 2], [10, 20, 4, 8, 0]])
    assert hulls(boxes) == pytest.approx(np.array([[8, 16, 12, 24]] * 2))
    assert corners(boxes)[1] == pytest.approx(np.array([(12, 24), (8, 24), (8, 16), (12, 16)]))
    assert overlaps(boxes) == pytest.approx(np.ones((2, 2)), abs=1e-3)
    assert half_turn(np.array([-np.pi / 2, -2.0, np.pi])) == pytest.approx([np.pi / 2, np.pi - 2, 0])


def test_angles_of_labels_are_those_that_the_model_can_give():
    model, ends = Detector(2, "angles", 1).eval(), []
    for bias in (-50.0, 50.0):
        for name, x in model.named_parameters():
            if name.endswith("readouts.2.bias"):
                torch.nn.init.constant_(x, bias)
        (predictions,) = model(torch.zeros(1, 3, 64, 64))
        assert predictions.angles is not None
        ends += predictions.angles.unique().tolist()
    assert ends[1] - ends[0] == pytest.approx(np.pi)
    turned = half_turn(np.linspace(-10, 10, 1001))
    assert (turned >= ends[0] - 1e-6).all()
    assert (turned <= ends[1]).all()
