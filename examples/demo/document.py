"""A COCO-style labels file: read, checked value by value, and told in numbers that need no more looking at."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compiled_loss.data.reading import is_crowd, is_number
from compiled_loss.data.segmentations import check_segmentation
from demo.labels import COCO_NAMES, COCO_SIGMAS, DataError, Info
from demo.rotated import hulls

# As far as `Targets.validate` lets boxes reach out of the image, in image sizes.
REACH = 4.0
FULL_TURN = 2 * math.pi + 1e-3
FORMS = {"bbox": "[x, y, width, height]", "rbox": "[x, y, width, height, angle in radians]"}


@dataclass(frozen=True)
class Picture:
    """A picture of the file: its size in pixels, and the split it says it belongs to, if any."""

    id: int | float | str
    file_name: str
    width: int
    height: int
    split: str | None


@dataclass(frozen=True)
class Row:
    """An object: class, box (x, y, width, height) in pixels, area, whether it is a crowd, and what the task has.

    Of a rotated box `box` has the first four numbers, with the centre's x and y.
    """

    label: int
    box: list[float]
    area: float
    crowd: bool
    keypoints: list[list[float]] | None = None
    rotated: list[float] | None = None
    segmentation: Any = None


@dataclass(frozen=True)
class Document:
    """What a labels file holds.

    Args:
        path: of the file.
        info: classes, and for poses keypoints.
        pictures: in the order of the file.
        rows: the objects of each picture, by its id.
        left_out: how many annotations were left out of a picture, by its id and the reason.
    """

    path: Path
    info: Info
    pictures: list[Picture]
    rows: dict[Any, list[Row]]
    left_out: dict[Any, Counter[str]]


def read_document(path: Path, task: str) -> Document:
    """The labels of a task; DataError naming the file and the entry at fault."""
    document = _json(path)
    try:
        pictures = [_picture(image, f"images[{i}]") for i, image in enumerate(document["images"])]
        _refuse_twice("id", "of the images", [p.id for p in pictures])
        _refuse_twice("file_name", "of the images", [p.file_name for p in pictures])
        folder = os.path.basename(os.path.abspath(path.parent))
        ranks, info = _categories(document["categories"], folder, task == "pose")
        by_id: dict[Any, Picture] = {p.id: p for p in pictures}
        rows: dict[Any, list[Row]] = {p.id: [] for p in pictures}
        left_out: dict[Any, Counter[str]] = {p.id: Counter() for p in pictures}
        for i, annotation in enumerate(document["annotations"]):
            _require(isinstance(annotation, dict), f"annotations[{i}]: should be a dict", annotation)
            where = f"annotation {annotation['id']!r:.40}" if "id" in annotation else f"annotations[{i}]"
            image = annotation.get("image_id")
            _require(_is_id(image) and image in by_id, f"{where}: image_id {image!r:.40} is not among the images")
            row, reason = _row(annotation, where, by_id[image], ranks, len(info.keypoints), task)
            if reason:
                left_out[image][reason] += 1
            else:
                rows[image].append(row)
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error
    return Document(path, info, pictures, rows, left_out)


def _json(path: Path) -> dict[str, list[Any]]:
    try:
        # Some tools begin with a byte order mark.
        document = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not valid JSON ({error})") from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(document, dict) or not isinstance(document.get(key), list):
            raise DataError(f"{path}: expected a list {key!r}, as in COCO")
    if not document["categories"]:
        raise DataError(f"{path}: no categories")
    return document


def _picture(image: Any, place: str) -> Picture:
    _require(isinstance(image, dict), f"{place} should be a dict", image)
    where = f"image {image['id']!r:.40}" if "id" in image else place
    missing = {"id", "file_name", "width", "height"} - set(image)
    _require(not missing, f"{where} lacks {', '.join(sorted(missing))}")
    _require(_is_id(image["id"]), f"{where}: id should be a number or a text", image["id"])
    name, split = image["file_name"], image.get("split")
    _require(isinstance(name, str) and bool(name), f"{where}: file_name should be a text", name)
    _require(isinstance(split, str) or "split" not in image, f"{where}: split should be 'train' or 'val'", split)
    for key in ("width", "height"):
        side = image[key]
        whole = _is_finite(side) and side > 0 and side == int(side)
        _require(whole, f"{where}: {key} should be a positive whole number", side)
    return Picture(image["id"], name, int(image["width"]), int(image["height"]), split)


def _categories(categories: list[Any], name: str, pose: bool) -> tuple[dict[Any, int], Info]:
    """The class of each category id, its rank; and what is the same for all pictures."""
    for i, category in enumerate(categories):
        _require(isinstance(category, dict), f"categories[{i}]: should be a dict", category)
        number = category.get("id")
        whole = _is_finite(number) and number == int(number)
        _require(whole, f"categories[{i}]: id should be a whole number", number)
        title = category.get("name")
        known = title is None or is_number(title) or isinstance(title, str)
        _require(known, f"category {number}: name should be a text", title)
    _refuse_twice("id", "of the categories", [c["id"] for c in categories])
    categories = sorted(categories, key=lambda c: c["id"])
    names = [str(c["id"] if c.get("name") in (None, "") else c["name"]) for c in categories]
    # The results of a run go by name.
    often = Counter(names)
    classes = tuple(f"{n} ({c['id']})" if often[n] > 1 else n for n, c in zip(names, categories, strict=True))
    ranks = {c["id"]: i for i, c in enumerate(categories)}
    return ranks, _with_keypoints(Info(name, classes), categories) if pose else Info(name, classes)


def _with_keypoints(info: Info, categories: list[dict]) -> Info:
    first, where = categories[0], f"category {categories[0]['id']}"
    names: Any = first.get("keypoints")
    several = isinstance(names, list) and bool(names) and all(isinstance(name, str) for name in names)
    same = several and all(c.get("keypoints") == names for c in categories)
    _require(same, "--task pose needs the same list 'keypoints' of names in every category")
    skeleton = [] if first.get("skeleton") is None else first["skeleton"]
    _require(isinstance(skeleton, list), f"{where}: skeleton should be a list of pairs of keypoints", skeleton)
    for pair in skeleton:
        fits = isinstance(pair, list) and len(pair) == 2 and all(type(k) is int and 1 <= k <= len(names) for k in pair)
        _require(fits, f"{where}: skeleton should be pairs of keypoints, counted from 1 to {len(names)}", pair)
    limbs = tuple((a - 1, b - 1) for a, b in skeleton)
    sigmas = COCO_SIGMAS if tuple(names) == COCO_NAMES else np.full(len(names), 1 / len(names))
    return Info(info.name, info.classes, tuple(names), limbs, tuple(sigmas.tolist()))


def _row(
    annotation: dict, where: str, picture: Picture, ranks: dict[Any, int], keypoints: int, task: str
) -> tuple[Row, str]:
    """The object, and why it is to be left out: "" where it is not."""
    category = annotation.get("category_id")
    known = _is_id(category) and category in ranks
    _require(known, f"{where}: category_id {category!r:.40} is not among the categories")
    crowd = is_crowd(annotation.get("iscrowd"), f"{where}: iscrowd")
    key = "rbox" if task == "obb" else "bbox"
    box = _box(annotation.get(key), key, where, picture)
    x1, y1, x2, y2 = hulls(np.array([box]))[0] if key == "rbox" else (*box[:2], box[0] + box[2], box[1] + box[3])
    inside = x1 < picture.width and y1 < picture.height and x2 > 0 and y2 > 0
    reason = "without size" if min(box[2:4]) == 0 else "" if inside else "outside the picture"
    area = annotation.get("area")
    _require(area is None or is_number(area), f"{where}: area should be a number", area)
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
    if area is None or not _is_finite(area) or area <= 0:
        area = box[2] * box[3]
    return Row(ranks[category], box[:4], float(area), crowd, **fields), reason


def _box(box: Any, key: str, where: str, picture: Picture) -> list[float]:
    count = 5 if key == "rbox" else 4
    form = f"{where}: {key} should be {FORMS[key]}"
    fits = isinstance(box, list) and len(box) == count and all(_is_finite(x) for x in box)
    _require(fits and min(box[2:4]) >= 0, f"{form}, finite numbers and no side negative", box)
    for start, side, whole in ((box[0], box[2], picture.width), (box[1], box[3], picture.height)):
        middle = start if key == "rbox" else start + side / 2
        near = abs(middle - whole / 2) + side / 2 <= (0.5 + REACH) * whole
        _require(near, f"{form}, pixels in or near the picture of {picture.width}x{picture.height}", box)
    turned = key == "rbox" and abs(box[4]) > FULL_TURN
    _require(not turned, f"{form}, at most a full turn: are these degrees?", box)
    return [float(x) for x in box]


def _keypoints(values: Any, where: str, picture: Picture, count: int) -> list[list[float]]:
    """`[count][3]`, zeros where nothing is labelled."""
    values = [] if values is None else values
    _require(isinstance(values, list), f"{where}: keypoints should be a list x, y, flag, x, y, flag, ...", values)
    fits = len(values) in (0, 3 * count)
    _require(fits, f"{where}: expected {3 * count} keypoint values, got {len(values)}")
    points = [values[i : i + 3] for i in range(0, len(values), 3)] or [[0, 0, 0]] * count
    for i, (x, y, flag) in enumerate(points):
        known = _is_finite(flag) and flag >= 0
        _require(known, f"{where}: keypoint {i + 1} should have a flag of 0, 1 or 2", flag)
        near = flag == 0 or all(
            _is_finite(v) and abs(v - whole / 2) <= (0.5 + REACH) * whole
            for v, whole in ((x, picture.width), (y, picture.height))
        )
        _require(near, f"{where}: keypoint {i + 1} should be pixels in or near the picture", [x, y, flag])
    return [[float(v) for v in point] if point[2] else [0.0, 0.0, 0.0] for point in points]


def _is_id(value: Any) -> bool:
    return isinstance(value, str) or (is_number(value) and value == value)


def _is_finite(value: Any) -> bool:
    """Whether this is a number that can be reckoned with: no NaN, no infinity, none of hundreds of digits."""
    return is_number(value) and abs(value) < 1e12


def _refuse_twice(key: str, of: str, values: list[Any]) -> None:
    value, times = Counter(values).most_common(1)[0] if values else (None, 1)
    _require(times == 1, f"{key} {value!r:.80} {of} stands there {times} times, each should have its own")


_NOTHING = object()


def _require(condition: bool, message: str, got: Any = _NOTHING) -> None:
    if not condition:
        raise ValueError(message + ("" if got is _NOTHING else f", got {got!r:.80}"))
