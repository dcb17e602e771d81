"""Labels in every format say the same of the same pictures."""

import json
import re

import numpy as np
import pytest
from demo.formats.choice import KINDS, read_labels
from demo.labels import DataError
from demo.splits import training_and_held_out

from tests.examples.editing import edit, make_folder
from tests.examples.writing import as_coco, as_roboflow, as_yolo

TASKS = ("detect", "pose", "obb", "segment")
GIVEN = """
import json
from pathlib import Path
import torch
from PIL import Image
from compiled_loss.data.segmentations import draw

class Pictures:
    classes = ["__background__", "thing"]
    keypoints = ["front", "back"]

    def __init__(self, root, split):
        document = json.loads((root / "labels.json").read_text())
        self.root = root
        self.images = [image for image in document["images"] if image["split"] == split]
        self.rows = {a["image_id"]: a for a in document["annotations"]}

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        image = self.images[index]
        row = self.rows[image["id"]]
        x, y, width, height = row["bbox"]
        mask = draw(row["segmentation"], (64, 96), (64, 96), "mask")
        target = {"boxes": torch.tensor([[x, y, x + width, y + height]]), "labels": torch.tensor([1])}
        target |= {"keypoints": torch.tensor(row["keypoints"]).reshape(1, 2, 3), "masks": mask[None]}
        return Image.open(self.root / "images" / image["file_name"]), target

def both():
    root = Path(__file__).parent / "data"
    return Pictures(root, "train"), Pictures(root, "val")
"""


def written(folder, place, name, task):
    if name == "coco":
        return as_coco(folder, place, "person_keypoints" if task == "pose" else "instances")
    if name == "given":
        (folder.parent / "mine.py").write_text(GIVEN)
        return f"{folder.parent / 'mine.py'}:both"
    return as_roboflow(folder, place) if name == "roboflow" else as_yolo(folder, place, task)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", ["coco", "roboflow", "yolo", "given"])
def test_all_formats_give_the_same_pictures_and_labels(folder, tmp_path, name, task):
    if (name, task) == ("given", "obb"):
        pytest.skip("torchvision's dicts have no rotated boxes")
    edit(folder, lambda d: [a.pop("area") for a in d["annotations"]])
    data = written(folder, tmp_path / name, name, task)
    expected = training_and_held_out(folder, 96, task, 0, 0.0, "")
    for ours, theirs in zip(training_and_held_out(data, 96, task, 0, 0.0, ""), expected, strict=True):
        assert (len(ours), ours.info.classes, ours.info.keypoints) == (len(theirs), ("thing",), theirs.info.keypoints)
        assert ours.notes == theirs.notes == []
        for i in range(len(ours)):
            for epoch in (None, 3):
                (image, labels), (same, truth) = ours.sample(i, epoch), theirs.sample(i, epoch)
                assert np.array_equal(image, same)
                assert np.array_equal(labels.classes, truth.classes)
                for field in ("boxes", "areas", "keypoints", "rotated"):
                    value, wanted = getattr(labels, field), getattr(truth, field)
                    assert (value is None) == (wanted is None)
                    assert value is None or value == pytest.approx(wanted, abs=1e-9)
                if truth.index_map is not None:
                    assert labels.index_map is not None
                    assert np.array_equal(labels.index_map, truth.index_map)


def test_what_was_read_is_told(folder, tmp_path):
    origins = {
        folder: "data/labels.json: 6 pictures, 6 annotations",
        as_coco(folder, tmp_path / "coco"): "COCO: annotations/instances_train2017.json: 4 pictures, 4 annotations "
        "and annotations/instances_val2017.json: 2 pictures, 2 annotations",
        as_roboflow(folder, tmp_path / "robo"): "Roboflow's COCO: train/_annotations.coco.json: 4 pictures, "
        "4 annotations and valid/_annotations.coco.json: 2 pictures, 2 annotations",
        as_yolo(folder, tmp_path / "yolo", "detect"): "YOLO, data.yaml: 4 pictures in images/train, 2 pictures in "
        "images/val; 6 objects of 1 class",
    }
    for data, origin in origins.items():
        assert read_labels(data, "detect").origin == origin


