"""Labels in one form, whatever they came from: pictures, and the objects of each in numbers that were checked."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from demo.labels import DataError, Info


class Source(Protocol):
    """Where the pixels of a picture are; `size` is the width and height that its labels say."""

    def check(self, size: tuple[int, int]) -> None:
        """DataError for what `read` refuses, as far as a quick look tells."""
        ...

    def read(self, size: tuple[int, int]) -> Image.Image:
        """The picture in RGB."""
        ...


@dataclass(frozen=True)
class Picture:
    """A picture: its name, its size in pixels, the split that its labels say it belongs to, if any, and its pixels."""

    id: Any
    file_name: str
    width: int
    height: int
    split: str | None
    source: Source


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
    """The labels of a data set.

    Args:
        path: of the file, or of the folder with several.
        origin: what was read, in words.
        info: classes, and for poses keypoints.
        pictures: in the order of the files.
        rows: the objects of each picture, by its id.
        left_out: how many annotations were left out of a picture, by its id and the reason.
        notes: what somebody should know of it.
        centred: whether boxes were given by their centre, not by their corner.
    """

    path: Path
    origin: str
    info: Info
    pictures: list[Picture]
    rows: defaultdict[Any, list[Row]] = field(default_factory=lambda: defaultdict(list))
    left_out: defaultdict[Any, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    notes: list[str] = field(default_factory=list)
    centred: bool = False

    def add(self, picture: Picture, row: Row, reason: str = "") -> None:
        """An object of a picture, or one that is left out for a reason."""
        if reason:
            self.left_out[picture.id][reason] += 1
        else:
            self.rows[picture.id].append(row)


def join(path: Path, origin: str, parts: Mapping[str, Document]) -> Document:
    """The documents of several splits as one.

    Raises:
        DataError: where they do not have the same classes and keypoints.
    """
    first, *others = parts.values()
    for other in others:
        if (other.info.classes, other.info.keypoints) != (first.info.classes, first.info.keypoints):
            raise DataError(f"{other.path}: its categories differ from those of {first.path}")
    whole = replace(first, path=path, origin=origin, pictures=[], rows=defaultdict(list), notes=[])
    whole = replace(whole, left_out=defaultdict(Counter))
    for split, part in parts.items():
        whole.notes.extend(part.notes)
        for picture in part.pictures:
            # Files count their pictures each from 0.
            one = replace(picture, id=(split, picture.id), split=split)
            whole.pictures.append(one)
            whole.rows[one.id] = part.rows[picture.id]
            whole.left_out[one.id] = part.left_out[picture.id]
    return whole
