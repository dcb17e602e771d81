"""Labelled pictures of one's own: fitted into a square and padded.

In training they are also scaled, shifted, recoloured and, where there are no keypoints whose left and right would have
to be swapped, mirrored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from compiled_loss.data.reading import look_like_corners
from demo.document import Document, Row
from demo.formats.choice import read_labels
from demo.labels import DataError, Labels
from demo.placing import Placing
from demo.recent import Recent
from demo.rotated import hulls

PADDING_GREY = 114
CACHED_PICTURES = 512
# Of the classes that have no object, where there are many.
TOLD_CLASSES = 8


class Folder:
    """One split of a data set in a format that `formats.choice` knows.

    Args:
        data: the folder, or what else says where the labels are.
        split: "train" or "val".
        size: side of the square picture in pixels.
        task: "detect", or what to read beside boxes: "pose" keypoints, "obb" rotated boxes, "segment" outlines.
        seed: of the augmentation.
        document: the labels, where they have been read already.
    """

    def __init__(
        self,
        data: str | Path,
        split: str,
        size: int,
        task: str = "detect",
        seed: int = 0,
        document: Document | None = None,
    ):
        self.split, self.size, self.seed, self.task = split, size, seed, task
        self.document = read_labels(data, task) if document is None else document
        self.info = self.document.info
        splits = ("train", None) if split == "train" else (split,)
        self.pictures = [image for image in self.document.pictures if image.split in splits]
        if not self.pictures:
            raise DataError(f"{self.document.path}: no image has split {split!r}")
        self.augmented = split == "train"
        self.notes: Sequence[str]
        self.objects, self.notes = self._count()
        self._fitted = Recent(self._load, CACHED_PICTURES)

    def __len__(self) -> int:
        return len(self.pictures)

    def check(self) -> None:
        """Refuse what no run can use before it begins: a folder without an object, files that are no pictures."""
        if self.augmented and not self.objects:
            what = "an object" if self.task != "pose" else "an object with a labelled keypoint"
            hint = f" of a pixel or more at {self.size}x{self.size}"
            raise DataError(f"{self.document.path}: none of the {len(self)} training pictures has {what}{hint}")
        for image in self.pictures:
            image.source.check((image.width, image.height))

    def labels(self, index: int, epoch: int | None = None) -> Labels:
        return self._labels(index, epoch)[0]

    def sample(self, index: int, epoch: int | None = None) -> tuple[np.ndarray, Labels]:
        picture, (labels, rows) = self._fitted(index), self._labels(index, epoch)
        fitted, whole = self._placings(index, epoch)
        if self.task == "segment":
            index_map = whole.index_map([row.segmentation for row in rows], labels.boxes)
            labels = replace(labels, index_map=index_map)
        image = fitted.picture(picture, (PADDING_GREY,) * 3, Image.Resampling.BILINEAR)
        return (image if epoch is None else self._recolour(image, index, epoch)), labels

    def _labels(self, index: int, epoch: int | None) -> tuple[Labels, list[Row]]:
        """Labels without masks, and the annotations that they stand for."""
        placing, rows = self._placings(index, epoch)[1], self.document.rows[self.pictures[index].id]
        boxes = np.array([row.box for row in rows], dtype=float).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        boxes, keypoints, rotated = placing.boxes(boxes), None, None
        if self.task == "pose":
            shape = (len(rows), len(self.info.keypoints), 3)
            keypoints = placing.keypoints(np.array([row.keypoints for row in rows], dtype=float).reshape(shape))
        if self.task == "obb":
            rotated = placing.rotated(np.array([row.rotated for row in rows], dtype=float).reshape(-1, 5))
            boxes = hulls(rotated)
        kept = boxes.clip(0, self.size)
        labels = Labels(
            classes=np.array([row.label for row in rows], dtype=int),
            boxes=kept,
            areas=np.array([row.area for row in rows], dtype=float) * placing.scale**2,
            crowd=np.array([row.crowd for row in rows], dtype=bool),
            keypoints=keypoints,
            rotated=rotated,
        )
        sides, full = kept[:, 2:] - kept[:, :2], (boxes[:, 2:] - boxes[:, :2]).prod(1)
        # What augmentation has cut down to a sliver cannot be recognised any more.
        chosen = (sides.min(1, initial=np.inf) >= 1) & (sides.prod(1) >= 0.25 * full)
        return labels.take(chosen), [row for row, wanted in zip(rows, chosen, strict=True) if wanted]

    def _placings(self, index: int, epoch: int | None) -> tuple[Placing, Placing]:
        """Of the fitted picture, and of the picture as it is in the file."""
        image = self.pictures[index]
        longest = max(image.width, image.height)
        margin = self.size - self.size * np.array([image.width, image.height]) / longest
        scale, shift, mirrored = 1.0, margin / 2, False
        if epoch is not None:
            rng = np.random.default_rng([self.seed, 1, epoch, index])
            scale = rng.uniform(0.7, 1.25)
            shift = (self.size - scale * (self.size - margin)) * rng.uniform(0, 1, 2)
            mirrored = self.task != "pose" and rng.random() < 0.5
        fitted = Placing(self.size, scale, shift, mirrored)
        return fitted, fitted._replace(scale=scale * self.size / longest)

    def _recolour(self, image: np.ndarray, index: int, epoch: int) -> np.ndarray:
        rng = np.random.default_rng([self.seed, 2, epoch, index])
        gain = rng.uniform(0.75, 1.25) * rng.uniform(0.92, 1.08, 3)
        return (image * gain + rng.uniform(-20, 20)).clip(0, 255).astype(np.uint8)

    def _load(self, index: int) -> Image.Image:
        """The picture, its longest side `size`."""
        image = self.pictures[index]
        picture = image.source.read((image.width, image.height))
        fit = self.size / max(picture.size)
        width, height = (max(1, round(side * fit)) for side in picture.size)
        return picture.resize((width, height), Image.Resampling.BOX)

    def _count(self) -> tuple[int, list[str]]:
        """How many objects there are to learn or to find, and what was left out or looks wrong."""
        reasons = sum((self.document.left_out[image.id] for image in self.pictures), Counter())
        objects, boxes, classes = 0, [], set()
        for image in self.pictures:
            for row in self.document.rows[image.id]:
                small = min(row.box[2:]) * self.size < max(image.width, image.height)
                if row.crowd:
                    reasons["crowd regions (not learned, and not counted as missed)"] += 1
                elif small:
                    reasons[f"smaller than a pixel at {self.size}x{self.size}"] += 1
                else:
                    objects += row.keypoints is None or any(flag for *_, flag in row.keypoints)
                    classes.add(row.label)
                boxes.append([x / side for x, side in zip(row.box, (image.width, image.height) * 2, strict=True)])
        told = ", ".join(f"{count} {reason}" for reason, count in reasons.items() if count)
        notes = [f"{self.split}: annotations left out: {told}"] if told else []
        if not objects:
            notes.append(f"{self.split}: no object is labelled in any of the {len(self)} pictures")
        without = [name for k, name in enumerate(self.info.classes) if k not in classes]
        if self.augmented and objects and without:
            several = ", ".join(without[:TOLD_CLASSES]) + (", ..." if len(without) > TOLD_CLASSES else "")
            notes.append(f"{self.split}: no object of {len(without)} of {len(self.info.classes)} classes: {several}")
        given = torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4)
        read, first = ("[x, y, width, height]", given[:, :2])
        centred = torch.cat([given[:, :2] + given[:, 2:] / 2, given[:, 2:]], dim=1)
        if self.document.centred:
            read, first = "[centre x, centre y, width, height]", centred[:, :2]
        if self.task != "obb" and look_like_corners(first, centred):
            form = f"are they [x1, y1, x2, y2]? They are read as {read}"
            notes.append(f"{self.split}: many boxes reach beyond their picture: {form}")
        return objects, notes
