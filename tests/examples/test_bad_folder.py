"""Folders and labels that are refused, with the name of the file and of the entry at fault."""

import math

import pytest
from demo.folder import Folder
from demo.labels import DataError

from tests.examples.editing import edit


def test_bad_folders_are_refused_with_the_name_of_the_file(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no such folder"):
        Folder(tmp_path / "nowhere", "train", 64, "pose")
    with pytest.raises(DataError, match="empty: holds no labels that are read here"):
        Folder(tmp_path / "empty", "train", 64, "pose")
    (folder / "labels.json").write_text("{")
    with pytest.raises(DataError, match=r"labels\.json: not valid JSON"):
        Folder(folder, "train", 64, "pose")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("annotations"), "list 'annotations'"),
        (lambda d: d.update(categories=[]), "no categories"),
        (lambda d: d["images"].clear(), "no image has split 'train'|not among the images"),
        (lambda d: d["images"][0].pop("width"), "image 0 lacks width"),
        (lambda d: d["annotations"][2].update(image_id=99), "annotation 2: image_id 99"),
        (lambda d: d["annotations"][2].update(category_id=1), "annotation 2: category_id 1"),
        (lambda d: d["annotations"][2].update(bbox=[1, 2, -1, 4]), "annotation 2: bbox"),
        (lambda d: d["annotations"][2].update(keypoints=[1, 2, 2]), "annotation 2: expected 6 keypoint values, got 3"),
        (lambda d: d["categories"][0].pop("keypoints"), "--task pose needs"),
    ],
)
def test_bad_labels_are_refused_by_name(folder, change, message):
    edit(folder, change)
    with pytest.raises(DataError, match=message):
        Folder(folder, "train", 64, "pose")


@pytest.mark.parametrize(
    ("task", "change", "message"),
    [
        ("obb", lambda a: a.pop("rbox"), "annotation 2: rbox should be"),
        ("obb", lambda a: a.update(rbox=[1, 2, 3, -1, 0]), "annotation 2: rbox should be"),
        ("segment", lambda a: a.pop("segmentation"), "annotation 2: segmentation should be polygons or run lengths"),
        ("segment", lambda a: a.update(segmentation=[[1, 2, 3, 4]]), "annotation 2: segmentation should be"),
        ("segment", lambda a: a.update(segmentation={"size": [1, 1]}), "annotation 2: segmentation should be"),
    ],
)
def test_bad_labels_of_a_task_are_refused_by_name(folder, task, change, message):
    edit(folder, lambda d: change(d["annotations"][2]))
    with pytest.raises(DataError, match=message):
        Folder(folder, "train", 64, task)
    Folder(folder, "train", 64, "detect")


def change_annotation(**fields):
    return lambda d: d["annotations"][2].update(fields)


def change_category(**fields):
    return lambda d: d["categories"][0].update(fields)


