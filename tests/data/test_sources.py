"""The label formats: the same objects give the same Targets, and what is wrong is named."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compiled_loss.data.sources import from_coco, from_torchvision, from_yolo
from compiled_loss.data.targets import Targets
from tests.labels import image, note, raises, yolo_batch


@st.composite
def pictures(draw):
    """Images as (height, width, objects); an object is (class, x, y, width, height, keypoints or None) in pixels."""
    images = []
    for _ in range(draw(st.integers(1, 4))):
        height, width = draw(st.integers(32, 900)), draw(st.integers(32, 900))
        objects = []
        for _ in range(draw(st.integers(0, 4))):
            x, y = draw(st.floats(-10, width, width=32)), draw(st.floats(-10, height, width=32))
            w, h = draw(st.floats(0, width, width=32)), draw(st.floats(0, height, width=32))
            points = [
                [draw(st.integers(0, width)), draw(st.integers(0, height)), draw(st.integers(0, 2))] for _ in "abc"
            ]
            objects.append((draw(st.integers(0, 4)), x, y, w, h, draw(st.sampled_from([points, None]))))
        images.append((height, width, objects))
    return images


def agree(a: Targets, b: Targets):
    assert torch.equal(a.batch_idx, b.batch_idx)
    assert torch.equal(a.labels, b.labels)
    torch.testing.assert_close(a.boxes, b.boxes, rtol=0, atol=1e-6)
    assert (a.keypoints is None) == (b.keypoints is None)
    if a.keypoints is not None:
        torch.testing.assert_close(a.keypoints, b.keypoints, rtol=0, atol=1e-6)
    assert a.is_sorted == b.is_sorted


@pytest.mark.filterwarnings("ignore:from_")  # drawn at random, some look like corners
@settings(deadline=None, max_examples=40)
@given(pictures())
def test_the_three_formats_agree_on_the_same_objects(images):
    sizes = [(height, width) for height, width, _ in images]
    category_ids = [7, 3, 90, 1, 12]
    coco = [
        [
            {"bbox": [x, y, w, h], "category_id": category_ids[label]}
            | ({} if points is None else {"keypoints": [v for point in points for v in point]})
            for label, x, y, w, h, points in objects
        ]
        for *_, objects in images
    ]
    dicts = [
        {
            "boxes": torch.tensor([[x, y, x + w, y + h] for _, x, y, w, h, _ in objects], dtype=torch.float64),
            "labels": torch.tensor([label for label, *_ in objects], dtype=torch.int64),
            "keypoints": torch.tensor([points or [[0, 0, 0]] * 3 for *_, points in objects]).reshape(-1, 3, 3),
        }
        for *_, objects in images
    ]
    flat = [(i, height, width, *o) for i, (height, width, objects) in enumerate(images) for o in objects]
    yolo = {
        "batch_idx": torch.tensor([float(i) for i, *_ in flat]),
        "cls": torch.tensor([[float(label)] for _, _, _, label, *_ in flat]).reshape(-1, 1),
        "bboxes": torch.tensor(
            [[(x + w / 2) / W, (y + h / 2) / H, w / W, h / H] for _, H, W, _, x, y, w, h, _ in flat]
        ),
        "keypoints": torch.tensor(
            [[[x / W, y / H, v] for x, y, v in points or [[0, 0, 0]] * 3] for _, H, W, *_, points in flat]
        ).reshape(-1, 3, 3),
    }
    ours = from_coco(coco, sizes, category_ids=category_ids, num_keypoints=3)
    assert (ours.boxes.dtype, ours.labels.dtype, ours.batch_idx.dtype) == (torch.float32, torch.int64, torch.int64)
    agree(ours, from_torchvision(dicts, sizes, num_keypoints=3))
    agree(ours, from_yolo(yolo))


def test_yolo_rows_keep_their_order_and_promise_it_only_when_it_holds():
    assert from_yolo(yolo_batch()).is_sorted
    shuffled = from_yolo(yolo_batch(batch_idx=torch.tensor([1, 0, 1])))
    assert not shuffled.is_sorted
    assert shuffled.batch_idx.tolist() == [1, 0, 1]
    assert from_yolo(yolo_batch(batch_idx=torch.tensor([[0], [1], [-1]]))).is_sorted
    assert not from_yolo(yolo_batch(batch_idx=torch.tensor([0, -1, 1]))).is_sorted


def test_yolo_keypoints_are_optional_and_may_have_two_values():
    assert from_yolo(yolo_batch(keypoints=None)).keypoints is None
    points = from_yolo(yolo_batch(keypoints=torch.full((3, 5, 2), 0.5))).keypoints
    assert points is not None
    assert points.shape == (3, 5, 2)


def test_a_yolo_batch_without_objects_has_no_rows():
    t = from_yolo({"batch_idx": torch.zeros(0), "cls": torch.zeros(0, 1), "bboxes": torch.zeros(0, 4)})
    assert t.boxes.shape == (0, 4)
    assert t.is_sorted


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"cls": None}, ["batch", "key 'cls'", "batch_idx"]),
        ({"bboxes": None}, ["batch", "key 'bboxes'"]),
        ({"batch_idx": torch.tensor([0.0, 0.5, 1.0])}, ["batch['batch_idx']", "whole", "0.5", "row 1"]),
        ({"batch_idx": torch.tensor([0.0, float("nan"), 1.0])}, ["batch['batch_idx']", "whole", "nan", "row 1"]),
        ({"cls": torch.tensor([0.0, 0.0, 1.25])}, ["batch['cls']", "whole", "1.25", "row 2"]),
        ({"cls": torch.zeros(3, 2)}, ["batch['cls']", "[N] or [N, 1]", "(3, 2)"]),
        ({"cls": torch.zeros(2)}, ["labels", "[3]", "(2,)"]),
        ({"bboxes": torch.zeros(3, 6)}, ["batch['bboxes']", "[N, 4 or 5]", "(3, 6)"]),
        ({"bboxes": torch.full((3, 4), 300.0)}, ["boxes", "pixels", "row 0"]),
        ({"keypoints": torch.zeros(3, 51)}, ["keypoints", "[3, K >= 1, 2 or 3]", "(3, 51)"]),
    ],
)
def test_a_bad_yolo_batch_is_named(changes, parts):
    with raises(*parts):
        from_yolo(yolo_batch(**changes))


def test_torchvision_boxes_become_fractions_of_their_own_image():
    t = from_torchvision([image(1), image(0), image(1)], [(64, 32), (1, 1), (32, 64)])
    assert t.batch_idx.tolist() == [0, 2]
    assert t.boxes.tolist() == [[0.5, 0.375, 0.5, 0.5], [0.25, 0.75, 0.25, 1.0]]


def test_torchvision_images_without_keypoints_get_zeros_when_others_have_some():
    t = from_torchvision([image(1), image(1, keypoints=torch.tensor([[[16.0, 8.0, 2.0]]]))], (32, 64))
    assert t.keypoints is not None
    assert t.keypoints.tolist() == [[[0, 0, 0]], [[0.25, 0.25, 2]]]
    assert from_torchvision([image(1)], (32, 64)).keypoints is None


@pytest.mark.parametrize("source", [from_torchvision, from_coco])
def test_images_without_objects_give_no_rows(source):
    none = [image(0)] if source is from_torchvision else [[]]
    assert source(none, (32, 32)).boxes.shape == (0, 4)
    assert source(none, (32, 32)).keypoints is None
    assert source(none, (32, 32), num_keypoints=17).keypoints.shape == (0, 17, 3)


@pytest.mark.parametrize(
    ("targets", "sizes", "parts"),
    [
        ([], (64, 64), ["targets", "at least one image"]),
        ([image()], 64, ["image_sizes", "(height, width)", "64"]),
        ([image(boxes=[["a", 1, 2, 3]])], (64, 64), ["targets[0]['boxes']", "numbers", "'a'"]),
        ([image(), image(labels=None)], (64, 64), ["targets[1]", "key 'labels'", "boxes"]),
        ([image(boxes=None)], (64, 64), ["targets[0]", "key 'boxes'"]),
        ([torch.zeros(2, 4)], (64, 64), ["targets[0]", "dict", "Tensor"]),
        ([image(labels=torch.zeros(3).long())], (64, 64), ["targets[0]", "2 labels", "3"]),
        ([image(boxes=torch.zeros(2, 5))], (64, 64), ["targets[0]['boxes']", "[N, 4]", "(2, 5)"]),
        ([image(labels=torch.tensor([0.0, 0.5]))], (64, 64), ["targets[0]['labels']", "whole", "0.5"]),
        ([image(), image()], [(64, 64)], ["image_sizes", "list of 2", "1"]),
        ([image()], (64, 64, 3), ["image_sizes", "one (height, width)", "3"]),
        ([image()], (0, 64), ["image_sizes", "positive", "(0, 64)"]),
        ([image(), image(boxes=torch.tensor([[8.0, 8, 24, 40], [9, 9, 3, 20]]))], (64, 64), ["negative size", "row 3"]),
        ([image(keypoints=torch.zeros(2, 5, 4))], (64, 64), ["targets[0]['keypoints']", "[2, K, 2 or 3]", "(2, 5, 4)"]),
        ([image(keypoints=torch.zeros(3, 5, 3))], (64, 64), ["targets[0]['keypoints']", "[2, K, 2 or 3]", "(3, 5, 3)"]),
        (
            [image(keypoints=torch.zeros(2, 5, 3)), image(keypoints=torch.zeros(2, 6, 3))],
            (64, 64),
            ["targets[1]['keypoints']", "[2, 5, 3]", "(2, 6, 3)"],
        ),
    ],
)
def test_a_bad_torchvision_target_is_named(targets, sizes, parts):
    with raises(*parts):
        from_torchvision(targets, sizes)


def test_coco_annotations_become_rows_in_image_order():
    t = from_coco([[note()], [], [note(), note(category_id=0)]], (64, 64))
    assert t.batch_idx.tolist() == [0, 2, 2]
    assert t.labels.tolist() == [1, 1, 0]
    assert t.boxes[0].tolist() == [0.375, 0.375, 0.5, 0.25]
    assert t.keypoints is not None
    assert t.keypoints[0].tolist() == [[0.25, 0.5, 2], [0, 0, 0]]
    assert t.is_sorted


def test_numbers_of_numpy_and_torch_are_as_good_as_lists():
    numpy = pytest.importorskip("numpy")
    annotation = {"bbox": numpy.array([8, 16, 32, 16]), "category_id": numpy.int64(1), "iscrowd": 0}
    annotation["keypoints"] = torch.tensor([16.0, 32, 2, 0, 0, 0])
    expected, found = from_coco([[note()]], (64, 64)), from_coco([[annotation]], numpy.array([64, 64]))
    for x, y in zip(expected[:4], found[:4], strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=0)
    sizes: Any = torch.tensor([[64, 64], [32, 64]])
    one = image(boxes=torch.tensor([[0.0, 0, 32, 16]]), labels=torch.tensor([1]))
    assert from_torchvision([one, one], sizes).boxes[:, 1].tolist() == [0.125, 0.25]


def test_coco_crowds_are_skipped_unless_asked_for():
    crowd = note(iscrowd=1, category_id=0)
    assert from_coco([[crowd, note()]], (64, 64)).labels.tolist() == [1]
    assert from_coco([[crowd, note()]], (64, 64), crowds="keep").labels.tolist() == [0, 1]
    t = from_coco([[note()], [crowd, note()], []], (64, 64), crowds="ignore")
    assert t.ignore is not None
    assert (t.batch_idx.tolist(), t.labels.tolist(), t.ignore.tolist()) == ([0, 1, 1], [1, 0, 1], [False, True, False])
    none = from_coco([[]], (64, 64), crowds="ignore").ignore
    assert none is not None
    assert (none.dtype, none.shape) == (torch.bool, (0,))
    other: Any = "drop"
    for source in (from_coco, from_torchvision):
        with raises("crowds", "one of 'skip', 'keep', 'ignore', got 'drop'"):
            source([[]], (64, 64), crowds=other)  # type: ignore[arg-type]


def test_coco_annotations_without_keypoints_get_zeros_when_others_have_some():
    t = from_coco([[note(keypoints=None), note()], [note(keypoints=[])]], (64, 64))
    assert t.keypoints is not None
    assert t.keypoints[:, :, 2].tolist() == [[0, 0], [2, 0], [0, 0]]
    assert from_coco([[note(keypoints=None)]], (64, 64)).keypoints is None


@pytest.mark.parametrize(
    ("annotations", "arguments", "parts"),
    [
        ([[note()], [note(bbox=None)]], {}, ["annotations[1][0]", "key 'bbox'"]),
        ([[note(), note(category_id=None)]], {}, ["annotations[0][1]", "key 'category_id'"]),
        ([[note(bbox=[1, 2, 3])]], {}, ["annotations[0][0]['bbox']", "(x, y, width, height)", "[1, 2, 3]"]),
        ([[note(bbox=[1, 2, -3, 4])]], {}, ["boxes", "no negative size", "row 0"]),
        ([[note(category_id=5)]], {"category_ids": [1, 2]}, ["annotations[0][0]['category_id']", "[1, 2]", "5"]),
        ([[note(category_id="dog")]], {}, ["annotations[0][0]['category_id']", "whole number", "'dog'"]),
        ([[note(category_id=-1)]], {}, ["labels", "class id", "-1"]),
        ([[note()]], {"category_ids": [1, 1]}, ["category_ids", "every id once", "[1, 1]"]),
        ([[note(keypoints=[1, 2])]], {}, ["annotations[0][0]['keypoints']", "x, y, flag", "2 numbers"]),
        ([[note(), note(keypoints=[1, 2, 2])]], {}, ["annotations[0][1]['keypoints']", "2 times", "3 numbers"]),
        ([[note()], [note(keypoints=[1, 2, 2])]], {}, ["annotations[1]['keypoints']", "[1, 2, 3]", "(1, 1, 3)"]),
        ([note(), note()], {}, ["annotations[0]", "a list of the image's annotations", "dict"]),
        ([[note(bbox=7)]], {}, ["annotations[0][0]['bbox']", "(x, y, width, height)", "7"]),
        ([[note(bbox=["a", 2, 3, 4])]], {}, ["annotations[0][0]['bbox']", "numbers", "'a'"]),
        ([[note()]], {"mask_size": 16}, ["mask_size", "(H, W)", "16"]),
        ([], {}, ["annotations", "at least one image"]),
        ([[note()]], {"num_keypoints": 17}, ["annotations[0][0]['keypoints']", "17 times", "6 numbers"]),
    ],
)
def test_a_bad_coco_annotation_is_named(annotations, arguments, parts):
    with raises(*parts):
        from_coco(annotations, (64, 64), **arguments)


def test_turned_boxes_come_with_their_angle_from_batches_and_annotations():
    coco = [[{"rbox": [32, 16, 40, 8, 0.5], "category_id": 1}], [], [{"rbox": [8, 8, 4, 2, -2.0], "category_id": 0}]]
    expected = torch.tensor([[0.5, 0.5, 0.625, 0.25, 0.5], [0.125, 0.25, 0.0625, 0.0625, -2.0]])
    batch = {"batch_idx": torch.tensor([0, 2]), "cls": torch.tensor([1, 0]), "bboxes": expected}
    for t in (from_coco(coco, (32, 64), oriented=True), from_yolo(batch)):
        assert t.angles is not None
        assert torch.equal(torch.cat([t.boxes, t.angles[:, None]], 1), expected)
        assert t.batch_idx.tolist() == [0, 2]


def test_batches_without_turned_boxes_still_have_angles():
    none = {"batch_idx": torch.zeros(0), "cls": torch.zeros(0), "bboxes": torch.zeros(0, 5)}
    for t in (from_coco([[], []], (32, 64), oriented=True), from_yolo(none)):
        assert t.angles is not None
        assert (t.angles.shape, t.boxes.shape) == ((0,), (0, 4))


def test_turned_boxes_of_another_form_are_named():
    with raises("annotations[0][0]", "'rbox'"):
        from_coco([[{"bbox": [0, 0, 4, 4], "category_id": 1}]], (32, 32), oriented=True)
    with raises("annotations[0][0]['rbox']", "(cx, cy, width, height, angle)", "[0, 0, 4, 4]"):
        from_coco([[{"rbox": [0, 0, 4, 4], "category_id": 1}]], (32, 32), oriented=True)
