"""YOLO folders: where pictures and labels are, what a line may hold, and what is refused by its line."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from demo.document import Picture
from demo.formats.choice import read_labels
from demo.formats.yolo import label_file
from demo.formats.yolo_lines import annotation
from demo.labels import COCO_LIMBS, COCO_NAMES, DataError
from demo.pictures import File
from demo.rotated import around, corners
from demo.splits import training_and_held_out
from PIL import Image

from tests.examples.writing import as_yolo

PICTURE = Picture(0, "a.png", 100, 200, None, File(Path("a.png")))


@pytest.fixture
def yolo(folder, tmp_path):
    return lambda task="detect": as_yolo(folder, tmp_path / "yolo", task)


def describe(root, text):
    (root / "data.yaml").write_text(text)
    return read_labels(root, "detect")


def test_labels_lie_where_the_last_images_folder_has_labels_or_beside(tmp_path):
    for picture, labels in (
        ("/a/images/train/1.jpg", "/a/labels/train/1.txt"),
        ("/images/b/images/1.v2.png", "/images/b/labels/1.v2.txt"),
        ("/a/obj_train_data/1.jpg", "/a/obj_train_data/1.txt"),
        ("/a/images.jpg", "/a/images.txt"),
    ):
        assert str(label_file(tmp_path / picture[1:])) == str(tmp_path / labels[1:])


@pytest.mark.parametrize(
    "places",
    [
        "train: images/train\nval: images/val",
        "train: ../images/train\nval: ../images/val",  # as Roboflow writes it
        "path: .\ntrain:\n- images/train\nval: [images/val]",
        "train: train.txt\nval: lists/val.txt",
        json.dumps({"train": "images/train", "val": "images/val", "names": {"0": "thing"}})[1:-1].join("{}"),
    ],
)
def test_pictures_are_found_in_folders_and_lists(yolo, places):
    root = yolo()
    (root / "lists").mkdir()
    (root / "train.txt").write_text("".join(f"./images/train/{i}.png\n" for i in range(4)))
    (root / "lists" / "val.txt").write_text("images/val/4.png\n\nimages/val/5.png")  # by the data set's folder
    labels = describe(root, places if places.startswith("{") else places + "\nnames: [thing]\n")
    assert [(p.split, p.file_name) for p in labels.pictures] == [
        *(("train", f"images/train/{i}.png") for i in range(4)),
        *(("val", f"images/val/{i}.png") for i in (4, 5)),
    ]
    assert all(len(labels.rows[p.id]) == 1 for p in labels.pictures)


def test_a_path_says_where_the_folders_are_and_the_file_may_be_anywhere(yolo, tmp_path):
    root = yolo()
    (root / "data.yaml").unlink()
    for path in (str(root), "../yolo"):
        file = tmp_path / "elsewhere" / "mine.yaml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"path: {path}\ntrain: images/train\nval: images/val\nnames: [thing]\n")
        labels = read_labels(file, "detect")
        assert (len(labels.pictures), labels.info.name) == (6, "mine")


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        ("names: [a, 'b c', \"d\"]", ("a", "b c", "d")),
        ("names:\n  - a\n  - no\n  - 007", ("a", "no", "007")),
        ("names:\n- men's  # and more\n- '#2'\n- x: y\n".replace("x: y", "'x: y'"), ("men's", "#2", "x: y")),
        ("names:\n  1: b\n  0: a\n", ("a", "b")),
        ("names: {0: a, 1: b}", ("a", "b")),
        ("nc: 2\nnames: [a,\n  a]", ("a (0)", "a (1)")),
        ("nc: 2", ("0", "1")),
    ],
)
def test_names_of_classes(yolo, names, classes):
    labels = describe(yolo(), f"train: images/train\nval: images/val\n{names}\n")
    assert labels.info.classes == classes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: images/train", "expected a key 'names'"),
        ("names: [thing]", "expected a key 'train'"),
        ("train: images/tra\nnames: [thing]", "train: there is no .*images/tra"),
        ("path: nowhere\ntrain: images/train\nnames: [thing]", "path: there is no folder"),
        ("train: images/train\nnc: 2\nnames: [thing]", "nc says 2 classes, names has 1"),
        ("train: images/train\nnc: many\nnames: [thing]", "nc: expected how many"),
        ("train: images/train\nnames: {0: a, 2: b}", "names: expected the numbers 0 to 1, got 0, 2"),
        ("train: images/train\nnames: [[a]]", "names: expected a list of names"),
        ("train: {a: b}\nnames: [a]", "train: expected a folder"),
        ("train: images/train\nnames: [a", "line 2: expected ',' or ']'"),
        ("train: labels\nnames: [a]", "train: no pictures in labels"),
        ("kpt_shape: 17\ntrain: images/train\nnames: [a]", r"kpt_shape: expected \[K, 2\] or \[K, 3\], got '17'"),
        ("kpt_shape: [2, 4]\ntrain: images/train\nnames: [a]", "kpt_shape: expected"),
    ],
)
def test_what_a_data_file_lacks_is_told(yolo, text, message):
    with pytest.raises(DataError, match=rf"data\.yaml: {message}"):
        describe(yolo(), text)


def test_pictures_without_labels_are_counted_and_labels_without_pictures_too(yolo):
    root = yolo()
    (root / "labels" / "train" / "1.txt").unlink()
    (root / "labels" / "train" / "2.txt").write_text("")
    (root / "labels" / "val" / "9.txt").write_text("0 0.5 0.5 0.5 0.5")
    (root / "labels" / "val" / "classes.txt").write_text("thing")
    labels = read_labels(root, "detect")
    assert labels.notes == [
        "train: 1 pictures have no text file, so they have no objects",
        "val: 1 text files have no picture, 9.txt first",
    ]
    assert [len(labels.rows[p.id]) for p in labels.pictures] == [1, 0, 0, 1, 1, 1]
    for file in (root / "labels" / "train").iterdir():
        file.unlink()
    with pytest.raises(DataError, match=r"no picture of 'train' has labels; .*labels/train/0\.txt would be those"):
        read_labels(root, "detect")


@pytest.mark.parametrize("change", ["folder", "broken link"])
def test_a_text_file_that_cannot_be_read_is_no_picture_without_objects(yolo, change):
    root = yolo()
    path = root / "labels" / "train" / "1.txt"
    path.unlink()
    if change == "folder":
        path.mkdir()
    else:
        path.symlink_to(root / "gone.txt")
    with pytest.raises(DataError, match=r"labels/train/1\.txt: cannot be read"):
        read_labels(root, "detect")


def test_a_text_file_in_capitals_is_missed(yolo):
    root = yolo()
    path = root / "labels" / "train" / "1.txt"
    path.rename(path.with_suffix(".TXT"))
    assert "train: 1 text files have no picture, 1.TXT first" in read_labels(root, "detect").notes


def test_a_data_file_without_held_out_pictures_has_a_share_held_out(yolo):
    root = yolo()
    (root / "data.yaml").write_text("train: images\ntest: images/val\nnames: [thing]\n")
    train, val = training_and_held_out(root, 64, "detect", 0, 0.5, "")
    assert (len(train), len(val)) == (3, 3)
    assert train.notes[0] == "the pictures of 'test' are not used"


def test_a_turned_picture_has_its_labels_as_it_is_shown(yolo):
    root = yolo()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(root / "images" / "train" / "0.png").save(root / "images" / "train" / "0.png", exif=exif.tobytes())
    first = read_labels(root, "detect").pictures[0]
    assert (first.width, first.height) == (64, 96)
    first.source.check((64, 96))


def test_keypoints_of_a_person_are_coco_s_where_nothing_else_is_said(yolo):
    root = yolo("detect")
    for file in root.rglob("labels/*/*.txt"):
        file.write_text("0 0.5 0.5 0.5 0.5" + " 0.5 0.5 2" * 17)
    (root / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [person]\nkpt_shape: [17, 3]\n")
    labels = read_labels(root, "pose")
    assert (labels.info.keypoints, labels.info.limbs) == (COCO_NAMES, COCO_LIMBS)
    assert labels.notes == ["the 17 keypoints of a person are read as COCO's"]
    assert len(read_labels(root, "detect").rows["train", "images/train/0.png"]) == 1


def test_keypoints_without_flags_are_labelled_unless_negative_or_zero(yolo):
    line = "0 0.5 0.5 0.2 0.4  0.25 0.5  0 0  -0.1 0.5"
    found, _ = annotation(line, "line 1", PICTURE, "pose", 1, (3, 2))
    assert found["keypoints"] == [25, 100, 2, 0, 0, 0, 0, 0, 0]
    assert found["bbox"] == pytest.approx([40, 60, 20, 80])


def test_outlines_and_corners_have_boxes_around_them():
    outline = "1 0.1 0.1 0.5 0.2 0.3 0.6"
    for task, wanted in (("detect", True), ("segment", False)):
        found, around_it = annotation(outline, "line 1", PICTURE, task, 2, None)
        assert (found["bbox"], around_it) == (pytest.approx([10, 20, 40, 100]), wanted)
    assert found["segmentation"] == [pytest.approx([10, 20, 50, 40, 30, 120])]


@pytest.mark.parametrize(
    ("task", "line", "message"),
    [
        ("detect", "0 0.5 0.5 0.5", "line 3: expected a class and centre x, centre y, width, height, got 4 numbers"),
        ("detect", "0 0.5 0.5 0.5 0.5 0.9", "expected a class and .* got 6 numbers"),
        ("detect", "0, 0.5, 0.5, 0.5, 0.5", "expected numbers with spaces between them, got '0, 0.5"),
        ("detect", "thing 0.5 0.5 0.5 0.5", "expected numbers with spaces"),
        ("detect", "2 0.5 0.5 0.5 0.5", "expected a class from 0 to 1, as many as there are names, got 2"),
        ("detect", "0.5 0.5 0.5 0.5 0.5", r"expected a class from 0 to 1, .* got 0\.5"),
        ("detect", "-1 0.5 0.5 0.5 0.5", "expected a class from 0 to 1, .* got -1"),
        ("detect", "nan 0.5 0.5 0.5 0.5", "expected a class from 0 to 1, .* got nan"),
        ("detect", "0 nan 0.5 0.5 0.5", "expected finite numbers"),
        ("detect", "0 50 60 30 20", "expected fractions of the picture, got 50: are these pixels"),
        ("detect", "0 0.5 0.5 -0.5 0.5", "bbox should be .* no side negative"),
        ("segment", "0 0.5 0.5 0.5 0.5", "expected a class and x, y of three points or more, got 5 numbers"),
        ("segment", "0 0.5 0.5 0.5 0.5 0.1 0.2 0.3", "x, y of three points or more, got 8 numbers"),
        ("obb", "0 0.5 0.5 0.5 0.5 0.3", "expected a class and x, y of four corners, got 6 numbers"),
        ("pose", "0 0.5 0.5 0.5 0.5", "height and 2 times 3 numbers of keypoints, got 5 numbers"),
        ("pose", "0 0.5 0.5 0.5 0.5 0.1 0.1 3 70 0.1 2", "expected fractions of the picture, got 70"),
    ],
)
def test_a_bad_line_is_refused_by_its_number(yolo, task, line, message):
    root = yolo(task)
    path = root / "labels" / "train" / "2.txt"
    path.write_text(path.read_text() + "\n" + line + "\n")
    text = (root / "data.yaml").read_text().replace("nc: 1", "nc: 2").replace("0: thing", "0: thing\n  1: other")
    (root / "data.yaml").write_text(text)
    with pytest.raises(DataError, match=rf"labels/train/2\.txt: line 3: .*{message.removeprefix('line 3: ')}"):
        read_labels(root, task)


def test_corners_of_a_rotated_box_in_any_order_are_that_box():
    rng = np.random.default_rng(0)
    for _ in range(200):
        width, height = sorted(rng.uniform(1, 50, 2), reverse=True)
        box = np.array([*rng.uniform(-9, 99, 2), width, height, rng.uniform(-math.pi / 4, 3 * math.pi / 4)])
        points = corners(box[None])[0]
        for order in (range(4), rng.permutation(4)):
            assert around(points[list(order)]) == pytest.approx(box, abs=1e-6)


def test_the_box_around_four_points_is_the_smallest_there_is():
    rng = np.random.default_rng(1)
    angles = np.linspace(0, math.pi / 2, 2001)
    turns = np.stack([np.stack([np.cos(angles), np.sin(angles)]), np.stack([-np.sin(angles), np.cos(angles)])])
    for _ in range(50):
        points = rng.normal(0, 10, (4, 2))
        box = around(points)
        turned = np.einsum("ija,nj->ian", turns, points)
        areas = np.ptp(turned, axis=2).prod(0)
        assert areas.min() * 0.99 <= box[2] * box[3] <= areas.min() * (1 + 1e-9)
        cos, sin = math.cos(box[4]), math.sin(box[4])
        inside = np.abs((points - box[:2]) @ np.array([[cos, -sin], [sin, cos]])) <= box[2:4] / 2 + 1e-9
        assert inside.all()
