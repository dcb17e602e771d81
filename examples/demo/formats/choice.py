"""Which format labels are in."""

from __future__ import annotations

from pathlib import Path

from demo.document import Document
from demo.formats import coco
from demo.formats.coco_file import read_file
from demo.labels import DataError


def read_labels(data: str | Path, task: str) -> Document:
    """The labels of a data set for a task; DataError naming the file at fault."""
    root = Path(data)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    return coco.read(root, task)


def read_held_out(path: Path, data: str | Path, task: str) -> Document:
    """A second file of labels, in COCO's style, whose pictures are where those of the data set's own file are."""
    root = Path(data)
    return read_file(path, task, root.resolve().name, lambda name: root / "images" / name)
