"""What the dicts of torchvision may hold beside boxes and labels, with stand-ins for its `tv_tensors`."""

from enum import Enum

import pytest
import torch

from compiled_loss.data.sources import from_torchvision, from_yolo
from tests.labels import image, raises


class Format(Enum):
    """Stands for `torchvision.tv_tensors.BoundingBoxFormat`."""

    XYXY = "XYXY"
    XYWH = "XYWH"
    CXCYWH = "CXCYWH"
    XYWHR = "XYWHR"
    CXCYWHR = "CXCYWHR"


def labelled(values, **attributes):
    """Stands for a tensor of `torchvision.tv_tensors`: a subclass with what it says of itself."""

    class TVTensor(torch.Tensor):
        pass

    x = torch.tensor(values).as_subclass(TVTensor)
    for name, value in attributes.items():
        setattr(x, name, value)
    return x


@pytest.mark.parametrize(
    ("form", "box"),
    [
        (Format.XYXY, [15.0, 20, 85, 80]),
        (Format.XYWH, [15.0, 20, 70, 60]),
        (Format.CXCYWH, [50.0, 50, 70, 60]),
        ("xywh", [15.0, 20, 70, 60]),
    ],
)
def test_boxes_that_say_their_format_are_read_in_it(form, box):
    boxes = labelled([box], format=form, canvas_size=(100, 100))
    t = from_torchvision([{"boxes": boxes, "labels": torch.tensor([0])}], (100, 100))
    assert type(t.boxes) is torch.Tensor
    torch.testing.assert_close(t.boxes, torch.tensor([[0.5, 0.5, 0.7, 0.6]]))


def test_rotated_formats_are_refused_with_what_reads_them():
    boxes = labelled([[1.0, 2, 3, 4, 5]], format=Format.XYWHR, canvas_size=(64, 64))
    with raises("targets[0]['boxes']", "XYXY, XYWH or CXCYWH", "oriented=True", "XYWHR"):
        from_torchvision([{"boxes": boxes, "labels": torch.tensor([0])}], (64, 64))


@pytest.mark.parametrize(
    ("form", "box"), [(Format.XYXY, [0.1, 0.1, 0.6, 0.5]), (Format.CXCYWHR, [0.3, 0.3, 0.2, 0.1, 3])]
)
def test_a_yolo_batch_takes_boxes_of_no_other_format(form, box):
    batch = {"batch_idx": torch.zeros(1), "cls": torch.zeros(1)}
    with raises("batch['bboxes']", "(cx, cy, w, h) as fractions", f"in the format {form.value}"):
        from_yolo(batch | {"bboxes": labelled([box], format=form)})
    t = from_yolo(batch | {"bboxes": labelled([[0.5, 0.4, 0.2, 0.1]], format=Format.CXCYWH)})
    assert type(t.boxes) is torch.Tensor
    torch.testing.assert_close(t.boxes, torch.tensor([[0.5, 0.4, 0.2, 0.1]]))


@pytest.mark.parametrize("key", ["boxes", "keypoints"])
def test_a_canvas_of_another_size_than_the_image_is_named(key):
    values = {"boxes": [[8.0, 8, 24, 40]], "keypoints": [[[8.0, 8]]]}[key]
    with raises(f"targets[0]['{key}']", "canvas_size (64, 32)", "(32, 64)"):
        from_torchvision([image(1, **{key: labelled(values, canvas_size=(32, 64))})], (64, 32))


def test_keypoints_without_flags_are_all_labelled():
    points = labelled([[[16.0, 8], [32, 16]]], canvas_size=(32, 64))
    t = from_torchvision([image(1, keypoints=points), image(0)], (32, 64))
    assert t.keypoints is not None
    assert t.keypoints.tolist() == [[[0.25, 0.25], [0.5, 0.5]]]
    with raises("targets[1]['keypoints']", "[1, 2, 2]", "none for 1 boxes"):
        from_torchvision([image(1, keypoints=points), image(1)], (32, 64))
    with raises("targets[1]['keypoints']", "[1, 2, 2]", "(1, 2, 3)"):
        from_torchvision([image(1, keypoints=points), image(1, keypoints=torch.zeros(1, 2, 3))], (32, 64))


def test_crowds_of_torchvision_are_skipped_with_all_they_have_unless_asked_for():
    masks = torch.zeros(2, 4, 8, dtype=torch.uint8)
    masks[1, :, 4:] = 1
    boxes = torch.tensor([[0.0, 0, 4, 4], [4, 0, 8, 4]])
    one = image(boxes=boxes, masks=masks, iscrowd=torch.tensor([1, 0]), keypoints=torch.ones(2, 1, 3))
    t = from_torchvision([one], (4, 8))
    assert (t.labels.tolist(), t.boxes.tolist()) == ([1], [[0.75, 0.5, 0.5, 1.0]])
    assert t.masks is not None
    assert t.keypoints is not None
    assert torch.equal(t.masks, masks[1:])
    assert len(t.keypoints) == 1
    assert from_torchvision([one], (4, 8), crowds="keep").labels.tolist() == [0, 1]
    t = from_torchvision(
        [image(1, boxes=boxes[:1], masks=masks[:1], keypoints=torch.ones(1, 1, 3)), one], (4, 8), crowds="ignore"
    )
    assert t.ignore is not None
    assert (t.labels.tolist(), t.ignore.tolist()) == ([0, 0, 1], [False, True, False])
    assert t.masks is not None
    assert torch.equal(t.masks, masks[[0, 0, 1]])
    for flags, part in (([2, 0], "0 or 1 for each box"), ([1], "[2]"), ([0.5, 0], "whole"), (["1", 0], "numbers")):
        with raises("targets[0]['iscrowd']", part):
            from_torchvision([one | {"iscrowd": flags}], (4, 8))


def test_torchvision_masks_are_joined_and_read_at_one_size():
    wide, high = torch.zeros(1, 4, 8).bool(), torch.ones(2, 8, 4).bool()
    wide[0, :, 4:] = True
    images, sizes = (
        [image(1, boxes=[[0, 0, 4, 4]], masks=wide), image(boxes=[[0, 0, 4, 4]] * 2, masks=high)],
        [(4, 8), (8, 4)],
    )
    with raises("targets[1]['masks']", "masks of one size for all images, [4, 8]", "[8, 4]"):
        from_torchvision(images, sizes)
    masks = from_torchvision([*images, image(0)], [*sizes, (4, 4)], mask_size=(2, 2)).masks
    assert masks is not None
    assert masks.tolist() == [[[False, True]] * 2, [[True] * 2] * 2, [[True] * 2] * 2]
    with raises("targets[1]", "masks, since other images have them", "none for 2 boxes"):
        from_torchvision([images[0], image(2)], [(4, 8), (64, 64)])
    with raises("targets[0]['masks']", "[1, 8, 4]", "(1, 4, 8)"):
        from_torchvision([image(1, masks=wide)], (8, 4))
    with raises("Targets.masks", "from 0 to 1", "255"):
        from_torchvision([image(1, boxes=[[0, 0, 4, 4]], masks=wide.byte() * 255)], (4, 8))
