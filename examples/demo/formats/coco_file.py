"""One file of labels as COCO writes it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from compiled_loss.data.reading import is_number
from demo import pictures
from demo.annotations import is_finite, is_id, read_row, require
from demo.document import Document, Picture
from demo.labels import DataError, Info


def read_file(path: Path, task: str, name: str, place: Callable[[str], Path]) -> Document:
    """The labels of a task; DataError naming the file and the entry at fault.

    Args:
        path: of the file.
        task: which fields of an annotation to read.
        name: of the data set.
        place: where the picture of a `file_name` is.
    """
    document = load(path)
    try:
        images = [_picture(image, f"images[{i}]", place) for i, image in enumerate(document["images"])]
        _refuse_twice("id", "of the images", [p.id for p in images])
        _refuse_twice("file_name", "of the images", [p.file_name for p in images])
        ranks, info = _categories(document["categories"], name, task == "pose")
        by_id: dict[Any, Picture] = {p.id: p for p in images}
        count = len(document["annotations"])
        labels = Document(
            path, f"{path.resolve().parent.name}/{path.name}: {len(images)} pictures, {count} annotations", info, images
        )
        for i, annotation in enumerate(document["annotations"]):
            require(isinstance(annotation, dict), f"annotations[{i}]: should be a dict", annotation)
            where = f"annotation {annotation['id']!r:.40}" if "id" in annotation else f"annotations[{i}]"
            image = annotation.get("image_id")
            require(is_id(image) and image in by_id, f"{where}: image_id {image!r:.40} is not among the images")
            row, reason = read_row(annotation, where, by_id[image], ranks, len(info.keypoints), task)
            labels.add(by_id[image], row, reason)
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error
    return labels


def load(path: Path) -> dict[str, list[Any]]:
    """The three lists of a file."""
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


def _picture(image: Any, entry: str, place: Callable[[str], Path]) -> Picture:
    require(isinstance(image, dict), f"{entry} should be a dict", image)
    where = f"image {image['id']!r:.40}" if "id" in image else entry
    missing = {"id", "file_name", "width", "height"} - set(image)
    require(not missing, f"{where} lacks {', '.join(sorted(missing))}")
    require(is_id(image["id"]), f"{where}: id should be a number or a text", image["id"])
    name, split = image["file_name"], image.get("split")
    require(isinstance(name, str) and bool(name), f"{where}: file_name should be a text", name)
    require(isinstance(split, str) or "split" not in image, f"{where}: split should be 'train' or 'val'", split)
    for key in ("width", "height"):
        side = image[key]
        whole = is_finite(side) and side > 0 and side == int(side)
        require(whole, f"{where}: {key} should be a positive whole number", side)
    size = int(image["width"]), int(image["height"])
    return Picture(image["id"], name, *size, split, pictures.File(place(name)))


def _categories(categories: list[Any], name: str, pose: bool) -> tuple[dict[Any, int], Info]:
    """The class of each category id, its rank; and what is the same for all pictures."""
    for i, category in enumerate(categories):
        require(isinstance(category, dict), f"categories[{i}]: should be a dict", category)
        number = category.get("id")
        whole = is_finite(number) and number == int(number)
        require(whole, f"categories[{i}]: id should be a whole number", number)
        title = category.get("name")
        known = title is None or is_number(title) or isinstance(title, str)
        require(known, f"category {number}: name should be a text", title)
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
    require(same, "--task pose needs the same list 'keypoints' of names in every category")
    skeleton = [] if first.get("skeleton") is None else first["skeleton"]
    require(isinstance(skeleton, list), f"{where}: skeleton should be a list of pairs of keypoints", skeleton)
    for pair in skeleton:
        fits = isinstance(pair, list) and len(pair) == 2 and all(type(k) is int and 1 <= k <= len(names) for k in pair)
        require(fits, f"{where}: skeleton should be pairs of keypoints, counted from 1 to {len(names)}", pair)
    limbs = tuple((a - 1, b - 1) for a, b in skeleton)
    return info.with_keypoints(names, limbs)


def _refuse_twice(key: str, of: str, values: list[Any]) -> None:
    value, times = Counter(values).most_common(1)[0] if values else (None, 1)
    require(times == 1, f"{key} {value!r:.80} {of} occurs {times} times, each should have its own")
