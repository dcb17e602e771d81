"""Which pictures are held out: by their split, by a share, by a second labels file."""

import copy
import json

import pytest
from demo.labels import DataError
from demo.splits import training_and_held_out
from train import main

TINY = ["--no-compile", "--image-size", "32", "--batch-size", "2", "--workers", "0", "--steps", "2", "--task", "detect"]


@pytest.fixture
def plain(folder):
    """The same folder without splits."""
    document = json.loads((folder / "labels.json").read_text())
    for image in document["images"]:
        del image["split"]
    (folder / "labels.json").write_text(json.dumps(document))
    return folder


def names(data):
    return {image.file_name for image in data.pictures}


def test_a_share_of_a_plain_file_is_held_out_and_stays_so(plain):
    train, val = training_and_held_out(plain, 64, "detect", 0, 0.34, "")
    assert (len(train), len(val)) == (4, 2)
    assert not names(train) & names(val)
    assert "2 of 6 pictures are held out" in train.notes[0]
    again = training_and_held_out(plain, 64, "detect", 1, 0.34, "")
    assert names(again[1]) == names(val)
    wider = training_and_held_out(plain, 64, "detect", 0, 0.5, "")
    assert names(val) < names(wider[1])
    usual = training_and_held_out(plain, 64, "detect", 0, 0.0, "")
    assert (len(usual[0]), len(usual[1])) == (5, 1)
    most = training_and_held_out(plain, 64, "detect", 0, 0.99, "")
    assert (len(most[0]), len(most[1])) == (1, 5)


def second_file(folder, path, change=lambda d: None):
    """Moves the last two pictures into a file of their own."""
    document = json.loads((folder / "labels.json").read_text())
    parts = {}
    for part, chosen in (("train", range(4)), ("val", range(4, 6))):
        images = [image for image in document["images"] if image["id"] in chosen]
        annotations = [a for a in document["annotations"] if a["image_id"] in chosen]
        parts[part] = document | {"images": images, "annotations": annotations}
    parts["val"] = copy.deepcopy(parts["val"])
    change(parts["val"])
    (folder / "labels.json").write_text(json.dumps(parts["train"]))
    path.write_text(json.dumps(parts["val"]))
    return str(path)


def test_a_second_file_holds_out_its_pictures(plain, tmp_path):
    path = second_file(plain, tmp_path / "val.json")
    train, val = training_and_held_out(plain, 64, "pose", 0, 0.0, path)
    assert (names(train), names(val)) == ({f"{i}.png" for i in range(4)}, {"4.png", "5.png"})
    assert val.labels(0).boxes.any()
    assert train.notes == []


def test_a_second_file_of_other_classes_or_with_pictures_of_the_first_is_told(plain, tmp_path):
    path = second_file(plain, tmp_path / "val.json", lambda d: d["categories"].append({"id": 1, "name": "other"}))
    with pytest.raises(DataError, match="its categories differ from those of"):
        training_and_held_out(plain, 64, "detect", 0, 0.0, path)
    train, _ = training_and_held_out(plain, 64, "detect", 0, 0.0, str(plain / "labels.json"))
    assert train.notes[0].startswith("4 pictures are for training and held out too")
    with pytest.raises(DataError, match=r"none\.json: cannot be read"):
        training_and_held_out(plain, 64, "detect", 0, 0.0, str(tmp_path / "none.json"))


def test_splits_and_options_contradict_each_other(folder, tmp_path):
    for share, path, option in ((0.5, "", "--val-fraction"), (0.0, "val.json", "--val-labels")):
        with pytest.raises(DataError, match=rf"{option} is for images without a 'split'"):
            training_and_held_out(folder, 64, "detect", 0, share, path)


def test_other_splits_are_not_used_and_counted(folder):
    document = json.loads((folder / "labels.json").read_text())
    document["images"][0]["split"] = "test"
    (folder / "labels.json").write_text(json.dumps(document))
    train, val = training_and_held_out(folder, 64, "detect", 0, 0.0, "")
    assert (len(train), len(val)) == (3, 2)
    assert train.notes == ["1 pictures of split 'test' are not used"]


def test_every_picture_is_looked_at_before_the_first_step(folder):
    (folder / "images" / "3.png").unlink()
    with pytest.raises(DataError, match=r"3\.png: no such picture"):
        training_and_held_out(folder, 64, "detect", 0, 0.0, "")


