"""Values of other kinds in labels are named; what looks wrong and may be right is warned of."""

import warnings
from typing import Any

import pytest
import torch

from compiled_loss.data import reading
from compiled_loss.data.sources import from_coco, from_torchvision, from_yolo
from tests.labels import image, note, raises, yolo_batch


@pytest.mark.parametrize("flag", ["0", "1", "false", float("nan"), 2, [1], {}])
def test_a_crowd_flag_that_is_neither_0_nor_1_is_named(flag):
    with raises("annotations[0][1]['iscrowd']", "0 or 1"):
        from_coco([[note(), note() | {"iscrowd": flag}]], (64, 64))


@pytest.mark.parametrize(("flag", "rows"), [(0, 1), (1, 0), (0.0, 1), (1.0, 0), (False, 1), (True, 0), (None, 1)])
def test_a_crowd_flag_may_be_a_number_of_any_kind(flag, rows):
    numpy = pytest.importorskip("numpy")
    for kind in (flag, numpy.array(flag)[()], numpy.array(flag), torch.tensor(0 if flag is None else flag)):
        assert len(from_coco([[note() | {"iscrowd": kind}]], (64, 64)).labels) == rows


@pytest.mark.parametrize("ids", [[1, 5], (1, 5), torch.tensor([1, 5]), ["1", "5"]])
def test_category_ids_may_be_any_list_of_numbers_or_texts(ids):
    given = "5" if "5" in list(ids) else torch.tensor(5)
    assert from_coco([[note(category_id=given)]], (64, 64), category_ids=ids).labels.tolist() == [1]


@pytest.mark.parametrize(
    ("annotation", "arguments", "parts"),
    [
        ({}, {"category_ids": [{"id": 1}]}, ["category_ids", "a list of ids", "{'id': 1}"]),
        ({}, {"category_ids": 3}, ["category_ids", "a list of ids", "3"]),
        ({}, {"category_ids": []}, ["category_ids", "a list of ids"]),
        ({"category_id": [1]}, {"category_ids": [1]}, ["annotations[0][0]['category_id']", "one of the", "[1]"]),
        ({"category_id": True}, {}, ["annotations[0][0]['category_id']", "a whole number", "True"]),
        ({"category_id": 10**30}, {}, ["annotations[0][0]['category_id']", "a whole number"]),
        ({"bbox": [True, 2, 3, 4]}, {}, ["annotations[0][0]['bbox']", "numbers", "True"]),
        ({"bbox": [[1, 2, 3, 4]]}, {}, ["annotations[0][0]['bbox']", "numbers (x, y, width, height)"]),
        ({"bbox": "1234"}, {}, ["annotations[0][0]['bbox']", "numbers", "'1234'"]),
        ({"bbox": [10**400, 2, 3, 4]}, {}, ["annotations[0][0]['bbox']", "numbers"]),
        ({"bbox": [float("nan"), 2, 3, 4]}, {}, ["Targets.boxes", "finite", "row 0"]),
        ({"keypoints": [[1, 2, 2], [3, 4, 1]]}, {}, ["annotations[0][0]['keypoints']", "x, y, flag, in one list"]),
        ({"keypoints": 7}, {}, ["annotations[0][0]['keypoints']", "x, y, flag", "7"]),
        ({}, {"num_keypoints": 0}, ["num_keypoints", "at least 1", "0"]),
        ({}, {"mask_size": (8, 0)}, ["mask_size", "at least 1", "0"]),
    ],
)
def test_what_annotations_of_other_kinds_hold_is_named(annotation, arguments, parts):
    with raises(*parts):
        from_coco([[note() | annotation]], (64, 64), **arguments)


@pytest.mark.parametrize("source", [from_coco, from_torchvision])
@pytest.mark.parametrize("images", [None, 3, "images", {}])
def test_images_that_are_no_list_are_named(source, images):
    with raises("annotations" if source is from_coco else "targets", "a list of", type(images).__name__):
        source(images, (64, 64))


@pytest.mark.parametrize(
    "sizes", ["64", ("64", "64"), (64, None), (float("nan"), 64), (True, 64), (10**400, 64), [[64, 64, 3]], None]
)
def test_image_sizes_of_other_kinds_are_named(sizes):
    with raises("image_sizes: expected"):
        from_torchvision([image()], sizes)


