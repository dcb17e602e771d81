"""Which pictures of a folder are held out: a `split` on each image says so, or a share of them is, or a second file."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from demo.document import Document, Picture, read_document
from demo.folder import Folder, read_labels
from demo.labels import DataError

# Held out of a folder whose images have no `split`, where nothing else is asked for.
VAL_FRACTION = 0.2


def training_and_held_out(
    root: str | Path, size: int, task: str, seed: int, val_fraction: float, val_labels: str
) -> tuple[Folder, Folder]:
    """Both splits of a folder, checked.

    Args:
        root: the folder.
        size: side of the square picture in pixels.
        task: what to read beside boxes, as in `Folder`.
        seed: of the augmentation.
        val_fraction: share of the pictures that is held out, where they have no `split`; 0 for the usual one.
        val_labels: a second labels file, whose pictures are held out; "" for none.
    """
    labels = read_labels(Path(root), task)
    splits = Counter(image.split for image in labels.pictures)
    if (val_fraction or val_labels) and set(splits) != {None}:
        option = "--val-labels" if val_labels else "--val-fraction"
        raise DataError(f"{labels.path}: {option} is for images without a 'split', these have one")
    held_out, notes = labels, []
    if val_labels:
        held_out = read_document(Path(val_labels), task)
        if held_out.info.classes != labels.info.classes or held_out.info.keypoints != labels.info.keypoints:
            raise DataError(f"{val_labels}: its categories are not those of {labels.path}")
        held_out = _with_splits(held_out, lambda image: "val")
        both = {image.file_name for image in labels.pictures} & {image.file_name for image in held_out.pictures}
        notes += [f"{len(both)} pictures are for training and held out too, {min(both)} first"] if both else []
    elif set(splits) == {None}:
        # By name, so that the same pictures are held out in every run, and most of them when others are added.
        order = sorted(labels.pictures, key=lambda image: zlib.crc32(image.file_name.encode(errors="replace")))
        count = min(max(1, round((val_fraction or VAL_FRACTION) * len(order))), len(order) - 1)
        chosen = {image.id for image in order[:count]}
        held_out = labels = _with_splits(labels, lambda image: "val" if image.id in chosen else "train")
        notes.append(
            f"no image has a 'split': {len(chosen)} of {len(order)} pictures are held out, chosen by their file names "
            "(--val-fraction, --val-labels)"
        )
    others = {name: count for name, count in splits.items() if name not in (None, "train", "val")}
    notes += [f"{count} pictures of split {name!r} are not used" for name, count in others.items()]
    train = Folder(root, "train", size, task, seed, labels)
    val = Folder(root, "val", size, task, seed, held_out)
    for data in (train, val):
        data.check()
    train.notes = [*notes, *train.notes]
    return train, val


def _with_splits(labels: Document, split: Callable[[Picture], str]) -> Document:
    return replace(labels, pictures=[replace(image, split=split(image)) for image in labels.pictures])
