"""Data sets as YOLO trainers read them: a `data.yaml`, pictures, and beside each a text file with a line an object.

Letters: K keypoints, D numbers of each.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from demo import pictures
from demo.annotations import read_row
from demo.document import Document, Picture
from demo.formats.yaml_subset import read as read_yaml
from demo.formats.yolo_lines import annotation
from demo.labels import COCO_NAMES, DataError, Info

KEYS = ("path", "train", "val", "nc", "names", "kpt_shape", "kpt_names", "test")


class Setup(NamedTuple):
    """What a `data.yaml` says: the folder that its paths are in, pictures by split, names, and (K, D) of keypoints."""

    root: Path
    places: dict[str, list[Path]]
    info: Info
    keypoints: tuple[int, int] | None
    notes: list[str]


def read(path: Path, task: str) -> Document:
    """The labels of a task; DataError naming the file and the line at fault."""
    try:
        setup = _setup(path, task)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except DataError:
        raise
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error
    files = {split: _files(places, setup.root) for split, places in setup.places.items()}
    told = ", ".join(f"{len(found)} pictures in {_told(setup, split)}" for split, found in files.items())
    labels = Document(path, "", setup.info, [], notes=setup.notes, centred=True)
    outlines = 0
    for split, found in files.items():
        if not found:
            raise DataError(f"{path}: {split}: no pictures in {_told(setup, split)}")
        with_labels = [file for file in found if label_file(file).is_file()]
        if split == "train" and not with_labels:
            raise DataError(
                f"{path}: no picture of {split!r} has labels; {label_file(found[0])} would be those of {found[0]}"
            )
        if len(with_labels) < len(found):
            labels.notes.append(
                f"{split}: {len(found) - len(with_labels)} pictures have no text file: nothing is on them"
            )
        labels.notes.extend(_without_picture(split, setup.places[split], found))
        for file in found:
            name = str(file.relative_to(setup.root)) if file.is_relative_to(setup.root) else str(file)
            one = Picture(
                (split, name), name, *pictures.size_of(file), None if len(files) == 1 else split, pictures.File(file)
            )
            labels.pictures.append(one)
            outlines += _read_lines(labels, one, label_file(file), task, setup)
    if outlines:
        labels.notes.append(f"{outlines} outlines are taken for the boxes around them")
    count = sum(len(rows) for rows in labels.rows.values())
    return replace(labels, origin=f"YOLO, {path.name}: {told}; {count} objects of {setup.info.count}")


def label_file(picture: Path) -> Path:
    """The text file of a picture: in `labels/` for the last `images/` on its way, or else beside it."""
    parts = list(picture.parts)
    if "images" in parts[:-1]:
        parts[len(parts) - 2 - parts[-2::-1].index("images")] = "labels"
    return Path(*parts).with_suffix(".txt")


def _read_lines(labels: Document, picture: Picture, path: Path, task: str, setup: Setup) -> int:
    """Adds the objects of a picture; how many of them had an outline where boxes are read."""
    if not path.is_file():
        return 0
    outlines = 0
    ranks = {i: i for i in range(len(setup.info.classes))}
    try:
        for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
            if not line.strip():
                continue
            where = f"line {number}"
            one, outlined = annotation(line, where, picture, task, len(ranks), setup.keypoints)
            outlines += outlined
            labels.add(picture, *read_row(one, where, picture, ranks, len(setup.info.keypoints), task))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error
    return outlines


def _setup(path: Path, task: str) -> Setup:
    given = read_yaml(path.read_text(encoding="utf-8-sig"), KEYS)
    root, notes = _root(path, given.get("path")), []
    places = {split: _places(root, path.parent, split, given[split]) for split in ("train", "val") if given.get(split)}
    if "train" not in places:
        raise ValueError("expected a key 'train': a folder of pictures, a file that lists them, or several of these")
    if given.get("test"):
        notes.append("the pictures of 'test' are not used")
    name = path.resolve().parent.name if path.stem in ("data", "dataset") else path.stem
    info, keypoints = Info(name, _classes(given)), None
    if given.get("kpt_shape") is not None:
        count, size = keypoints = _keypoint_shape(given["kpt_shape"])
        if task == "pose":
            names = _keypoint_names(given.get("kpt_names"), count)
            if names is None and (count, size, info.classes) == (len(COCO_NAMES), 3, ("person",)):
                names = COCO_NAMES
                notes.append("the 17 keypoints of a person are taken for COCO's")
            info = info.with_keypoints(names or [str(k) for k in range(count)], ())
    elif task == "pose":
        raise ValueError("--task pose needs a key 'kpt_shape', such as [17, 3]")
    return Setup(root, places, info, keypoints, notes)


def _root(path: Path, given: Any) -> Path:
    """The folder of the paths: `path`, from where the file is; that folder itself where nothing is said."""
    if given is None:
        return path.parent
    if not isinstance(given, str):
        raise ValueError(f"path: expected a folder, got {given!r:.80}")
    root = path.parent / given
    if not root.is_dir():
        raise ValueError(f"path: there is no folder {root}")
    return root


def _places(root: Path, beside: Path, split: str, given: Any) -> list[Path]:
    names = given if isinstance(given, list) else [given]
    places = []
    for name in names:
        if not isinstance(name, str):
            raise ValueError(f"{split}: expected a folder, a file that lists pictures, or several, got {name!r:.80}")
        # Exports of labelling tools say ../train/images for what lies beside the file.
        tried = [root / name, beside / name, *([root / name[3:]] if name.startswith("../") else [])]
        found = next((place for place in tried if place.exists()), None)
        if found is None:
            raise ValueError(f"{split}: there is no {tried[0]}")
        places.append(found)
    return places


def _files(places: list[Path], root: Path) -> list[Path]:
    """The pictures of folders, and of files that list them, each once and in order."""
    found: dict[Path, None] = {}
    for place in places:
        if place.is_dir():
            fitting = sorted(p for p in place.rglob("*") if p.suffix.lower() in pictures.SUFFIXES)
        else:
            try:
                lines = [line.strip() for line in place.read_text(encoding="utf-8-sig").splitlines()]
            except (OSError, ValueError) as error:
                raise DataError(f"{place}: not a readable list of pictures ({error})") from error
            # By the list's own folder, or else by that of the data set.
            beside = [place.parent / line for line in lines if line]
            fitting = [file if file.exists() else root / file.relative_to(place.parent) for file in beside]
        found |= dict.fromkeys(fitting)
    return list(found)


def _without_picture(split: str, places: list[Path], found: list[Path]) -> list[str]:
    """A note of text files that no picture goes with, in the folders of labels."""
    taken = {label_file(file) for file in found}
    folders = {label_file(place / "x").parent for place in places if place.is_dir()}
    others = sorted(
        path.name
        for folder in folders
        for path in folder.rglob("*.txt")
        if path not in taken and path.stem != "classes"
    )
    return [f"{split}: {len(others)} text files have no picture, {others[0]} first"] if others else []


def _told(setup: Setup, split: str) -> str:
    return ", ".join(
        str(place.relative_to(setup.root)) if place.is_relative_to(setup.root) else str(place)
        for place in setup.places[split]
    )


def _classes(given: dict[str, Any]) -> tuple[str, ...]:
    names, count = given.get("names"), given.get("nc")
    if count is not None and not (isinstance(count, str) and count.isdecimal() and int(count) > 0):
        raise ValueError(f"nc: expected how many classes there are, got {count!r:.80}")
    if names is None and count is not None:
        names = [str(i) for i in range(int(count))]
    names = _in_order(names, "names")
    if not names:
        raise ValueError("expected a key 'names' with a name for every class")
    if count is not None and int(count) != len(names):
        raise ValueError(f"nc says {count} classes, names has {len(names)}")
    often = Counter(names)
    return tuple(f"{name} ({i})" if often[name] > 1 else name for i, name in enumerate(names))


def _in_order(names: Any, key: str) -> list[str]:
    """Names from a list, or from a dict by number."""
    if isinstance(names, dict):
        if sorted(names) != sorted(str(i) for i in range(len(names))):
            raise ValueError(
                f"{key}: expected the numbers 0 to {len(names) - 1}, got {', '.join(map(str, names))[:80]}"
            )
        names = [names[str(i)] for i in range(len(names))]
    texts = isinstance(names, list) and all(isinstance(name, str) for name in names)
    if names is not None and not texts:
        raise ValueError(f"{key}: expected a list of names, or names by number, got {names!r:.80}")
    return names or []


def _keypoint_shape(given: Any) -> tuple[int, int]:
    fits = isinstance(given, list) and len(given) == 2 and all(isinstance(x, str) and x.isdecimal() for x in given)
    if not fits or int(given[0]) < 1 or int(given[1]) not in (2, 3):
        raise ValueError(f"kpt_shape: expected [K, 2] or [K, 3], got {given!r:.80}")
    return int(given[0]), int(given[1])


def _keypoint_names(given: Any, count: int) -> list[str] | None:
    """A list of names, or one by class: those of the first."""
    if isinstance(given, dict) and any(isinstance(value, list) for value in given.values()):
        if any(value != given[next(iter(given))] for value in given.values()):
            raise ValueError("kpt_names: --task pose needs the same names for every class")
        given = next(iter(given.values()))
    names = _in_order(given, "kpt_names")
    if names and len(names) != count:
        raise ValueError(f"kpt_names: expected {count} as kpt_shape says, got {len(names)}")
    return names or None
