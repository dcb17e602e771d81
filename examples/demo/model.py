"""A small detector in plain PyTorch: backbone, top-down neck, decoupled heads for boxes, classes and one thing more."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compiled_loss import Predictions

STRIDES = (8, 16, 32)


class Conv(nn.Sequential):
    """3x3 convolution, batch norm, SiLU."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1):
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs, momentum=0.03),
            nn.SiLU(inplace=True),
        )


class Stage(nn.Module):
    """Halves the grid, then two 3x3 convolutions around a skip."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.down = Conv(inputs, outputs, stride=2)
        self.body = nn.Sequential(Conv(outputs, outputs), Conv(outputs, outputs))

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(x)
        return x + self.body(x)


class Head(nn.Module):
    """One level's decoupled head: a branch each for boxes, scores and, the hardest and so the deepest, the third."""

    def __init__(self, inputs: int, outputs: tuple[int, ...], score_bias: float):
        super().__init__()
        wide = 4 * inputs // 3
        branches = [
            nn.Conv2d(inputs, inputs, 3, padding=1),
            nn.Conv2d(inputs, inputs // 2, 3, padding=1),
            nn.Sequential(Conv(inputs, wide), nn.Conv2d(wide, wide, 3, padding=1)),
        ]
        self.branches = nn.ModuleList(branches[: len(outputs)])
        self.readouts = nn.ModuleList()
        for hidden, output, bias in zip((inputs, inputs // 2, wide), outputs, (1.0, score_bias, 0.0), strict=False):
            readout = nn.Conv2d(hidden, output, 1)
            assert readout.bias is not None
            nn.init.constant_(readout.bias, bias)
            self.readouts.append(readout)

    def forward(self, x: Tensor) -> list[Tensor]:
        pairs = zip(self.branches, self.readouts, strict=True)
        return [readout(F.silu(branch(x))).flatten(2) for branch, readout in pairs]


class Prototypes(nn.Module):
    """Mask prototypes at a quarter of the picture's size, from the stem and the finest level."""

    def __init__(self, stem: int, inputs: int, outputs: int):
        super().__init__()
        self.lateral = nn.Conv2d(stem, inputs, 1)
        self.body = nn.Sequential(Conv(inputs, inputs), Conv(inputs, inputs), nn.Conv2d(inputs, outputs, 1))

    def forward(self, stem: Tensor, finest: Tensor) -> Tensor:
        return self.body(self.lateral(stem) + F.interpolate(finest, scale_factor=2.0))


class Detector(nn.Module):
    """Images `[B, 3, H, W]` in [0, 1], H and W multiples of 32, to raw `Predictions` at strides 8, 16 and 32.

    Returns a tuple, one `Predictions` for each branch of heads. An end-to-end detector has a second branch, one-to-one,
    that learns from features it does not change; to evaluate, it is the only one.

    Args:
        num_classes: C.
        field: field of `Predictions` that the third output fills, such as "keypoints"; None: there is no third.
        channels: of the third output.
        reg_max: distance bins of a box side.
        end_to_end: whether to have the second branch.
        width: channels of the neck.
    """

    def __init__(
        self,
        num_classes: int,
        field: str | None = None,
        channels: int = 0,
        reg_max: int = 16,
        end_to_end: bool = False,
        width: int = 48,
    ):
        super().__init__()
        w, self.field, self.end_to_end = width, field, end_to_end
        self.stem = nn.Sequential(Conv(3, w // 3, stride=2), Stage(w // 3, 2 * w // 3))
        self.stages = nn.ModuleList([Stage(2 * w // 3, w), Stage(w, w), Stage(w, w)])
        # Few anchors hold an object: starting there keeps the first steps from being spent on the background.
        outputs = (4 * reg_max, num_classes) + ((channels,) if field else ())
        priors = [math.log(5 / num_classes / (640 / s) ** 2) for s in STRIDES]
        self.branches = nn.ModuleList(
            nn.ModuleList(Head(w, outputs, prior) for prior in priors) for _ in range(1 + end_to_end)
        )
        self.prototypes = Prototypes(2 * w // 3, w, channels) if field == "coefficients" else None

    def forward(self, images: Tensor) -> tuple[Predictions, ...]:
        stem = self.stem(images)
        x = stem
        levels = [x := stage(x) for stage in self.stages]
        for i in (1, 0):
            levels[i] = levels[i] + F.interpolate(levels[i + 1], scale_factor=2.0)
        prototypes = None if self.prototypes is None else self.prototypes(stem, levels[0])
        many = self.branches[0]
        if not self.end_to_end:
            return (self._predict(many, levels, prototypes),)
        shared = None if prototypes is None else prototypes.detach()
        one = self._predict(self.branches[1], [x.detach() for x in levels], shared)
        return (self._predict(many, levels, prototypes), one) if self.training else (one,)

    def _predict(self, heads: nn.Module, levels: list[Tensor], prototypes: Tensor | None) -> Predictions:
        assert isinstance(heads, nn.ModuleList)
        outputs = zip(*(head(x) for head, x in zip(heads, levels, strict=True)), strict=True)
        boxes, scores, *third = (torch.cat(output, dim=2) for output in outputs)
        fields: dict[str, Any] = {"prototypes": prototypes}
        if self.field == "angles":
            # From -pi/4 to 3/4 pi: every direction of a side, and the usual ones far from the ends.
            fields["angles"] = (third[0].sigmoid() - 0.25) * math.pi
        elif self.field is not None:
            fields[self.field] = third[0]
        return Predictions(boxes, scores, tuple((x.shape[2], x.shape[3]) for x in levels), **fields)
