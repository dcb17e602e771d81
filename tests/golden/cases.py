"""The golden files as cases: inputs and what the oracle answered.

for case in load_cases("detect"): ...
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from compiled_loss.exporting.corpus.golden import FOLDER
from tests.reference.batches import Batch, Raw
from tests.reference.end_to_end import BRANCHES, Pair, branches_of

# Head maps that a case may hold.
MAPS = [name for name in Raw._fields if name != "grid_sizes"]


class Case(NamedTuple):
    """One stored batch."""

    name: str  # family/case
    ties: bool  # whether the oracle's order among zero alignments shows in the answer
    reg_max: int
    num_keypoints: int  # 0 without keypoints
    keypoint_dims: int
    class_weights: list[float] | None
    mask_overlap: bool  # whether the assigner sees masks
    shares: tuple[float, float] | None  # weights of the two branches
    batch: Batch
    raw: Raw | Pair
    items: dict[str, float]  # box_loss, ...: detached, not times B
    vector: Tensor  # the loss terms times B, in the order of `items`
    gradients: dict[str, Tensor]  # of vector.sum(), by the names of the maps
    positives: set[tuple[int, int, int]]  # image, anchor, row; images of the one-to-one branch count on from B

    def __repr__(self) -> str:
        return self.name

    @property
    def num_classes(self) -> int:
        return next(raw for _, raw in branches_of(self.raw)).scores.shape[1]

    @property
    def leaves(self) -> dict[str, Tensor]:
        """Fresh copies of the maps that collect gradients."""
        return {
            prefix + name: getattr(raw, name).clone().requires_grad_()
            for prefix, raw in branches_of(self.raw)
            for name in MAPS
            if getattr(raw, name) is not None
        }


def load_cases(family: str) -> list[Case]:
    """The cases of one of `golden.FAMILIES`."""
    with np.load(FOLDER / f"{family}.npz") as stored:
        arrays = dict(stored)
    names = dict.fromkeys(key.split("/")[0] for key in arrays if "/" in key)
    return [
        _case(family, name, {k.split("/")[1]: x for k, x in arrays.items() if k.startswith(f"{name}/")})
        for name in names
    ]


def _case(family: str, name: str, a: dict[str, np.ndarray]) -> Case:
    num_keypoints, keypoint_dims = a["kpt_shape"].tolist() if "kpt_shape" in a else (0, 3)
    height, width = a["size"].tolist()
    batch = Batch(
        size=(height, width),
        batch_size=int(a["batch_size"]),
        batch_idx=torch.from_numpy(a["batch_idx"]),
        labels=torch.from_numpy(a["labels"]),
        boxes=torch.from_numpy(a["target_boxes"]),
        keypoints=torch.from_numpy(a["target_keypoints"]) if "target_keypoints" in a else None,
        masks=torch.from_numpy(a["masks"]) if "masks" in a else None,
        class_map=torch.from_numpy(a["class_map"]).long() if "class_map" in a else None,
    )
    return Case(
        name=f"{family}/{name}",
        ties=bool(a["ties"]),
        reg_max=int(a["reg_max"]),
        num_keypoints=num_keypoints,
        keypoint_dims=keypoint_dims,
        class_weights=a["class_weights"].tolist() if "class_weights" in a else None,
        mask_overlap=bool(a.get("mask_overlap", False)),
        shares=tuple(a["shares"].tolist()) if "shares" in a else None,
        batch=batch,
        raw=_raw(a, "") if "boxes" in a else Pair(*(_raw(a, f"{branch}.") for branch in BRANCHES)),
        items=dict(zip(a["names"].tolist(), a["items"].tolist(), strict=True)),
        vector=torch.from_numpy(a["vector"]),
        gradients={k.removeprefix("gradient_"): torch.from_numpy(x) for k, x in a.items() if k.startswith("gradient_")},
        positives={(image, anchor, row) for image, anchor, row in a["positives"].tolist()},
    )


def _raw(a: dict[str, np.ndarray], prefix: str) -> Raw:
    keys = {name: prefix + name for name in MAPS}
    maps: dict[str, Any] = {n: torch.from_numpy(a[key].astype(np.float32)) for n, key in keys.items() if key in a}
    return Raw(**{"keypoints": None, **maps}, grid_sizes=tuple((h, w) for h, w in a["grid_sizes"].tolist()))
