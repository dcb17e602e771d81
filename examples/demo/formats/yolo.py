"""Data sets as YOLO trainers read them: a `data.yaml`, pictures, and beside each a text file with a line an object."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from demo import pictures
from demo.annotations import read_row
from demo.document import Document, Picture
from demo.formats.data_file import Setup, read_setup
from demo.formats.yolo_lines import annotation
from demo.labels import DataError


def read(path: Path, task: str) -> Document:
    """The labels of a task; DataError naming the file and the line at fault."""
    setup = read_setup(path, task)
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
                f"{split}: {len(found) - len(with_labels)} pictures have no text file, so they have no objects"
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
        labels.notes.append(f"{outlines} outlines are read as the boxes around them")
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
    if not path.exists() and not path.is_symlink():
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
        for path in folder.rglob("*")
        if path.suffix.lower() == ".txt" and path not in taken and path.stem != "classes"
    )
    return [f"{split}: {len(others)} text files have no picture, {others[0]} first"] if others else []


def _told(setup: Setup, split: str) -> str:
    return ", ".join(
        str(place.relative_to(setup.root)) if place.is_relative_to(setup.root) else str(place)
        for place in setup.places[split]
    )
