"""Data sets in Python: what a function may return, and how what cannot be used is named."""

import pickle
import sys

import numpy as np
import pytest
from demo.formats.choice import read_labels
from demo.labels import DataError
from demo.splits import training_and_held_out
from train import main

HEAD = """
import torch
from PIL import Image

class Pictures(torch.utils.data.Dataset):
    def __init__(self, length=6, **changes):
        self.length, self.changes = length, changes

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        image = torch.full((3, 64, 96), index / 10)
        target = {"boxes": torch.tensor([[30.0, 10, 70, 40]]), "labels": torch.tensor([3 + index % 2])}
        return self.changes.get("image", image), target | self.changes.get("target", {})
"""
TINY = ["--no-compile", "--image-size", "32", "--batch-size", "2", "--workers", "0", "--steps", "2", "--task", "detect"]


@pytest.fixture
def given(tmp_path):
    """The file with what the function `make` returns."""

    def write(returned, before=""):
        sys.modules.pop("mine", None)
        path = tmp_path / "mine.py"
        path.write_text(f"{HEAD}\n{before}\ndef make():\n    return {returned}\n")
        return f"{path}:make"

    return write


def test_a_share_of_one_data_set_is_held_out_and_labels_are_classes_by_rank(given):
    train, val = training_and_held_out(given("Pictures()"), 64, "detect", 0, 0.34, "")
    assert (len(train), len(val)) == (4, 2)
    assert train.info.classes == ("3", "4")
    image, labels = train.sample(0)
    item = train.pictures[0].id
    assert labels.classes.tolist() == [item % 2]
    assert np.abs(image[20:30, 30:40].astype(int) - round(25.5 * item)).max() <= 1
    assert labels.boxes == pytest.approx(np.array([[20, 64 / 6 + 20 / 3, 140 / 3, 64 / 6 + 80 / 3]]))


def test_a_tuple_of_two_is_for_training_and_held_out(given, tmp_path, capsys):
    data = given("Pictures(4), torch.utils.data.Subset(Pictures(), [1, 2])")
    assert main([*TINY, "--data", data, "--out", str(tmp_path / "run")]) == 0
    printed = capsys.readouterr().out
    assert f"read {data}: 4 items and 2 items of 2 classes" in printed
    assert "AP on 2 held-out pictures" in printed


def test_crowds_areas_and_grey_pictures_are_read(given):
    data = given('Pictures(target={"iscrowd": torch.tensor([1])}, image=torch.zeros(1, 64, 96, dtype=torch.uint8))')
    labels = read_labels(data, "detect")
    assert all(row.crowd for rows in labels.rows.values() for row in rows)
    assert labels.pictures[0].source.read((96, 64)).mode == "RGB"


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("None", "make.*: should return a data set with a length and items, got .*None"),
        ("(Pictures(),) * 3", "make.*: should return a data set or a tuple of two, got a tuple of 3"),
        ("1 / 0", r"make\(\): ZeroDivisionError: division by zero \(.*mine\.py, line \d+\)"),
        ("Pictures(0)", r"make\(\): no object is labelled in any of its items"),
        ("[(1, 2)]", "item 0: should be a picture and a dict .*wrap_dataset_for_transforms_v2.*int"),
        ("[1, 2]", "item 0: should be a picture and a dict, got .*int"),
        (
            "Pictures(image=torch.zeros(4, 64, 96))",
            r"item 0: its picture .* got 'torch.float32 \(4, 64, 96\)'",
        ),
        ("Pictures(image=torch.full((3, 64, 96), 255.0))", "item 0: its picture .* got 'numbers from 255 to 255'"),
        ('Pictures(image=Image.new("F", (96, 64)))', "item 0: its picture should be .* got 'F'"),
        (
            'Pictures(target={"labels": torch.tensor([1, 2])})',
            "item 0: its dict: expected 1 labels, one per box, got 2",
        ),
        (
            'Pictures(target={"boxes": torch.tensor([[70.0, 10, 30, 40]])})',
            "item 0: object 0: bbox .* negative",
        ),
        ('Pictures(target={"boxes": torch.tensor([[1.0, 1, 9e5, 2]])})', "item 0: object 0: bbox .* near the picture"),
        ('[({}, {"boxes": []})]', "item 0: its picture should be PIL's"),
        ('[(Image.new("RGB", (9, 9)), {"boxes": []})]', "item 0: its dict: expected the key 'labels'"),
    ],
)
def test_what_cannot_be_used_is_named(given, returned, message):
    with pytest.raises(DataError, match=rf"mine\.py: {message}"):
        read_labels(given(returned), "detect")


def test_files_and_functions_that_are_not_there(given, tmp_path):
    (tmp_path / "json.py").write_text("")
    for before, change, message in (
        ("", ("mine.py:make", "no.py:make"), r"no\.py: no such file"),
        (
            "",
            ("mine.py:make", "json.py:make"),
            r"json\.py: has the same name as .*json.__init__\.py, which is already in use",
        ),
        ("", (":make", ":other"), r"mine\.py: has no function 'other'"),
        ("1 / 0", ("", ""), r"mine\.py: make\(\): ZeroDivisionError"),
        ("import not_installed", ("", ""), r"mine\.py: make\(\): ModuleNotFoundError"),
        ("def", ("", ""), r"mine\.py: make\(\): SyntaxError: invalid syntax \(mine\.py, line"),
    ):
        with pytest.raises(DataError, match=message):
            read_labels(given("Pictures()", before=before).replace(*change), "detect")


@pytest.mark.parametrize(("task", "needs"), [("pose", "keypoints"), ("segment", "masks"), ("obb", "rotated boxes")])
def test_what_a_task_needs_is_told(given, task, needs):
    with pytest.raises(DataError, match=needs):
        read_labels(given("Pictures()"), task)


def test_labels_beyond_the_names_of_classes_are_refused(given):
    data = given("Pictures()", before='Pictures.classes = ["__background__", "a", "b", "c"]')
    with pytest.raises(DataError, match=r"mine\.py: item 1: object 0: category_id 4 is not among the categories"):
        read_labels(data, "detect")


def test_a_data_set_that_changes_is_refused_by_its_item(given):
    moving = """
import random
class Moving(Pictures):
    def __getitem__(self, index):
        image, target = super().__getitem__(index)
        return image, target | {"boxes": target["boxes"] + random.random()}
"""
    data = given("Moving()", before=moving)
    source = read_labels(data, "detect").pictures[2].source
    with pytest.raises(
        DataError, match=r"mine\.py: item 2: differs from what it was before; return the same every time"
    ):
        source.read((96, 64))


def test_a_data_set_can_be_sent_to_a_worker_process(given):
    train, _ = training_and_held_out(given("Pictures()"), 64, "detect", 0, 0.34, "")
    image, labels = train.sample(1, 2)
    same, truth = pickle.loads(pickle.dumps(train)).sample(1, 2)
    assert np.array_equal(image, same)
    assert np.array_equal(labels.boxes, truth.boxes)
