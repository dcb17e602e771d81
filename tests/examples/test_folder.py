"""Real data from a folder: fitted, augmented as announced, and refused with the file's name when bad."""

import math

import numpy as np
import pytest
from demo.detections import encode
from demo.folder import Folder
from demo.labels import DataError
from demo.rotated import corners, hulls
from PIL import Image, ImageDraw

from tests.examples.editing import edit


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
    assert "many boxes reach beyond their picture" in Folder(folder, "train", 48).notes[0]


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


def test_classes_without_an_object_are_told(folder):
    edit(folder, lambda d: d["categories"].extend({"id": 10 + i, "name": f"c{i}"} for i in range(9)))
    told = "train: no object of 9 of 10 classes: c0, c1, c2, c3, c4, c5, c6, c7, ..."
    assert Folder(folder, "train", 64).notes == [told]
    assert Folder(folder, "val", 64).notes == []
