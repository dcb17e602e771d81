"""One annotation, as COCO writes it, looked at value by value; readers of other formats write theirs that way too."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from compiled_loss.data.reading import is_crowd, is_number
from compiled_loss.data.segmentations import check_segmentation
from demo.document import Picture, Row
from demo.rotated import hulls

# As far as `Targets.validate` lets boxes reach out of the image, in image sizes.
REACH = 4.0
FULL_TURN = 2 * math.pi + 1e-3
FORMS = {"bbox": "[x, y, width, height]", "rbox": "[x, y, width, height, angle in radians]"}


def read_row(
    annotation: dict, where: str, picture: Picture, ranks: dict[Any, int], keypoints: int, task: str
) -> tuple[Row, str]:
    """The object, and why it is to be left out: "" where it is not.

    Args:
        annotation: as in COCO; of the task "obb" with `rbox`.
        where: what the annotation is called in errors.
        picture: that it belongs to.
        ranks: the class of each category id.
        keypoints: how many there are.
        task: "detect", "pose", "obb" or "segment".

    Raises:
        ValueError: for a value that cannot be used.
    """
    category = annotation.get("category_id")
    known = is_id(category) and category in ranks
    require(known, f"{where}: category_id {category!r:.40} is not among the categories")
    crowd = is_crowd(annotation.get("iscrowd"), f"{where}: iscrowd")
    key = "rbox" if task == "obb" else "bbox"
    box = _box(annotation.get(key), key, where, picture)
    x1, y1, x2, y2 = hulls(np.array([box]))[0] if key == "rbox" else (*box[:2], box[0] + box[2], box[1] + box[3])
    inside = x1 < picture.width and y1 < picture.height and x2 > 0 and y2 > 0
    reason = "without size" if min(box[2:4]) == 0 else "" if inside else "outside the picture"
    area = annotation.get("area")
    require(area is None or is_number(area), f"{where}: area should be a number", area)
    size = (picture.height, picture.width)
    fields: dict[str, Any] = {}
    if task == "pose":
        fields["keypoints"] = _keypoints(annotation.get("keypoints"), where, picture, keypoints)
    if task == "obb":
        fields["rotated"] = box
    if task == "segment":
        fields["segmentation"] = annotation.get("segmentation")
        try:
            check_segmentation(fields["segmentation"], size, "segmentation")
        except ValueError as error:
            raise ValueError(f"{where}: segmentation should be polygons or run lengths ({error})") from None
    # Some tools write 0, -1 or NaN where they do not know it.
    if area is None or not is_finite(area) or area <= 0:
        area = box[2] * box[3]
    return Row(ranks[category], box[:4], float(area), crowd, **fields), reason


def _box(box: Any, key: str, where: str, picture: Picture) -> list[float]:
    count = 5 if key == "rbox" else 4
    form = f"{where}: {key} should be {FORMS[key]}"
    fits = isinstance(box, list) and len(box) == count and all(is_finite(x) for x in box)
    require(fits and min(box[2:4]) >= 0, f"{form}, finite numbers and no side negative", box)
    for start, side, whole in ((box[0], box[2], picture.width), (box[1], box[3], picture.height)):
        middle = start if key == "rbox" else start + side / 2
        near = abs(middle - whole / 2) + side / 2 <= (0.5 + REACH) * whole
        require(near, f"{form}, pixels in or near the picture of {picture.width}x{picture.height}", box)
    turned = key == "rbox" and abs(box[4]) > FULL_TURN
    require(not turned, f"{form}, at most a full turn: are these degrees?", box)
    return [float(x) for x in box]


def _keypoints(values: Any, where: str, picture: Picture, count: int) -> list[list[float]]:
    """`[count][3]`, zeros where nothing is labelled."""
    values = [] if values is None else values
    require(isinstance(values, list), f"{where}: keypoints should be a list x, y, flag, x, y, flag, ...", values)
    fits = len(values) in (0, 3 * count)
    require(fits, f"{where}: expected {3 * count} keypoint values, got {len(values)}")
    points = [values[i : i + 3] for i in range(0, len(values), 3)] or [[0, 0, 0]] * count
    for i, (x, y, flag) in enumerate(points):
        known = is_finite(flag) and flag >= 0
        require(known, f"{where}: keypoint {i + 1} should have a flag of 0, 1 or 2", flag)
        near = flag == 0 or all(
            is_finite(v) and abs(v - whole / 2) <= (0.5 + REACH) * whole
            for v, whole in ((x, picture.width), (y, picture.height))
        )
        require(near, f"{where}: keypoint {i + 1} should be pixels in or near the picture", [x, y, flag])
    return [[float(v) for v in point] if point[2] else [0.0, 0.0, 0.0] for point in points]


def is_id(value: Any) -> bool:
    return isinstance(value, str) or (is_number(value) and value == value)


def is_finite(value: Any) -> bool:
    """Whether this is a number that can be reckoned with: no NaN, no infinity, none of hundreds of digits."""
    return is_number(value) and abs(value) < 1e12


_NOTHING = object()


def require(condition: bool, message: str, got: Any = _NOTHING) -> None:
    if not condition:
        raise ValueError(message + ("" if got is _NOTHING else f", got {got!r:.80}"))
