"""Labels damaged at random end in a run or in an error that names the file, in nothing else."""

import json
import random
from collections import Counter

import pytest
from demo.labels import DataError
from demo.splits import training_and_held_out

from tests.examples.writing import as_yolo
from tests.mutations import damage

FORMATS = {
    "detect": "detect",
    "pose": "pose",
    "obb": "obb",
    "polygons": "segment",
    "runs": "segment",
    "text": "segment",
}


def as_format(document, name):
    """The folder's labels with the fields of one format."""
    document["categories"].append({"id": 9, "name": "other", "keypoints": ["front", "back"], "skeleton": [[1, 2]]})
    document["categories"][0]["skeleton"] = [[1, 2]]
    for row in document["annotations"]:
        if name == "runs":  # a square of 40 x 30 at (30, 10)
            row["segmentation"] = {"size": [64, 96], "counts": [1930, *([30, 34] * 39), 30, 1688]}
        if name == "text":
            row["segmentation"] = {"size": [64, 96], "counts": "0PP6"}  # no pixel outside, then all 6144
    return document


@pytest.mark.parametrize("name", FORMATS)
def test_damaged_labels_end_in_samples_or_in_an_error_that_names_the_file(folder, name):
    path = folder / "labels.json"
    sound = as_format(json.loads(path.read_text()), name)
    ends: Counter[str] = Counter()
    for seed in range(200):
        rng = random.Random(f"{name} {seed}")
        path.write_text(json.dumps(damage(sound, rng, rng.choice((1, 1, 1, 2, 5)))))
        try:
            splits = training_and_held_out(folder, 64, FORMATS[name], 0, 0.0, "")
            for data in splits:
                for i in range(len(data)):
                    image, labels = data.sample(i, epoch=1 if data.augmented else None)
                    assert image.shape == (64, 64, 3)
                    labels.targets(64).validate(1, len(data.info.classes))
            ends["read"] += 1
        except DataError as error:
            ends["refused" if str(error).startswith(str(folder)) else f"{seed}: {error}"] += 1
        except Exception as error:
            ends[f"{seed}: {type(error).__name__}: {error}"] += 1
    assert set(ends) == {"read", "refused"}, name
    # Neither end is the only one, or nothing would be tested.
    assert min(ends.values()) >= 10, ends


WORDS = (
    "nan",
    "inf",
    "-1",
    "1e999",
    "0",
    "2",
    "0.5",
    "x",
    "",
    ":",
    "- ",
    "[",
    "]",
    "'",
    '"',
    "\n",
    "\t",
    "#",
    "{",
    "}",
    "640",
)


def spoil(text, rng):
    """A text with something put in, cut out or moved, at random."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        start = rng.randrange(len(text) + 1)
        stop = min(len(text), start + rng.choice((0, 0, 1, 3, 12)))
        text = text[:start] + rng.choice(WORDS) + text[stop:]
    return text


@pytest.mark.parametrize("task", ["detect", "pose", "obb", "segment"])
def test_damaged_yolo_files_end_in_samples_or_in_an_error_that_names_the_file(folder, tmp_path, task):
    root = as_yolo(folder, tmp_path / "yolo", task)
    paths = [root / "data.yaml", root / "labels" / "train" / "1.txt"]
    sound = [path.read_text() for path in paths]
    ends: Counter[str] = Counter()
    for seed in range(150):
        rng = random.Random(f"{task} {seed}")
        for path, text in zip(paths, sound, strict=True):
            path.write_text(text)
        k = rng.randrange(2)
        paths[k].write_text(spoil(sound[k], rng))
        try:
            for data in training_and_held_out(root, 64, task, 0, 0.0, ""):
                for i in range(len(data)):
                    _, labels = data.sample(i, epoch=1 if data.augmented else None)
                    labels.targets(64).validate(1, len(data.info.classes))
            ends["read"] += 1
        except DataError as error:
            ends["refused" if str(error).startswith(str(root)) else f"{seed}: {error}"] += 1
        except Exception as error:
            ends[f"{seed}: {type(error).__name__}: {error}"] += 1
    assert set(ends) == {"read", "refused"}, task
    assert min(ends.values()) >= 10, ends
