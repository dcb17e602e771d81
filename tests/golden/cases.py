"""The golden files as cases: inputs and what the oracle answered.

for case in load_cases("detect"): ...
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

FOLDER = Path(__file__).parent


class Case(NamedTuple):
    """One stored batch."""

    name: str  # family/case
    ties: bool  # whether the oracle's order among zero alignments shows in the answer
    num_classes: int
    reg_max: int
    num_keypoints: int  # 0 for detection
    keypoint_dims: int
    class_weights: list[float] | None
    size: tuple[int, int]  # height, width
    batch_size: int
    batch_idx: Tensor  # [N]
    labels: Tensor  # [N]
    target_boxes: Tensor  # [N, 4] normalised cxcywh
    target_keypoints: Tensor | None  # [N, K, 2 or 3]
    boxes: Tensor  # [B, 4*R, A]
    scores: Tensor  # [B, C, A]
    keypoints: Tensor | None  # [B, K*D, A]
    grid_sizes: tuple[tuple[int, int], ...]
    items: dict[str, float]  # box_loss, ...: detached, not times B
    vector: Tensor  # the loss terms times B, in the order of `items`
    gradients: dict[str, Tensor]  # of vector.sum(), by boxes, scores and keypoints
    positives: set[tuple[int, int, int]]  # image, anchor, row

    def __repr__(self) -> str:
        return self.name


def load_cases(family: str) -> list[Case]:
    """The cases of `detect` or `pose`."""
    with np.load(FOLDER / f"{family}.npz") as stored:
        arrays = dict(stored)
    names = dict.fromkeys(key.split("/")[0] for key in arrays if "/" in key)
    return [
        _case(family, name, {k.split("/")[1]: x for k, x in arrays.items() if k.startswith(f"{name}/")})
        for name in names
    ]


def _case(family: str, name: str, a: dict[str, np.ndarray]) -> Case:
    def tensor(key: str) -> Tensor | None:
        return torch.from_numpy(a[key].astype(np.float32)) if key in a else None

    num_keypoints, keypoint_dims = a["kpt_shape"].tolist() if "kpt_shape" in a else (0, 3)
    boxes, scores, target_boxes, vector = (tensor(key) for key in ("boxes", "scores", "target_boxes", "vector"))
    assert boxes is not None
    assert scores is not None
    assert target_boxes is not None
    assert vector is not None
    height, width = a["size"].tolist()
    return Case(
        name=f"{family}/{name}",
        ties=bool(a["ties"]),
        num_classes=scores.shape[1],
        reg_max=int(a["reg_max"]),
        num_keypoints=num_keypoints,
        keypoint_dims=keypoint_dims,
        class_weights=a["class_weights"].tolist() if "class_weights" in a else None,
        size=(height, width),
        batch_size=int(a["batch_size"]),
        batch_idx=torch.from_numpy(a["batch_idx"]),
        labels=torch.from_numpy(a["labels"]),
        target_boxes=target_boxes,
        target_keypoints=tensor("target_keypoints"),
        boxes=boxes,
        scores=scores,
        keypoints=tensor("keypoints"),
        grid_sizes=tuple((h, w) for h, w in a["grid_sizes"].tolist()),
        items=dict(zip(a["names"].tolist(), a["items"].tolist(), strict=True)),
        vector=vector,
        gradients={k.removeprefix("gradient_"): torch.from_numpy(x) for k, x in a.items() if k.startswith("gradient_")},
        positives={(image, anchor, row) for image, anchor, row in a["positives"].tolist()},
    )