def test_image_sizes_may_be_a_list_of_tensors_or_arrays():
    numpy = pytest.importorskip("numpy")
    one = image(boxes=torch.tensor([[0.0, 0, 32, 16]]), labels=torch.tensor([1]))
    for kind in (torch.tensor, numpy.array):
        sizes: Any = [kind([64, 64]), kind([32, 64])]
        assert from_torchvision([one, one], sizes).boxes[:, 1].tolist() == [0.125, 0.25]


def test_numbers_are_read_with_double_precision():
    box = [[0.1, 0.2, 33.3, 16.7]]
    t = from_coco([[note(bbox=box[0])]], (64, 64))
    assert torch.equal(t.boxes, torch.tensor([[0.1 + 33.3 / 2, 0.2 + 16.7 / 2, 33.3, 16.7]]).double().div(64).float())


def test_given_tensors_stay_where_they_are_whatever_the_default_device():
    numpy = pytest.importorskip("numpy")
    masked = note(segmentation=[[0, 0, 8, 0, 8, 8]], keypoints=None)
    batch = yolo_batch(cls=[3, 0, 1], bboxes=numpy.full((3, 4), 0.5))
    dicts = [image(masks=torch.zeros(2, 64, 64).bool())] * 2
    torch.set_default_device("meta")
    try:
        for t in (
            from_yolo(batch),
            from_torchvision(dicts, (64, 64)),
            from_coco([[note()], []], (64, 64)),
            from_coco([[masked], []], (64, 64), mask_size=(8, 8), num_keypoints=2),
        ):
            assert all(x.device.type == "cpu" for x in t if isinstance(x, torch.Tensor))
    finally:
        torch.set_default_device(None)


def test_angles_in_degrees_are_refused_and_a_full_turn_is_not():
    full = 6.2831855
    batch = {"batch_idx": [0, 0, -1], "cls": [0, 0, 0], "bboxes": torch.tensor([[0.5, 0.5, 0.4, 0.1, -full]] * 3)}
    batch["bboxes"][2, 4] = 90.0  # padding may hold anything finite
    assert from_yolo(batch).angles is not None
    batch["bboxes"][1, 4] = 30.0
    with raises("Targets.angles", "radians", "degrees", "30.0 in row 1"):
        from_yolo(batch)
    with raises("Targets.angles", "radians", "45.0 in row 0"):
        from_coco([[{"rbox": [32, 24, 30, 10, 45.0], "category_id": 0}]], (48, 64), oriented=True)


CORNERS = torch.tensor([[0.1, 0.2, 0.2, 0.3], [0.6, 0.5, 0.9, 0.7], [0.7, 0.8, 0.8, 0.9], [0.3, 0.7, 0.5, 0.9]])


def test_corners_read_as_centre_and_size_are_warned_of_once(monkeypatch):
    monkeypatch.setattr(reading, "_warned", set())
    batch = {"batch_idx": torch.zeros(4), "cls": torch.zeros(4), "bboxes": CORNERS}
    with pytest.warns(UserWarning, match=r"from_yolo: many boxes .*corners .*read as \(cx, cy, w, h\)") as told:
        from_yolo(batch)
    assert told[0].filename == __file__
    from_yolo(batch)  # a warning would be an error
    whole = [[0, 0, 64, 64], [0, 30.3, 17.7, 64]]  # on the sides, give or take rounding
    rows = [[{"bbox": box, "category_id": 0} for box in [*(CORNERS * 64).tolist(), *whole]]]
    with pytest.warns(UserWarning, match="from_coco: many boxes .*corners"):
        from_coco(rows, (64, 64))


def test_boxes_that_reach_out_as_crops_do_are_not_warned_of(monkeypatch):
    monkeypatch.setattr(reading, "_warned", set())
    x1, y1, x2, y2 = CORNERS.unbind(1)
    sound = torch.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], 1)
    moved = sound + torch.tensor([0.25, 0.25, 0, 0])
    for boxes in (sound, moved, CORNERS[:3]):
        from_yolo({"batch_idx": torch.zeros(len(boxes)), "cls": torch.zeros(len(boxes)), "bboxes": boxes})


def test_fractions_where_pixels_belong_are_warned_of(monkeypatch):
    monkeypatch.setattr(reading, "_warned", set())
    labels = torch.zeros(4, dtype=torch.int64)
    with pytest.warns(UserWarning, match="from_torchvision: all boxes lie inside the first pixel"):
        from_torchvision([{"boxes": CORNERS, "labels": labels}], (64, 64))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        from_torchvision([{"boxes": CORNERS * 64, "labels": labels}], (64, 64))
