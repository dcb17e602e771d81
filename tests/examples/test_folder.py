"""Real data from a folder: fitted, augmented as announced, and refused with the file's name when bad."""

import json
import math

import numpy as np
import pytest
from demo.detections import encode
from demo.folder import Folder
from demo.labels import DataError
from demo.rotated import corners, hulls
from PIL import Image, ImageDraw


def edit(folder, change):
    path = folder / "labels.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def test_pictures_are_fitted_and_centred_with_their_labels(folder):
    data = Folder(folder, "val", 48, task="pose")
    image, labels = data.sample(0)
    assert len(data) == 2
    assert image.shape == (48, 48, 3)
    assert (image[:8] == 114).all()
    assert (image[-8:] == 114).all()
    assert image[8:-8].std() > 5
    assert labels.boxes.tolist() == [[15, 13, 35, 28]]
    assert labels.areas.tolist() == [300]
    assert labels.keypoints is not None
    assert labels.keypoints.tolist() == [[[17.5, 15.5, 2], [0, 0, 0]]]


def test_classes_are_ranks_of_category_ids_and_keypoints_give_names(folder):
    data = Folder(folder, "train", 64, task="pose")
    assert data.info.classes == ("thing",)
    assert data.info.keypoints == ("front", "back")
    assert data.sample(0)[1].classes.tolist() == [0]
    assert Folder(folder, "train", 64, task="detect").info.keypoints == ()


@pytest.mark.parametrize("task", ["pose", "detect"])
def test_augmentation_depends_on_epoch_and_index_and_moves_labels_with_the_picture(folder, task):
    data = Folder(folder, "train", 64, task)
    for epoch in range(8):
        image, labels = data.sample(0, epoch)
        again, same = Folder(folder, "train", 64, task).sample(0, epoch)
        assert np.array_equal(image, again)
        assert np.array_equal(labels.boxes, same.boxes)
        assert (labels.boxes >= 0).all()
        assert (labels.boxes <= 64).all()
        assert np.array_equal(labels.boxes, data.labels(0, epoch).boxes)
    places = {tuple(data.labels(0, epoch).boxes[0]) for epoch in range(8)}
    assert len(places) == 8


def test_a_marked_corner_follows_its_box_through_augmentation(folder):
    image = np.full((64, 96, 3), 20, dtype=np.uint8)
    image[10:40, 30:70] = 235
    Image.fromarray(image).save(folder / "images" / "0.png")
    data = Folder(folder, "train", 96, task="detect")
    for epoch in range(6):
        picture, labels = data.sample(0, epoch)
        bright = np.argwhere(picture.mean(-1) > 150)
        seen = [*bright.min(0)[::-1], *(bright.max(0)[::-1] + 1)]
        assert np.abs(np.array(seen) - labels.boxes[0]).max() < 2


def bright_object(folder, corners):
    """Draws it into the first picture, whose other pixels become dark."""
    picture = Image.new("RGB", (96, 64), (20, 20, 20))
    ImageDraw.Draw(picture).polygon([tuple(corner) for corner in corners], fill=(235, 235, 235))
    picture.save(folder / "images" / "0.png")


def test_a_rotated_box_follows_its_object_through_augmentation(folder):
    true = np.array([[50, 25, 40, 12, 0.5]])
    bright_object(folder, corners(true)[0])
    edit(folder, lambda d: d["annotations"][0].update(rbox=true[0].tolist()))
    data = Folder(folder, "train", 96, "obb")
    for epoch in range(6):
        picture, labels = data.sample(0, epoch)
        assert labels.rotated is not None
        drawn = Image.new("L", (96, 96))
        ImageDraw.Draw(drawn).polygon([tuple(corner) for corner in corners(labels.rotated)[0]], fill=1)
        assert overlap(picture.mean(-1) > 150, np.asarray(drawn) > 0) > 0.85
        assert labels.boxes == pytest.approx(hulls(labels.rotated).clip(0, 96))