@pytest.mark.parametrize(
    ("task", "change", "message"),
    [
        ("detect", change_annotation(bbox=[None, 1, 2, 3]), r"annotation 2: bbox should be .* got \[None, 1, 2, 3\]"),
        ("detect", change_annotation(bbox=["1", "2", "3", "4"]), "annotation 2: bbox should be"),
        ("detect", change_annotation(bbox=[True, 2, 3, 4]), "annotation 2: bbox should be"),
        ("detect", change_annotation(bbox={"x": 1}), "annotation 2: bbox should be"),
        ("detect", change_annotation(bbox=[math.nan, 2, 3, 4]), "annotation 2: bbox should be"),
        ("detect", change_annotation(bbox=[10**400, 2, 3, 4]), "annotation 2: bbox should be"),
        (
            "detect",
            change_annotation(bbox=[500, 2, 3, 4]),
            "annotation 2: bbox .* pixels in or near the picture of 96x64",
        ),
        ("detect", change_annotation(iscrowd="0"), "annotation 2: iscrowd: expected 0 or 1, got '0'"),
        ("detect", change_annotation(iscrowd=math.nan), "annotation 2: iscrowd: expected 0 or 1, got nan"),
        ("detect", change_annotation(area="480"), "annotation 2: area should be a number, got '480'"),
        ("detect", change_annotation(image_id=[1]), r"annotation 2: image_id \[1\] is not among the images"),
        ("detect", change_annotation(image_id="1"), "annotation 2: image_id '1' is not among the images"),
        ("detect", change_annotation(category_id=None), "annotation 2: category_id None is not among"),
        ("detect", lambda d: d["annotations"].append(None), r"annotations\[6\]: should be a dict, got None"),
        (
            "detect",
            lambda d: d["annotations"][2].pop("id") and d["annotations"][2].pop("bbox"),
            r"annotations\[2\]: bbox",
        ),
        ("detect", lambda d: d["images"].append(3), r"images\[6\] should be a dict, got 3"),
        (
            "detect",
            lambda d: d["images"][1].update(width="96"),
            "image 1: width should be a positive whole number, got '96'",
        ),
        (
            "detect",
            lambda d: d["images"][1].update(height=0),
            "image 1: height should be a positive whole number, got 0",
        ),
        ("detect", lambda d: d["images"][1].update(width=9.5), "image 1: width should be a positive whole number"),
        ("detect", lambda d: d["images"][1].update(file_name=None), "image 1: file_name should be a text"),
        ("detect", lambda d: d["images"][1].update(id=None), "image None: id should be a number or a text"),
        ("detect", lambda d: d["images"][1].update(id=0), "id 0 of the images occurs 2 times"),
        (
            "detect",
            lambda d: d["images"][1].update(file_name="0.png"),
            "file_name '0.png' of the images occurs 2 times",
        ),
        ("detect", lambda d: d["images"][1].update(split=None), "image 1: split should be"),
        ("detect", lambda d: d["categories"].append({"id": 7}), "id 7 of the categories occurs 2 times"),
        (
            "detect",
            lambda d: d["categories"].append({"name": "b"}),
            r"categories\[1\]: id should be a whole number, got None",
        ),
        (
            "detect",
            lambda d: d["categories"].append({"id": "2"}),
            r"categories\[1\]: id should be a whole number, got '2'",
        ),
        ("detect", lambda d: d["categories"].append(None), r"categories\[1\]: should be a dict"),
        ("detect", change_category(name=[1]), "category 7: name should be a text"),
        ("pose", change_annotation(keypoints=[None, None, 2, 0, 0, 0]), "annotation 2: keypoint 1 should be pixels"),
        ("pose", change_annotation(keypoints=[9, math.nan, 2, 0, 0, 0]), "annotation 2: keypoint 1 should be pixels"),
        ("pose", change_annotation(keypoints=[0, 0, 0, 900, 9, 2]), "annotation 2: keypoint 2 should be pixels"),
        ("pose", change_annotation(keypoints=[9, 9, None, 0, 0, 0]), "annotation 2: keypoint 1 should have a flag"),
        ("pose", change_annotation(keypoints=[9, 9, -1, 0, 0, 0]), "annotation 2: keypoint 1 should have a flag"),
        (
            "pose",
            change_annotation(keypoints=[[9, 9, 2], [0, 0, 0]]),
            "annotation 2: expected 6 keypoint values, got 2",
        ),
        ("pose", change_annotation(keypoints={}), "annotation 2: keypoints should be a list"),
        ("pose", change_category(keypoints=None), "--task pose needs the same list"),
        ("pose", change_category(keypoints="front"), "--task pose needs the same list"),
        ("pose", change_category(skeleton=3), "category 7: skeleton should be a list of pairs"),
        ("pose", change_category(skeleton=[[1, 3]]), r"category 7: skeleton .* from 1 to 2, got \[1, 3\]"),
        ("pose", change_category(skeleton=[[0, 1]]), r"category 7: skeleton .* from 1 to 2, got \[0, 1\]"),
        ("pose", change_category(skeleton=[1, 2]), "category 7: skeleton should be pairs"),
        ("obb", change_annotation(rbox=[50, 25, 40, 30, 90]), "annotation 2: rbox .* radians.* degrees"),
        ("obb", change_annotation(rbox=[50, 25, 40, 30, None]), "annotation 2: rbox should be"),
        (
            "segment",
            change_annotation(segmentation=[[1, 2, 3, 4, 5, math.nan]]),
            "annotation 2: segmentation .* got nan",
        ),
        ("segment", change_annotation(segmentation=[[1, 2, 3, 4, 5, 900]]), "annotation 2: segmentation .* got 900"),
        (
            "segment",
            change_annotation(segmentation={"size": [96, 64], "counts": [6144]}),
            r"the image's size \[64, 96\]",
        ),
        ("segment", change_annotation(segmentation={"size": [64, 96], "counts": [0, 99999]}), "6144 pixels together"),
        ("segment", change_annotation(segmentation={"size": [64, 96], "counts": None}), "counts of 0 or more"),
    ],
)
def test_values_of_another_kind_are_refused_by_name(folder, task, change, message):
    edit(folder, change)
    with pytest.raises(DataError, match=rf"data/labels\.json: .*{message}"):
        Folder(folder, "train", 64, task)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"images": ' + "9" * 5000 + "}", "\x00", "[]", "3"])
def test_what_is_no_labels_file_is_refused_by_name(folder, text):
    (folder / "labels.json").write_text(text)
    with pytest.raises(DataError, match=r"data/labels\.json: (not valid JSON|expected a list 'images')"):
        Folder(folder, "train", 64)


def test_a_byte_order_mark_is_no_fault(folder):
    path = folder / "labels.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(Folder(folder, "train", 64)) == 4
