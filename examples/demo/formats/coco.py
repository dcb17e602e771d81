"""Folders of pictures with COCO's labels: our own layout, COCO's as it ships, and Roboflow's."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from demo.document import Document, join
from demo.formats.coco_file import load, read_file
from demo.labels import DataError

ROBOFLOW = "_annotations.coco.json"
# COCO's folders and Roboflow's, by the split that they stand for.
SPLITS = {"train": ("train",), "val": ("val", "valid", "validation")}


def read(root: Path, task: str) -> Document | None:
    """The labels, or None where the folder is in none of these layouts."""
    name = root.resolve().name
    if (root / "labels.json").is_file():
        return read_file(root / "labels.json", task, name, lambda file: root / "images" / file)
    if (root / "annotations").is_dir():
        return _as_shipped(root, task, name)
    if any(root.glob(f"*/{ROBOFLOW}")) or (root / ROBOFLOW).is_file():
        return _roboflow(root, task, name)
    return None


def _as_shipped(root: Path, task: str, name: str) -> Document:
    """`annotations/instances_train2017.json` and `instances_val2017.json`, for poses `person_keypoints_...`."""
    kind = "person_keypoints" if task == "pose" else "instances"
    found = _of_splits(root / "annotations", lambda split: rf"{kind}_{split}\d*\.json")
    if "train" not in found:
        raise DataError(
            f"{root / 'annotations'}: expected {kind}_train.json or the like, such as {kind}_train2017.json"
        )
    parts = {}
    for split, path in found.items():
        place = _pictures_of(root, path, path.stem.removeprefix(f"{kind}_"))
        parts[split] = read_file(path, task, name, lambda file, place=place: place / file)
    return _joined(root, parts, "COCO")


def _pictures_of(root: Path, path: Path, stem: str) -> Path:
    """The folder of the pictures of a file that is called after the split "train2017"."""
    split = stem.rstrip("0123456789")
    places = [root / "images" / stem, root / stem, root / "images" / split, root / split, root / "images", root]
    images = [image for image in load(path)["images"] if isinstance(image, dict)]
    first = next((image["file_name"] for image in images if isinstance(image.get("file_name"), str)), "")
    for place in places:
        if first and (place / first).is_file():
            return place
    if not images:
        return places[0]  # nothing to find
    told = ", ".join(f"{place.relative_to(root)}/" for place in places[:-1])
    raise DataError(f"{root}: the pictures of {path.name}, {first} first, are in none of {told} nor the folder itself")


def _roboflow(root: Path, task: str, name: str) -> Document:
    """`train/_annotations.coco.json` with the pictures beside it, `valid/` likewise; or all in the folder itself."""
    if (root / ROBOFLOW).is_file():
        return read_file(root / ROBOFLOW, task, name, lambda file: root / file)
    folders = _of_splits(root, lambda split: split)
    found = {split: place for split, place in folders.items() if (place / ROBOFLOW).is_file()}
    if "train" not in found:
        raise DataError(f"{root}: expected train/{ROBOFLOW}")
    parts = {
        split: read_file(place / ROBOFLOW, task, name, lambda file, place=place: place / file)
        for split, place in found.items()
    }
    labels = _joined(root, parts, "Roboflow's COCO")
    if (root / "test" / ROBOFLOW).is_file():
        labels.notes.append(f"test/{ROBOFLOW} is not used")
    return labels


def _of_splits(folder: Path, pattern: Callable[[str], str]) -> dict[str, Path]:
    """What in a folder stands for training and what for held-out pictures."""
    found = {}
    for split, names in SPLITS.items():
        fitting = [p for p in sorted(folder.iterdir()) if any(re.fullmatch(pattern(n), p.name) for n in names)]
        if len(fitting) > 1:
            told = " and ".join(path.name for path in fitting)
            raise DataError(f"{folder}: {told} both list the pictures of {split!r}; keep only one of them")
        if fitting:
            found[split] = fitting[0]
    return found


def _joined(root: Path, parts: dict[str, Document], what: str) -> Document:
    """One document; of a single file without splits, so that a share of it can be held out."""
    told = " and ".join(part.origin for part in parts.values())
    if list(parts) != ["train"]:
        return join(root, f"{what}: {told}", parts)
    labels = parts["train"]
    return Document(labels.path, f"{what}: {told}", labels.info, labels.pictures, labels.rows, labels.left_out)
