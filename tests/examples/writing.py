"""The small folder of `editing`, written in the formats that people have."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from demo.rotated import corners


def as_coco(folder: Path, root: Path, kind: str = "instances") -> Path:
    """`annotations/KIND_train2017.json`, `KIND_val2017.json`, and `train2017/`, `val2017/`."""
    for split, part in _parts(folder).items():
        _copy(folder, root / f"{split}2017", part)
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"{kind}_{split}2017.json").write_text(json.dumps(part))
    return root


def as_roboflow(folder: Path, root: Path) -> Path:
    """`train/_annotations.coco.json` with the pictures beside it, `valid/` likewise; ids begin anew in each."""
    for split, part in _parts(folder).items():
        place = root / {"train": "train", "val": "valid"}[split]
        _copy(folder, place, part)
        first = part["images"][0]["id"]
        for image in part["images"]:
            image["id"] -= first
        for annotation in part["annotations"]:
            annotation["image_id"] -= first
        (place / "_annotations.coco.json").write_text(json.dumps(part))
    return root


def as_yolo(folder: Path, root: Path, task: str) -> Path:
    """`data.yaml`, `images/train/`, `labels/train/` and those of `val`."""
    for split, part in _parts(folder).items():
        _copy(folder, root / "images" / split, part)
        (root / "labels" / split).mkdir(parents=True)
        for image in part["images"]:
            rows = [a for a in part["annotations"] if a["image_id"] == image["id"]]
            lines = [" ".join(["0", *(repr(x) for x in _values(a, task, image))]) for a in rows]
            (root / "labels" / split / image["file_name"]).with_suffix(".txt").write_text("\n".join(lines) + "\n")
    told = "path: .\ntrain: images/train\nval: images/val  # held out\n\nnc: 1\nnames:\n  0: thing\n"
    (root / "data.yaml").write_text(
        told + ("kpt_shape: [2, 3]\nkpt_names:\n  0:\n  - front\n  - back\n" * (task == "pose"))
    )
    return root


def _values(annotation: dict[str, Any], task: str, image: dict[str, Any]) -> list[float]:
    size = np.array([image["width"], image["height"]])
    x, y, width, height = annotation["bbox"]
    box = (np.array([[x + width / 2, y + height / 2], [width, height]]) / size).ravel().tolist()
    if task == "obb":
        return (corners(np.array([annotation["rbox"]]))[0] / size).ravel().tolist()
    if task == "segment":
        return (np.array(annotation["segmentation"][0]).reshape(-1, 2) / size).ravel().tolist()
    points = np.array(annotation["keypoints"]).reshape(-1, 3) / (*size, 1)
    return box + (points.ravel().tolist() if task == "pose" else [])


def _parts(folder: Path) -> dict[str, dict[str, Any]]:
    """The labels of each split, without a word of splits."""
    parts = {}
    for split in ("train", "val"):
        document = json.loads((folder / "labels.json").read_text())
        images = [image for image in document["images"] if image.pop("split") == split]
        ids = {image["id"] for image in images}
        rows = [a for a in document["annotations"] if a["image_id"] in ids]
        parts[split] = {"images": images, "annotations": rows, "categories": document["categories"]}
    return parts


def _copy(folder: Path, place: Path, part: dict[str, Any]) -> None:
    place.mkdir(parents=True)
    for image in part["images"]:
        shutil.copy(folder / "images" / image["file_name"], place / image["file_name"])