def test_what_is_no_data_set_is_told_all_kinds(tmp_path):
    with pytest.raises(DataError, match="holds no labels that are read here") as told:
        read_labels(tmp_path, "detect")
    assert all(kind in str(told.value) for kind in KINDS)


@pytest.mark.parametrize("places", ["images/train2017", "images/train", "train", "images", "."])
def test_the_pictures_of_coco_are_found_where_people_keep_them(folder, tmp_path, places):
    root = as_coco(folder, tmp_path / "coco")
    for split in ("train", "val"):
        to = root / places.replace("train", split)
        to.mkdir(parents=True, exist_ok=True)
        for file in list((root / f"{split}2017").iterdir()):
            file.rename(to / file.name)
    train, val = training_and_held_out(root, 64, "detect", 0, 0.0, "")
    assert (len(train), len(val)) == (4, 2)


def test_pictures_of_coco_that_are_nowhere_are_told_by_name(folder, tmp_path):
    root = as_coco(folder, tmp_path / "coco")
    (root / "train2017").rename(root / "elsewhere")
    with pytest.raises(
        DataError, match=r"coco: the pictures of instances_train2017\.json, 0\.png first, are in none of"
    ):
        read_labels(root, "detect")
    (root / "annotations" / "instances_train2014.json").write_text("{}")
    with pytest.raises(
        DataError, match=r"instances_train2014\.json and instances_train2017\.json both list the pictures of"
    ):
        read_labels(root, "detect")
    with pytest.raises(DataError, match=r"annotations: expected person_keypoints_train\.json"):
        read_labels(root, "pose")


@pytest.mark.parametrize("write", [as_coco, as_roboflow])
def test_a_training_file_alone_has_a_share_held_out(folder, tmp_path, write):
    root = write(folder, tmp_path / "data2")
    for path in [*root.glob("valid/_annotations.coco.json"), *root.glob("annotations/*val*")]:
        path.unlink()
    train, val = training_and_held_out(root, 64, "detect", 0, 0.5, "")
    assert (len(train), len(val)) == (2, 2)
    assert "2 of 4 pictures are held out" in train.notes[0]


def test_roboflow_s_test_pictures_are_not_used_and_its_files_are_named(folder, tmp_path):
    root = as_roboflow(folder, tmp_path / "robo")
    (root / "test").mkdir()
    (root / "test" / "_annotations.coco.json").write_text("not looked at")
    assert read_labels(root, "detect").notes == ["test/_annotations.coco.json is not used"]
    path = root / "valid" / "_annotations.coco.json"
    document = json.loads(path.read_text())
    document["annotations"][0]["bbox"] = [1, 2, -3, 4]
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match=rf"{re.escape(str(path))}: annotation 4: bbox should be"):
        read_labels(root, "detect")
    document["categories"][0]["name"] = "another"
    document["annotations"] = []
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match=r"valid/_annotations.coco.json: its categories differ from those of"):
        read_labels(root, "detect")


def test_a_second_labels_file_holds_pictures_of_a_yolo_folder_out_no_more(folder, tmp_path):
    root = as_yolo(make_folder(tmp_path / "other"), tmp_path / "yolo", "detect")
    with pytest.raises(DataError, match="--val-labels is for images without a 'split'"):
        training_and_held_out(root, 64, "detect", 0, 0.0, str(folder / "labels.json"))
    (root / "data.yaml").write_text("train: images/train\nnames: [thing]\n")
    with pytest.raises(DataError, match=r"yolo: --val-labels is for FOLDER/labels\.json"):
        training_and_held_out(root, 64, "detect", 0, 0.0, str(folder / "labels.json"))


def test_of_several_data_files_one_is_asked_for(folder, tmp_path):
    root = as_yolo(folder, tmp_path / "yolo", "detect")
    (root / "other.yaml").write_text("train: images/train\nnames: [thing]\n")
    assert len(read_labels(root, "detect").pictures) == 6
    (root / "data.yaml").rename(root / "mine.yml")
    with pytest.raises(DataError, match=r"has mine\.yml and other\.yaml; give one of them as --data"):
        read_labels(root, "detect")
