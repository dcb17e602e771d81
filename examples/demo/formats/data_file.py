"""The `data.yaml` of a YOLO data set: where its pictures are, and what its classes and keypoints are called.

Letters: K keypoints, D numbers of each.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from demo.formats import yaml_subset
from demo.labels import COCO_NAMES, DataError, Info

KEYS = ("path", "train", "val", "nc", "names", "kpt_shape", "kpt_names", "test")


class Setup(NamedTuple):
    """What a `data.yaml` says: the folder that its paths are in, pictures by split, names, and (K, D) of keypoints."""

    root: Path
    places: dict[str, list[Path]]
    info: Info
    keypoints: tuple[int, int] | None
    notes: list[str]


def read_setup(path: Path, task: str) -> Setup:
    """What the file says of a task; DataError naming the file and what is wrong with it."""
    try:
        return _setup(path, yaml_subset.read(path.read_text(encoding="utf-8-sig"), KEYS), task)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error


def _setup(path: Path, given: dict[str, Any], task: str) -> Setup:
    root, notes = _root(path, given.get("path")), []
    places = {split: _places(root, path.parent, split, given[split]) for split in ("train", "val") if given.get(split)}
    if "train" not in places:
        raise ValueError("expected a key 'train': a folder of pictures, a file that lists them, or a list of these")
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
                notes.append("the 17 keypoints of a person are read as COCO's")
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