@pytest.mark.parametrize("runs", [False, True])
def test_a_mask_follows_its_object_through_augmentation(folder, runs):
    outline = np.array([(30, 10), (70, 14), (60, 40)])
    bright_object(folder, outline)
    segmentation = [outline.ravel().tolist()]
    if runs:
        drawn = np.asarray(Image.open(folder / "images" / "0.png"))[..., 0] > 150
        (code,) = encode(drawn[None])
        segmentation = {"size": code["size"], "counts": code["counts"].decode()}
    edit(folder, lambda d: d["annotations"][0].update(segmentation=segmentation))
    data = Folder(folder, "train", 96, "segment")
    for epoch in range(6):
        picture, labels = data.sample(0, epoch)
        assert data.labels(0, epoch).index_map is None
        masks = labels.masks()
        assert masks is not None
        assert overlap(picture.mean(-1) > 150, masks[0]) > 0.85


def overlap(a, b):
    return (a & b).sum() / (a | b).sum()


def test_of_masks_that_share_pixels_the_smaller_object_lies_above(folder):
    small = {"id": 9, "image_id": 0, "category_id": 7, "bbox": [40, 20, 10, 10]}
    small["segmentation"] = [[40, 20, 50, 20, 50, 30, 40, 30]]
    edit(folder, lambda d: d["annotations"].append(small))
    masks = Folder(folder, "train", 96, "segment").sample(0)[1].masks()
    assert masks is not None
    large, inner = masks
    assert inner.sum() == 100
    assert large.sum() == 1200 - 100


