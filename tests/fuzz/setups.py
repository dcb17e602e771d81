"""What a loss and its head are: options of the package's loss, and the same for the reference."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from compiled_loss import (
    BinaryCrossEntropy,
    DetectionLoss,
    EndToEndLoss,
    OrientedLoss,
    PoseLoss,
    ResidualPoseLoss,
    SegmentationLoss,
    TaskAligned,
)
from tests.reference.dense_match import Task
from tests.reference.end_to_end import KEEP, KEEP_V10
from tests.reference.flow import log_density

KINDS = ("detect", "pose", "residual", "obb", "segment")
STRIDES = ((8, 16, 32), (8, 16, 32), (4, 8, 16, 32), (8, 16), (16,), (10, 20, 40), (6, 18))
DTYPES = (torch.float32, torch.float32, torch.float32, torch.bfloat16, torch.float16, torch.float64)
CLASSES = {
    "detect": DetectionLoss,
    "pose": PoseLoss,
    "residual": ResidualPoseLoss,
    "obb": OrientedLoss,
    "segment": SegmentationLoss,
}


@dataclass(frozen=True)
class Setup:
    """Whatever a run compiles or exports once, and draws many batches for."""

    kind: str = "detect"
    end_to_end: str = ""  # "": one branch; "share": weighted branches; "sum": plain sum
    num_classes: int = 3
    strides: tuple[int, ...] = (8, 16)
    reg_max: int = 16
    top_k: int = 10
    keep: int | None = None
    alpha: float = 0.5
    class_weights: tuple[float, ...] | None = None
    keypoints: int = 3
    dims: int = 3  # of a predicted keypoint
    values: int = 3  # of a true one
    flow: bool = True
    mask_overlap: bool = False
    stacked: bool = False
    semantic: bool = False
    dtype: torch.dtype = torch.float32
    batch_size: int = 2
    grid: tuple[int, int] = (8, 8)  # of the finest level
    rounded_up: bool = True  # coarser grids
    layout: str = ""  # how rows come, see layouts.py; "": any
    pages: int | None = None  # of exported graphs
    gradients: bool = True  # whether exported graphs have them

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.grid[0] * self.strides[0], self.grid[1] * self.strides[0]

    @property
    def grids(self) -> tuple[tuple[int, int], ...]:
        height, width = self.size
        if self.rounded_up:
            return tuple((-(-height // s), -(-width // s)) for s in self.strides)
        return tuple((max(height // s, 1), max(width // s, 1)) for s in self.strides)

    @property
    def branches(self) -> int:
        return 2 if self.end_to_end else 1

    def build(self) -> Any:
        """The package's loss."""
        options: dict[str, Any] = {"strides": self.strides, "reg_max": self.reg_max, "check_values": False}
        options["classification"] = BinaryCrossEntropy(self.class_weights)
        selected = {} if self.end_to_end else {"top_k": self.top_k, "keep": self.keep}
        options["assigner"] = TaskAligned(**selected, alpha=self.alpha)
        if self.kind in ("pose", "residual"):
            options |= {"num_keypoints": self.keypoints, "keypoint_dims": self.dims}
        if self.kind == "residual":
            options["flow"] = log_density if self.flow else None
        if self.kind == "segment":
            options["mask_overlap"] = self.mask_overlap
        task = CLASSES[self.kind](self.num_classes, **options)
        if not self.end_to_end:
            return task
        loss = EndToEndLoss(task, plain_sum=self.end_to_end == "sum")
        loss.set_progress(3, 10)
        return loss

    def tasks(self) -> list[Task]:
        """What the reference must know of each branch."""
        count = self.keypoints
        choices: list[dict[str, Any]] = [{"top_k": self.top_k, "keep": self.keep}]
        if self.end_to_end:
            choices = [{"top_k": 10}, KEEP_V10 if self.end_to_end == "sum" else KEEP]
        return [
            Task(
                self.kind,
                self.strides,
                alpha=self.alpha,
                class_weights=self.class_weights,
                sigmas=(float(torch.tensor(1 / count)),) * count,
                keypoint_dims=self.dims,
                keypoint_weights=(1.0,) * count,
                flow=log_density if self.flow else None,
                mask_overlap=self.mask_overlap,
                **choice,
            )
            for choice in choices
        ]

    def shares(self) -> tuple[float, ...]:
        """Weights of the branches; `set_progress(3, 10)` leaves two thirds of the way."""
        many = float(torch.tensor(0.1 + 0.7 * (1 - 3 / 9)))
        return {"": (1.0,), "sum": (1.0, 1.0), "share": (many, 1 - many)}[self.end_to_end]


def any_setup(rng: np.random.Generator) -> Setup:
    """Any loss with any options, for a mode that prepares nothing."""

    def pick(choices: Any) -> Any:
        return choices[int(rng.integers(len(choices)))]

    classes, kind = pick((1, 2, 4)), pick(KINDS)
    return Setup(
        kind=kind,
        end_to_end=pick(("", "", "", "", "", "", "share", "sum")),
        num_classes=classes,
        strides=pick(STRIDES),
        reg_max=pick((1, 1, 16, 4)),
        top_k=pick((1, 3, 10, 13)),
        keep=pick((None, None, 1, 2)),
        alpha=pick((0.5, 0.5, 1.0)),
        class_weights=pick((None, None, tuple(0.5 + i for i in range(classes)))),
        keypoints=pick((1, 3, 5)),
        dims=pick((2, 3)),
        values=pick((2, 3)),
        flow=pick((True, True, False)),
        mask_overlap=kind == "segment" and pick((True, False)),
        stacked=pick((True, False)),
        semantic=pick((True, False)),
        dtype=pick(DTYPES),
        batch_size=pick((1, 2, 2, 3)),
        grid=(int(rng.integers(3, 10)), int(rng.integers(3, 10))),
        rounded_up=pick((True, True, False)),
    )


# What is compiled: every loss, both kinds of distances, every dtype. Tests take the first.
COMPILED = (
    Setup(reg_max=1, class_weights=(0.5, 1.0, 2.0), top_k=3, layout="padded", grid=(7, 9)),
    Setup(layout="planned", dtype=torch.bfloat16),
    Setup("pose", strides=(8, 16, 32), layout="planned", top_k=3, keep=2, dtype=torch.float16),
    Setup("residual", reg_max=1, dims=2, values=2, layout="pages", top_k=4),
    Setup("obb", layout="planned", grid=(6, 5), top_k=3),
    Setup("segment", mask_overlap=True, semantic=True, layout="planned", top_k=3),
    Setup("segment", reg_max=1, stacked=True, layout="padded", grid=(5, 6), batch_size=3, top_k=3),
    Setup(end_to_end="share", reg_max=1, layout="planned_slots", dtype=torch.float64),
)
# What is exported: flags stand in every true keypoint, masks in index maps, predictions in float32. Gradients take most
# of the time. Tests take the first.
EXPORTED = (
    Setup(reg_max=1, class_weights=(0.5, 1.0, 2.0), keep=2, layout="plain", gradients=False),
    Setup("pose", layout="plain", gradients=False),
    Setup("residual", reg_max=1, dims=2, top_k=4, layout="plain", pages=5, gradients=False),
    Setup("obb", layout="plain", grid=(6, 10), gradients=False),
    Setup("segment", mask_overlap=True, semantic=True, layout="plain", gradients=False),
    Setup(end_to_end="share", layout="plain", gradients=False),
    Setup(layout="plain"),
)
