"""Which format labels are in."""

from __future__ import annotations

from pathlib import Path

from demo.document import Document
from demo.formats import coco, given, yolo
from demo.formats.coco_file import read_file
from demo.labels import DataError

# What `--data` may be, for --help and for errors.
KINDS = (
    "a folder with labels.json (COCO's form; an image may say its 'split') and images/",
    "a folder with annotations/instances_train*.json and instances_val*.json, as COCO ships it",
    "a folder with train/_annotations.coco.json and valid/_annotations.coco.json, as Roboflow exports it",
    "a data.yaml or its folder, with YOLO's text files: boxes, keypoints, corners or outlines",
    "FILE.py:function, which returns a data set of (image, dict) pairs, or two, as torchvision's models take them",
)


def read_labels(data: str | Path, task: str) -> Document:
    """The labels of a data set for a task; DataError naming the file at fault."""
    root, text = Path(data), str(data)
    if not root.exists() and text.rpartition(":")[0].endswith(".py"):
        return given.read(text, task)
    if root.suffix in (".yaml", ".yml") and root.is_file():
        return yolo.read(root, task)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    labels = coco.read(root, task)
    if labels is not None:
        return labels
    described = sorted(path for path in root.iterdir() if path.suffix in (".yaml", ".yml"))
    described = [path for path in described if path.stem == "data"] or described
    if len(described) > 1:
        raise DataError(f"{root}: has {' and '.join(path.name for path in described)}; give one of them as --data")
    if described:
        return yolo.read(described[0], task)
    raise DataError(f"{root}: holds no labels that are read here; --data takes\n  " + "\n  ".join(KINDS))


def read_held_out(path: Path, data: str | Path, task: str) -> Document:
    """A second file of labels, in COCO's form, whose pictures are where those of FOLDER/labels.json are."""
    root = Path(data)
    return read_file(path, task, root.resolve().name, lambda name: root / "images" / name)
