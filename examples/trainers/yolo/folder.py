"""Pictures and labels as YOLO trainers read them: one picture, one text file, a row for every object."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2  # pyright: ignore[reportMissingImports]
import numpy as np
from demo.folder import Folder
from demo.labels import Dataset, Labels
from demo.tasks import TASKS
from PIL import Image


def write_folder(root: Path, task: str, size: int, counts: tuple[int, int], data: Path | None = None) -> Path:
    """Write the two splits of a task, and the file that names them.

    Args:
        root: folder to write.
        task: one of `TASKS`.
        size: side of the square pictures in pixels.
        counts: pictures of the training and of the validation split, at most.
        data: FOLDER/labels.json in COCO style and FOLDER/images; None renders pictures.

    Returns:
        the file.
    """
    source: Any = None
    for number, (split, count) in enumerate(zip(("train", "val"), counts, strict=True)):
        source = TASKS[task].rendered(size, count, 0, number) if data is None else Folder(data, split, size, task)
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True, exist_ok=True)
        for i in range(min(count, len(source))):
            picture, labels = source.sample(i)
            Image.fromarray(picture).save(root / "images" / split / f"{i:05d}.png")
            (root / "labels" / split / f"{i:05d}.txt").write_text("\n".join(rows(task, labels, size)))
    return _describe(root, source)


def rows(task: str, labels: Labels, size: int) -> list[str]:
    """A line for every object: its class, and numbers as fractions of the picture."""
    lines = []
    for i in np.flatnonzero(~labels.crowd):
        values = np.array(outline(task, labels, int(i)) if task in ("obb", "segment") else box(labels.boxes[i])) / size
        if task == "pose":
            assert labels.keypoints is not None
            values = np.concatenate([values, (labels.keypoints[i] / (size, size, 1)).ravel()])
        if len(values):
            lines.append(" ".join([str(labels.classes[i]), *(f"{x:.6f}" for x in values)]))
    return lines


def box(corners: np.ndarray) -> np.ndarray:
    """Centre and sides of `[4]` corners."""
    return np.concatenate([(corners[:2] + corners[2:]) / 2, corners[2:] - corners[:2]])


def outline(task: str, labels: Labels, i: int) -> np.ndarray:
    """`[2 n]` x, y of the corners of an oriented box, or of the largest piece of a mask; nothing below 3 points."""
    if task == "obb":
        assert labels.rotated is not None
        x, y, width, height, angle = labels.rotated[i]
        along = np.array([np.cos(angle), np.sin(angle)]) * width / 2
        across = np.array([-np.sin(angle), np.cos(angle)]) * height / 2
        corners = np.stack([-along - across, along - across, along + across, across - along])
        return (corners + np.array([x, y])).ravel()
    assert labels.index_map is not None
    pieces, _ = cv2.findContours((labels.index_map == i + 1).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    largest = max(pieces, key=cv2.contourArea, default=np.zeros((0, 1, 2)))
    return largest.ravel() + 0.5 if len(largest) >= 3 else np.zeros(0)


def _describe(root: Path, source: Dataset) -> Path:
    info, file = source.info, root / "data.yaml"
    described: dict[str, object] = {"path": str(root.resolve()), "train": "images/train", "val": "images/val"}
    described["names"] = dict(enumerate(info.classes))
    if info.keypoints:
        described |= {"kpt_shape": [len(info.keypoints), 3], "flip_idx": list(range(len(info.keypoints)))}
    # JSON is YAML.
    file.write_text(json.dumps(described))
    return file