def test_bad_folders_are_refused_with_the_name_of_the_file(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no such folder"):
        Folder(tmp_path / "nowhere", "train", 64, "pose")
    with pytest.raises(DataError, match=r"empty/labels\.json: missing"):
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


def test_broken_missing_and_mislabelled_pictures_are_refused_by_name(folder):
    whole = (folder / "images" / "0.png").read_bytes()
    (folder / "images" / "0.png").write_bytes(whole[: len(whole) // 2])
    (folder / "images" / "1.png").write_bytes(b"no picture")
    (folder / "images" / "2.png").unlink()
    edit(folder, lambda d: d["images"][3].update(width=97))
    data = Folder(folder, "train", 64, "pose")
    messages = (r"0\.png: not a readable", r"1\.png: not a readable", r"2\.png: no such picture", r"3\.png: is 96x64")
    for index, message in enumerate(messages):
        with pytest.raises(DataError, match=message):
            data.sample(index)


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
        ("detect", lambda d: d["images"][1].update(id=0), "id 0 of the images stands there 2 times"),
        (
            "detect",
            lambda d: d["images"][1].update(file_name="0.png"),
            "file_name '0.png' of the images stands there 2 times",
        ),
        ("detect", lambda d: d["images"][1].update(split=None), "image 1: split should be"),
        ("detect", lambda d: d["categories"].append({"id": 7}), "id 7 of the categories stands there 2 times"),
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


def test_boxes_without_size_and_outside_are_left_out_and_counted(folder):
    def change(d):
        d["annotations"][0]["bbox"] = [30, 10, 0, 30]
        d["annotations"][1]["bbox"] = [96, 10, 20, 20]
        d["annotations"][2]["bbox"] = [30, 10, 0.5, 30]
        d["annotations"][3]["iscrowd"] = 1

    edit(folder, change)
    data = Folder(folder, "train", 64)
    assert [len(data.labels(i).boxes) for i in range(4)] == [0, 0, 0, 1]
    assert data.notes[0] == (
        "train: annotations left out: 1 without size, 1 outside the picture, 1 smaller than a pixel at 64x64, "
        "1 crowd regions (not learned, and not counted as missed)"
    )
    with pytest.raises(DataError, match="none of the 4 training pictures has an object of a pixel or more at 64x64"):
        data.check()
    assert Folder(folder, "val", 64).notes == []


def test_rotated_boxes_without_size_are_left_out_whatever_the_upright_ones_say(folder):
    def change(d):
        d["annotations"][0]["rbox"] = [50, 25, 40, 0, 0.3]
        d["annotations"][1]["rbox"] = [-50, 25, 40, 30, 0.3]
        d["annotations"][2].pop("bbox")

    edit(folder, change)
    data = Folder(folder, "train", 64, "obb")
    assert [len(data.labels(i).boxes) for i in range(4)] == [0, 0, 1, 1]
    assert data.notes == ["train: annotations left out: 1 without size, 1 outside the picture"]


@pytest.mark.parametrize("area", [None, 0, -1, 0.0, math.nan, math.inf])
def test_an_area_that_says_nothing_is_that_of_the_box(folder, area):
    edit(folder, lambda d: d["annotations"][0].update(area=area))
    edit(folder, lambda d: d["annotations"][1].update(area=300))
    data = Folder(folder, "train", 48, "pose")
    assert data.labels(0).areas.tolist() == [300]  # 40 x 30, at half the size
    assert data.labels(1).areas.tolist() == [75]


@pytest.mark.parametrize("keypoints", [None, [], [None, math.nan, 0, 35, 15, 0]])
def test_keypoints_without_labels_are_zeros(folder, keypoints):
    edit(folder, lambda d: d["annotations"][0].update(keypoints=keypoints))
    labels = Folder(folder, "train", 48, "pose").labels(0)
    assert labels.keypoints is not None
    assert not labels.keypoints.any()
    labels.targets(48).validate()


def test_a_pose_folder_without_a_labelled_keypoint_is_refused(folder):
    edit(folder, lambda d: [a.pop("keypoints") for a in d["annotations"]])
    with pytest.raises(DataError, match="none of the 4 training pictures has an object with a labelled keypoint"):
        Folder(folder, "train", 48, "pose").check()


def test_a_skeleton_joins_keypoints_counted_from_one(folder):
    edit(folder, lambda d: d["categories"][0].update(skeleton=[[1, 2]]))
    assert Folder(folder, "train", 48, "pose").info.limbs == ((0, 1),)
    edit(folder, lambda d: d["categories"][0].update(skeleton=None))
    assert Folder(folder, "train", 48, "pose").info.limbs == ()


def test_classes_of_one_name_are_told_apart_by_their_ids(folder):
    edit(folder, lambda d: d["categories"].extend([{"id": 9, "name": "thing"}, {"id": 8, "name": None}]))
    assert Folder(folder, "train", 48).info.classes == ("thing (7)", "8", "thing (9)")


def test_boxes_that_look_like_corners_are_noted(folder):
    boxes = [[10, 10, 30, 30], [60, 30, 90, 60], [50, 40, 80, 50], [20, 30, 60, 60]]
    edit(folder, lambda d: [a.update(bbox=box) for a, box in zip(d["annotations"], boxes, strict=False)])
    assert "many boxes reach out of their picture" in Folder(folder, "train", 48).notes[0]


def test_run_lengths_as_numbers_and_as_text_are_the_same_mask(folder):
    square = np.zeros((64, 96), bool)
    square[10:40, 30:70] = True
    (code,) = encode(square[None])
    flat = square.T.ravel()
    turns = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff(np.concatenate([[0], turns, [flat.size]])).tolist()
    masks = []
    for runs in (counts, code["counts"].decode()):
        edit(folder, lambda d, runs=runs: d["annotations"][0].update(segmentation={"size": [64, 96], "counts": runs}))
        masks.append(Folder(folder, "train", 96, "segment").sample(0)[1].masks())
    assert masks[0].sum() == 1200
    assert np.array_equal(masks[0], masks[1])


def test_a_picture_of_one_pixel_across_is_a_picture(folder):
    Image.new("RGB", (1000, 1), (200, 200, 200)).save(folder / "images" / "0.png")
    edit(folder, lambda d: d["images"][0].update(width=1000, height=1))
    edit(folder, lambda d: d["annotations"][0].update(bbox=[0, 0, 500, 1]))
    picture, labels = Folder(folder, "train", 64).sample(0)
    assert picture.shape == (64, 64, 3)
    assert len(labels.boxes) == 0
