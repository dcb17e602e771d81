"""Real data from a folder: fitted, augmented as announced, and refused with the file's name when bad."""

import json

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
        (lambda d: d["annotations"][2].update(bbox=[1, 2, 0, 4]), "annotation 2: bbox"),
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
        ("obb", lambda a: a.update(rbox=[1, 2, 3, 0, 0]), "annotation 2: rbox should be"),
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