def test_a_plain_file_is_trained_on(plain, tmp_path, capsys):
    assert main([*TINY, "--data", str(plain), "--val-fraction", "0.5", "--out", str(tmp_path / "a")]) == 0
    assert "note: no image has a 'split': 3 of 6 pictures are held out" in capsys.readouterr().out
    path = second_file(plain, tmp_path / "val.json")
    assert main([*TINY, "--data", str(plain), "--val-labels", path, "--out", str(tmp_path / "b")]) == 0
    assert "on 2 held-out pictures" in capsys.readouterr().out


def test_options_that_make_no_sense_are_one_line(plain, capsys):
    for options, message in (
        (["--val-fraction", "0.5"], "need pictures of your own: --data"),
        (["--data", str(plain), "--val-fraction", "1"], "--val-fraction: expected a number between 0 and 1, got 1.0"),
        (["--data", str(plain), "--val-fraction", "0.5", "--val-labels", "x"], "give only one of them"),
    ):
        assert main([*TINY, *options]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("task", ["detect", "pose", "obb", "segment"])
def test_held_out_pictures_without_objects_end_in_results_without_precision(folder, tmp_path, capsys, task):
    document = json.loads((folder / "labels.json").read_text())
    document["annotations"] = document["annotations"][:4]
    (folder / "labels.json").write_text(json.dumps(document))
    out = tmp_path / "run"
    assert main([*TINY, "--task", task, "--data", str(folder), "--out", str(out)]) == 0
    assert json.loads((out / "results.json").read_text())["ap"] is None
    printed = capsys.readouterr().out
    assert "note: val: no object is labelled in any of the 2 pictures" in printed
    assert "there is none" in printed
    assert (out / "predictions.png").is_file()


def test_names_of_any_kind_are_drawn_and_printed(folder, tmp_path):
    document = json.loads((folder / "labels.json").read_text())
    document["categories"] = [
        {"id": 7, "name": "$5 [bill]$ \\frac"},
        {"id": 8, "name": "[/red]"},
        {"id": 9, "name": "_"},
    ]
    (folder / "labels.json").write_text(json.dumps(document))
    assert main([*TINY, "--data", str(folder), "--out", str(tmp_path / "run [/x]")]) == 0


def test_results_are_kept_before_anything_else_can_fail(folder, tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("no room")

    monkeypatch.setattr("demo.report.draw", fail)
    with pytest.raises(RuntimeError, match="no room"):
        main([*TINY, "--data", str(folder), "--out", str(tmp_path)])
    assert json.loads((tmp_path / "results.json").read_text())["steps"] == 2


def test_a_picture_that_breaks_in_the_middle_leaves_a_checkpoint(folder, tmp_path, monkeypatch, capsys):
    from demo.folder import Folder  # noqa: PLC0415

    load, seen = Folder._load, []

    def break_later(self, index):
        seen.append(index)
        if len(seen) > 4:
            raise DataError("2.png: not a readable picture")
        return load(self, index)

    monkeypatch.setattr(Folder, "_load", break_later)
    out = tmp_path / "run"
    assert main([*TINY[:-4], "--task", "detect", "--steps", "9", "--data", str(folder), "--out", str(out)]) == 2
    assert "steps so far are kept in" in capsys.readouterr().err
    assert (out / "checkpoint.pt").is_file()


def test_a_folder_that_cannot_be_written_to_is_told_before_training(folder, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main([*TINY, "--data", str(folder), "--out", str(tmp_path / "file" / "run")]) == 2
    assert "cannot be written to" in capsys.readouterr().err


def test_a_checkpoint_of_other_classes_is_refused_by_name(folder, tmp_path, capsys):
    assert main([*TINY, "--data", str(folder), "--out", str(tmp_path)]) == 0
    document = json.loads((folder / "labels.json").read_text())
    document["categories"].append({"id": 9, "name": "other"})
    (folder / "labels.json").write_text(json.dumps(document))
    assert main(["--no-compile", "--workers", "0", "--resume", str(tmp_path / "checkpoint.pt")]) == 2
    assert "checkpoint.pt: is not of this model and these classes" in capsys.readouterr().err
