"""One line of a YOLO text file, written as COCO would."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from demo.annotations import REACH
from demo.document import Picture
from demo.rotated import around

# What each task's lines hold behind the class.
LINES = {
    "detect": "centre x, centre y, width, height",
    "obb": "x, y of four corners",
    "segment": "x, y of three points or more",
}


def annotation(
    line: str, where: str, picture: Picture, task: str, classes: int, keypoints: tuple[int, int] | None
) -> tuple[dict[str, Any], bool]:
    """The object as an annotation in pixels, and whether it is the box around an outline or corners.

    Args:
        line: class, and fractions of the picture's width and height.
        where: what the line is called in errors.
        picture: that it belongs to.
        task: what to read: "detect" takes the box around an outline or around corners too.
        classes: how many there are.
        keypoints: how many there are, and how many numbers each has; None where there are none.

    Raises:
        ValueError: for a line that cannot be read so.
    """
    label, values = _numbers(line, where, classes)
    size = np.array([picture.width, picture.height], dtype=float)
    pose = 0 if keypoints is None else keypoints[0] * keypoints[1]
    count, boxed = len(values), len(values) in ((4 + pose,) if task == "pose" else (4, 4 + pose))
    if (
        (task == "obb" and count != 8)
        or (task == "segment" and (count < 6 or count % 2))
        or (task == "pose" and not boxed)
    ):
        raise ValueError(f"{where}: expected a class and {_expected(task, keypoints)}, got {count + 1} numbers")
    if task in ("obb", "segment") or (not boxed and count >= 6 and count % 2 == 0):
        points = _fractions(np.array(values).reshape(-1, 2), where) * size
        if task == "obb":
            return {"category_id": label, "rbox": around(points).tolist()}, False
        low, high = points.min(0), points.max(0)
        outline = {"segmentation": [points.ravel().tolist()]} if task == "segment" else {}
        return {"category_id": label, "bbox": [*low.tolist(), *(high - low).tolist()], **outline}, task == "detect"
    if not boxed:
        raise ValueError(f"{where}: expected a class and {_expected(task, keypoints)}, got {count + 1} numbers")
    centre, sides = _fractions(np.array(values[:4]).reshape(2, 2), where) * size
    found: dict[str, Any] = {"category_id": label, "bbox": [*(centre - sides / 2).tolist(), *sides.tolist()]}
    if task == "pose" and keypoints is not None:
        found["keypoints"] = _keypoints(np.array(values[4:]).reshape(keypoints), size, where)
    return found, False


def _numbers(line: str, where: str, classes: int) -> tuple[int, list[float]]:
    try:
        label, *values = (float(word) for word in line.split())
    except ValueError:
        raise ValueError(f"{where}: expected numbers with spaces between them, got {line!r:.80}") from None
    if label not in range(classes):
        raise ValueError(
            f"{where}: expected a class from 0 to {classes - 1}, as many as there are names, got {label:g}"
        )
    if not all(map(math.isfinite, values)):
        raise ValueError(f"{where}: expected finite numbers, got {line!r:.80}")
    return int(label), values


def _fractions(values: np.ndarray, where: str) -> np.ndarray:
    far = np.abs(values - 0.5) > 0.5 + REACH
    if far.any():
        raise ValueError(f"{where}: expected fractions of the picture, got {values[far][0]:g}: are these pixels?")
    return values


def _keypoints(points: np.ndarray, size: np.ndarray, where: str) -> list[float]:
    """Flat x, y, flag in pixels. Where there are no flags, what is negative or 0, 0 is not labelled."""
    xy = points[:, :2]
    flags = points[:, 2] if points.shape[1] == 3 else np.where((xy < 0).any(1) | (xy == 0).all(1), 0, 2)
    xy = np.where(flags[:, None] == 0, 0, xy)
    return np.column_stack([_fractions(xy, where) * size, flags]).ravel().tolist()


def _expected(task: str, keypoints: tuple[int, int] | None) -> str:
    if task != "pose" or keypoints is None:
        return LINES[task] if task in LINES else LINES["detect"]
    return f"{LINES['detect']} and {keypoints[0]} times {keypoints[1]} numbers of keypoints"
