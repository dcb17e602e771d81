"""A small folder of pictures, and changes to its labels file."""

import json
from pathlib import Path

import numpy as np
from PIL import Image


def make_folder(place: Path) -> Path:
    """A COCO-style folder: 6 pictures of 96x64 in two splits, one object of every task in each."""
    root = place / "data"
    (root / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for i in range(6):
        name = f"{i}.png"
        Image.fromarray(rng.integers(0, 255, (64, 96, 3), dtype=np.uint8)).save(root / "images" / name)
        split = "val" if i >= 4 else "train"
        images.append({"id": i, "file_name": name, "width": 96, "height": 64, "split": split})
        annotations.append(
            {"id": i, "image_id": i, "category_id": 7, "bbox": [30, 10, 40, 30], "area": 1200, "iscrowd": 0}
            | {"keypoints": [35, 15, 2, 0, 0, 0], "num_keypoints": 1}
            | {"rbox": [50, 25, 40, 30, 0.3], "segmentation": [[30, 10, 70, 10, 70, 40, 30, 40]]}
        )
    categories = [{"id": 7, "name": "thing", "keypoints": ["front", "back"]}]
    labels = {"images": images, "annotations": annotations, "categories": categories}
    (root / "labels.json").write_text(json.dumps(labels))
    return root


def edit(folder, change):
    path = folder / "labels.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
