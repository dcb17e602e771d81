"""Which pictures of a folder are held out: a `split` on each image says so, or a share of them is, or a second file."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from demo.document import Document, Picture, join
from demo.folder import Folder
from demo.formats.choice import read_held_out, read_labels
from demo.labels import DataError

# Held out where no image has a `split` and nothing else is asked for.
VAL_FRACTION = 0.2


def training_and_held_out(
    data: str | Path, size: int, task: str, seed: int, val_fraction: float, val_labels: str
) -> tuple[Folder, Folder]:
    """Both splits of a data set, checked.

    Args:
        data: the folder, or what else says where the labels are.
        size: side of the square picture in pixels.
        task: what to read beside boxes, as in `Folder`.
        seed: of the augmentation.
        val_fraction: share of the pictures that is held out, where they have no `split`; 0 for the usual one.
        val_labels: a second labels file, whose pictures are held out; "" for none.
    """
    labels = read_labels(data, task)
    splits = Counter(image.split for image in labels.pictures)
    if (val_fraction or val_labels) and set(splits) != {None}:
        option = "--val-labels" if val_labels else "--val-fraction"
        raise DataError(f"{labels.path}: {option} is for images without a 'split', these have one")
    notes = []
    if val_labels and labels.path.name != "labels.json":
        raise DataError(f"{data}: --val-labels is for FOLDER/labels.json, whose pictures lie where those of FILE do")
    if val_labels:
        held_out = read_held_out(Path(val_labels), data, task)
        labels = join(labels.path, f"{labels.origin}; held out {held_out.origin}", {"train": labels, "val": held_out})
    elif set(splits) == {None}:
        # By name, so that the same pictures are held out in every run, and most of them when others are added.
        order = sorted(labels.pictures, key=lambda image: zlib.crc32(image.file_name.encode(errors="replace")))
        count = min(max(1, round((val_fraction or VAL_FRACTION) * len(order))), len(order) - 1)
        chosen = {image.id for image in order[:count]}
        labels = _with_splits(labels, lambda image: "val" if image.id in chosen else "train")
        notes.append(
            f"no image has a 'split': {len(chosen)} of {len(order)} pictures are held out, chosen by their file names "
            "(--val-fraction, --val-labels)"
        )
    sources = {name: {p.source: p.file_name for p in labels.pictures if p.split == name} for name in ("train", "val")}
    both = sources["train"].keys() & sources["val"].keys()
    if both:
        first = min(sources["train"][source] for source in both)
        notes.append(f"{len(both)} pictures are for training and held out too, {first} first")
    others = {name: count for name, count in splits.items() if name not in (None, "train", "val")}
    notes += [f"{count} pictures of split {name!r} are not used" for name, count in others.items()]
    train, val = (Folder(data, split, size, task, seed, labels) for split in ("train", "val"))
    for one in (train, val):
        one.check()
    train.notes = [*labels.notes, *notes, *train.notes]
    return train, val


def _with_splits(labels: Document, split: Callable[[Picture], str]) -> Document:
    return replace(labels, pictures=[replace(image, split=split(image)) for image in labels.pictures])
