"""Pictures of a folder: `FOLDER/images/` and a COCO-style `FOLDER/labels.json` with a `split` on each image.

Pictures are fitted into a square and padded; in training they are also scaled, shifted, recoloured and, where there
are no keypoints whose left and right would have to be swapped, mirrored.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from demo.labels import COCO_NAMES, COCO_SIGMAS, DataError, Info, Labels
from demo.placing import Placing
from demo.rotated import hulls

PADDING_GREY = 114
CACHED_PICTURES = 512


class Folder:
    """One split of a folder; category ids may be any integers, classes are their rank.

    Args:
        root: the folder.
        split: "train" or "val".
        size: side of the square picture in pixels.
        task: "detect", or what to read beside boxes: "pose" `keypoints`, "obb" `rbox` (centre x, y, width, height and
            angle in radians, pixels), "segment" `segmentation` (polygons or run lengths).
        seed: of the augmentation.
    """

    def __init__(self, root: str | Path, split: str, size: int, task: str = "detect", seed: int = 0):
        self.root, self.size, self.seed, self.task = Path(root), size, seed, task
        document = _read(self.root / "labels.json")
        self.info = _info(self.root, document["categories"], task == "pose")
        self.images = [image for image in document["images"] if image.get("split", "train") == split]
        if not self.images:
            raise DataError(f"{self.root / 'labels.json'}: no image has split {split!r}")
        self._rank = {c["id"]: i for i, c in enumerate(sorted(document["categories"], key=lambda c: c["id"]))}
        self._rows: dict[Any, list[dict]] = {image["id"]: [] for image in document["images"]}
        for annotation in document["annotations"]:
            self._check(annotation)
            self._rows[annotation["image_id"]].append(annotation)
        self.augmented = split == "train"
        self._fitted = lru_cache(CACHED_PICTURES)(self._load)

    def __len__(self) -> int:
        return len(self.images)

    def labels(self, index: int, epoch: int | None = None) -> Labels:
        return self._labels(index, epoch)[0]

    def sample(self, index: int, epoch: int | None = None) -> tuple[np.ndarray, Labels]:
        picture, (labels, rows) = self._fitted(index), self._labels(index, epoch)
        fitted, whole = self._placings(index, epoch)
        if self.task == "segment":
            index_map = whole.index_map([row["segmentation"] for row in rows], labels.boxes)
            labels = replace(labels, index_map=index_map)
        image = fitted.picture(picture, (PADDING_GREY,) * 3, Image.Resampling.BILINEAR)
        return (image if epoch is None else self._recolour(image, index, epoch)), labels

    def _labels(self, index: int, epoch: int | None) -> tuple[Labels, list[dict]]:
        """Labels without masks, and the annotations that they stand for."""
        placing, rows = self._placings(index, epoch)[1], self._rows[self.images[index]["id"]]
        boxes = np.array([r["bbox"] for r in rows], dtype=float).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        boxes, keypoints, rotated = placing.boxes(boxes), None, None
        if self.task == "pose":
            shape = (len(rows), len(self.info.keypoints), 3)
            keypoints = placing.keypoints(np.array([r["keypoints"] for r in rows], dtype=float).reshape(shape))
        if self.task == "obb":
            rotated = placing.rotated(np.array([r["rbox"] for r in rows], dtype=float).reshape(-1, 5))
            boxes = hulls(rotated)
        kept = boxes.clip(0, self.size)
        areas = np.array([r.get("area", r["bbox"][2] * r["bbox"][3]) for r in rows], dtype=float)
        labels = Labels(
            classes=np.array([self._rank[r["category_id"]] for r in rows], dtype=int),
            boxes=kept,
            areas=areas * placing.scale**2,
            crowd=np.array([r.get("iscrowd", 0) == 1 for r in rows], dtype=bool),
            keypoints=keypoints,
            rotated=rotated,
        )
        sides, full = kept[:, 2:] - kept[:, :2], (boxes[:, 2:] - boxes[:, :2]).prod(1)
        # What augmentation has cut down to a sliver cannot be recognised any more.
        chosen = (sides.min(1, initial=np.inf) >= 1) & (sides.prod(1) >= 0.25 * full)
        return labels.take(chosen), [row for row, wanted in zip(rows, chosen, strict=True) if wanted]

    def _placings(self, index: int, epoch: int | None) -> tuple[Placing, Placing]:
        """Of the fitted picture, and of the picture as it is in the file."""
        image = self.images[index]
        longest = max(image["width"], image["height"])
        margin = self.size - self.size * np.array([image["width"], image["height"]]) / longest
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
        image = self.images[index]
        path = self.root / "images" / image["file_name"]
        try:
            with Image.open(path) as opened:
                picture = opened.convert("RGB")
        except FileNotFoundError:
            raise DataError(f"{path}: no such picture, though labels.json lists it") from None
        except (UnidentifiedImageError, OSError, SyntaxError) as error:
            raise DataError(f"{path}: not a readable picture ({error})") from error
        if picture.size != (image["width"], image["height"]):
            listed = f"{image['width']}x{image['height']}"
            raise DataError(f"{path}: is {picture.width}x{picture.height}, labels.json says {listed}")
        fit = self.size / max(picture.size)
        return picture.resize((round(picture.width * fit), round(picture.height * fit)), Image.Resampling.BOX)

    def _check(self, row: dict) -> None:
        where = f"{self.root / 'labels.json'}: annotation {row.get('id', '?')}"
        if row.get("image_id") not in self._rows:
            raise DataError(f"{where}: image_id {row.get('image_id')!r} is not among the images")
        if row.get("category_id") not in self._rank:
            raise DataError(f"{where}: category_id {row.get('category_id')!r} is not among the categories")
        box = row.get("bbox")
        if not isinstance(box, list) or len(box) != 4 or not np.isfinite(box).all() or min(box[2:]) <= 0:
            raise DataError(f"{where}: bbox should be [x, y, width, height] with positive sides, got {box}")
        values = 3 * len(self.info.keypoints)
        if self.task == "pose" and len(row.get("keypoints", ())) != values:
            raise DataError(f"{where}: expected {values} keypoint values, got {len(row.get('keypoints', ()))}")
        if self.task == "obb":
            box = row.get("rbox")
            if not isinstance(box, list) or len(box) != 5 or not np.isfinite(box).all() or min(box[2:4]) <= 0:
                raise DataError(f"{where}: rbox should be [x, y, width, height, angle] with positive sides, got {box}")
        if self.task == "segment" and not _is_segmentation(row.get("segmentation")):
            raise DataError(f"{where}: segmentation should be polygons or run lengths")


def _read(path: Path) -> dict:
    if not path.parent.is_dir():
        raise DataError(f"{path.parent}: no such folder")
    if not path.is_file():
        raise DataError(f"{path}: missing; --data expects FOLDER/labels.json and FOLDER/images/")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not valid JSON ({error})") from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(document, dict) or not isinstance(document.get(key), list):
            raise DataError(f"{path}: expected a list {key!r}, as in COCO")
    for image in document["images"]:
        missing = {"id", "file_name", "width", "height"} - set(image)
        if missing:
            raise DataError(f"{path}: image {image.get('id', '?')} lacks {', '.join(sorted(missing))}")
    if not document["categories"]:
        raise DataError(f"{path}: no categories")
    return document


def _is_segmentation(outline: Any) -> bool:
    if isinstance(outline, dict):
        return {"size", "counts"} <= set(outline)
    polygons = outline if isinstance(outline, list) else []
    return bool(polygons) and all(isinstance(p, list) and len(p) >= 6 and len(p) % 2 == 0 for p in polygons)


def _info(root: Path, categories: list[dict], keypoints: bool) -> Info:
    categories = sorted(categories, key=lambda c: c["id"])
    classes = tuple(str(c.get("name", c["id"])) for c in categories)
    if not keypoints:
        return Info(root.name, classes)
    names = tuple(categories[0].get("keypoints", ()))
    if not names or any(tuple(c.get("keypoints", ())) != names for c in categories):
        raise DataError(f"{root / 'labels.json'}: --task pose needs the same list 'keypoints' in every category")
    limbs = tuple((a - 1, b - 1) for a, b in categories[0].get("skeleton", ()))
    sigmas = COCO_SIGMAS if names == COCO_NAMES else np.full(len(names), 1 / len(names))
    return Info(root.name, classes, names, limbs, tuple(sigmas.tolist()))
