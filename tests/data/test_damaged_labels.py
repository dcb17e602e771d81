"""Labels damaged at random end in Targets or in a ValueError that names what is wrong, in nothing else."""

import random
import re
import warnings
from collections import Counter

import pytest
import torch

from compiled_loss.data.sources import from_coco, from_torchvision, from_yolo
from tests.mutations import damage

SIZES = [[48, 64], [64, 48]]
SQUARE = [8, 8, 32, 8, 32, 28, 8, 28]
RUNS = {"size": [48, 64], "counts": [8 * 48 + 8, *([20, 28] * 23), 20, 48 * 64 - 8 * 48 - 8 - 48 * 23 - 20]}


def annotation(**fields):
    return {"bbox": [8, 8, 24, 20], "category_id": 5, "iscrowd": 0, "keypoints": [9, 9, 2, 0, 0, 0], **fields}


def coco(segmentation):
    one, other = annotation(segmentation=segmentation), annotation(category_id=1, segmentation=[SQUARE])
    arguments = {"annotations": [[one, one], [other]], "image_sizes": SIZES, "category_ids": [5, 1]}
    return from_coco, arguments | {"mask_size": [12, 16], "num_keypoints": 2}


def turned():
    one = {"rbox": [32, 24, 30, 10, 0.5], "category_id": 1}
    return from_coco, {"annotations": [[one], [], [one, one]], "image_sizes": [48, 64], "oriented": True}


def torchvision():
    one = {
        "boxes": [[8, 8, 32, 28]] * 2,
        "labels": [1, 2],
        "keypoints": [[[9, 9, 2], [0, 0, 0]]] * 2,
        "iscrowd": [0, 1],
    }
    return from_torchvision, {"targets": [one, {"boxes": [], "labels": []}], "image_sizes": SIZES, "num_keypoints": 2}


def yolo():
    rows = {"batch_idx": [0, 1], "cls": [[1], [2]], "bboxes": [[0.5, 0.5, 0.2, 0.3]] * 2, "masks": [[[0, 1]], [[1, 1]]]}
    return from_yolo, {"batch": rows | {"keypoints": [[[0.5, 0.5, 2]]] * 2, "sem_masks": [[[0, 1]], [[2, 2]]]}}


FORMATS = {
    "polygons": lambda: coco([SQUARE, SQUARE[:6]]),
    "runs": lambda: coco(RUNS),
    "text": lambda: coco({"size": [48, 64], "counts": "0PP3"}),
    "turned": turned,
    "torchvision": torchvision,
    "yolo": yolo,
}
# What people hand in; the others are arguments of whoever writes the program.
LABELS = ("annotations", "targets", "batch", "image_sizes", "category_ids")
NAMED = re.compile(
    r"^(Targets\.\w+|annotations|targets|batch|image_sizes|category_ids|mask_size|num_keypoints)\b.*: expected "
)


@pytest.mark.parametrize("name", FORMATS)
def test_damaged_labels_end_in_targets_or_in_a_named_error(name):
    source, arguments = FORMATS[name]()
    source(**arguments)
    ends: Counter[str] = Counter()
    for seed in range(400):
        rng = random.Random(f"{name} {seed}")
        labels = {key: arguments[key] for key in LABELS if key in arguments}
        damaged = damage(labels, rng, rng.choice((1, 1, 1, 2, 5)))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                targets = source(**arguments | damaged)
            assert targets.validate().boxes.dtype == torch.float32
            ends["read"] += 1
        except ValueError as error:
            ends["refused" if NAMED.match(str(error)) else f"{seed}: {error}"] += 1
        except Exception as error:
            ends[f"{seed}: {type(error).__name__}: {error}"] += 1
    assert set(ends) == {"read", "refused"}, name
    # Neither end is the only one, or nothing would be tested.
    assert min(ends.values()) >= 20, ends
