"""Data sets in Python, as torchvision's detection models take them: `FILE.py:function` returns one, or two.

An item is a picture and a dict with `boxes` and `labels`, and what else `compiled_loss.sources.from_torchvision` reads.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from compiled_loss.data.reading import read_dict
from demo.annotations import read_row, require
from demo.detections import encode
from demo.document import Document, Picture, join
from demo.formats.item import Item, boxes_of, naming, pair_of, theirs
from demo.labels import DataError, Info

# torchvision's name of class 0, of which there are no objects.
BACKGROUND = "__background__"


def read(text: str, task: str) -> Document:
    """The labels of a task; DataError naming the file and the item at fault.

    Args:
        text: "FILE.py:function". The function takes no arguments and returns a data set, a share of which is held out,
            or a tuple of two, the second of which is. An attribute `classes` names their classes by label, an attribute
            `keypoints` their keypoints.
        task: "detect", "pose" or "segment".
    """
    file, _, function = text.rpartition(":")
    path = Path(file)
    if task == "obb":
        raise DataError(f"{text}: dicts have no rotated boxes; --task obb reads a YOLO folder, or labels.json")
    with naming(path, f"{function}()"):
        made = _made(path, function)
        datasets = made if isinstance(made, tuple) else (made,)
        require(len(datasets) in (1, 2), f"should return a data set or a tuple of two, got a tuple of {len(datasets)}")
        for dataset in datasets:
            several = hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")
            require(several, "should return a data set with a length and items", type(dataset))
    found = [_items(path, dataset, "item" if i == 0 else "held-out item", task) for i, dataset in enumerate(datasets)]
    with naming(path, f"{function}()"):
        ranks, info = _info(path.stem, datasets, [row for items in found for _, rows in items for row in rows], task)
    parts = []
    for items in found:
        labels = Document(path, "", info, [picture for picture, _ in items])
        for picture, rows in items:
            with naming(path, picture.file_name):
                for i, row in enumerate(rows):
                    labels.add(picture, *read_row(row, f"object {i}", picture, ranks, len(info.keypoints), task))
        parts.append(labels)
    origin = f"{text}: {' and '.join(f'{len(items)} items' for items in found)} of {info.count}"
    if len(parts) == 1:
        return replace(parts[0], origin=origin)
    return join(path, origin, {"train": parts[0], "val": parts[1]})


def _made(path: Path, function: str) -> Any:
    """What the function of the file returns."""
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    # Imported by its name, so that a worker process can do so too; what lies beside it can be imported as well.
    sys.path.insert(0, str(path.resolve().parent))
    importlib.invalidate_caches()
    with theirs():
        module = importlib.import_module(path.stem)
    if path.resolve() != Path(str(module.__file__)).resolve():
        raise DataError(f"{path}: has the same name as {module.__file__}, which is already in use; rename it")
    make = getattr(module, function, None)
    if not callable(make):
        raise DataError(f"{path}: has no function {function!r}")
    with theirs():
        return make()


def _items(path: Path, dataset: Any, kind: str, task: str) -> list[tuple[Picture, list[dict[str, Any]]]]:
    """Every picture with its objects, as annotations."""
    items = []
    for index in range(len(dataset)):
        name = f"{kind} {index}"
        with naming(path, name):
            picture, target = pair_of(dataset, index)
            source = Item(path, dataset, index, name, boxes_of(target, picture))
            items.append((Picture(index, name, *picture.size, None, source), _annotations(target, picture, task)))
    return items


def _annotations(target: Mapping[str, Any], picture: Image.Image, task: str) -> list[dict[str, Any]]:
    size = (picture.height, picture.width)
    labels, boxes, keypoints, masks, crowd = read_dict(target, "its dict", size, "ignore")
    corners = torch.cat([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, 2:]], 1)
    columns: dict[str, Sequence[Any]] = {"category_id": labels.tolist(), "bbox": corners.tolist()}
    columns["iscrowd"] = crowd.int().tolist()
    if task == "pose" and keypoints is not None:
        flags = keypoints[..., 2:] if keypoints.shape[2] == 3 else keypoints.new_full((*keypoints.shape[:2], 1), 2)
        columns["keypoints"] = torch.cat([keypoints[..., :2], flags.to(keypoints)], 2).flatten(1).tolist()
    if task == "segment":
        require(masks is not None or len(labels) == 0, "its dict lacks 'masks', which --task segment needs")
        runs = [] if masks is None else encode((masks > 0).cpu().numpy())
        columns["segmentation"] = [{"size": list(size), "counts": run["counts"]} for run in runs]
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _info(name: str, datasets: Sequence[Any], rows: list[dict[str, Any]], task: str) -> tuple[dict[Any, int], Info]:
    """The class of each label, and what is the same for all pictures."""
    names = _attribute(datasets[0], "classes")
    seen = sorted({row["category_id"] for row in rows})
    given = dict(enumerate(names)) if names else {label: str(label) for label in seen}
    kept = [label for label in given if given[label] != BACKGROUND]
    require(bool(kept), "no object is labelled in any of its items")
    info = Info(name, tuple(given[label] for label in kept))
    if task == "pose":
        count = max((len(row.get("keypoints", ())) for row in rows), default=0) // 3
        require(count > 0, "no item has 'keypoints', which --task pose needs")
        points = _attribute(datasets[0], "keypoints") or [str(k) for k in range(count)]
        require(len(points) == count, f"its data set's keypoints should be {count} names, as its items have", points)
        info = info.with_keypoints(points, ())
    return {label: rank for rank, label in enumerate(kept)}, info


def _attribute(dataset: Any, name: str) -> list[str]:
    """Names that a data set, or one that it is a part of, has as an attribute; none where it has not."""
    while dataset is not None:
        found = getattr(dataset, name, None)
        if isinstance(found, Sequence) and not isinstance(found, str):
            return [str(one) for one in found]
        dataset = getattr(dataset, "dataset", None)
    return []
