"""Folders of pictures with COCO's labels."""

from __future__ import annotations

from pathlib import Path

from demo.document import Document
from demo.formats.coco_file import read_file
from demo.labels import DataError


def read(root: Path, task: str) -> Document:
    """`labels.json`, and the pictures in `images/`."""
    path = root / "labels.json"
    if not path.is_file():
        raise DataError(f"{path}: missing; --data expects FOLDER/labels.json and FOLDER/images/")
    return read_file(path, task, root.resolve().name, lambda name: root / "images" / name)
