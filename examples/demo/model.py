"""A small detector in plain PyTorch: backbone, top-down neck, decoupled head for boxes, classes and keypoints."""

from __future__ import annotations

import math

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
    """One level's decoupled head: a branch each for boxes, scores and, the hardest and so the deepest, keypoints."""

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


class PoseNet(nn.Module):
    """Images `[B, 3, H, W]` in [0, 1], H and W multiples of 32, to raw `Predictions` at strides 8, 16 and 32.

    `keypoint_channels` is K*D (0: a detector without keypoints), `reg_max` the distance bins of a box side.
    """

    def __init__(self, num_classes: int, keypoint_channels: int = 0, reg_max: int = 16, width: int = 48):
        super().__init__()
        w = width
        self.stem = nn.Sequential(Conv(3, w // 3, stride=2), Stage(w // 3, 2 * w // 3))
        self.stages = nn.ModuleList([Stage(2 * w // 3, w), Stage(w, w), Stage(w, w)])
        # Few anchors hold an object: starting there keeps the first steps from being spent on the background.
        outputs = (4 * reg_max, num_classes) + ((keypoint_channels,) if keypoint_channels else ())
        priors = (math.log(5 / num_classes / (640 / s) ** 2) for s in STRIDES)
        self.heads = nn.ModuleList(Head(w, outputs, prior) for prior in priors)

    def forward(self, images: Tensor) -> Predictions:
        x = self.stem(images)
        levels = [x := stage(x) for stage in self.stages]
        for i in (1, 0):
            levels[i] = levels[i] + F.interpolate(levels[i + 1], scale_factor=2.0)
        outputs = zip(*(head(x) for head, x in zip(self.heads, levels, strict=True)), strict=True)
        boxes, scores, *keypoints = (torch.cat(output, dim=2) for output in outputs)
        grid_sizes = tuple((x.shape[2], x.shape[3]) for x in levels)
        return Predictions(boxes, scores, grid_sizes, keypoints[0] if keypoints else None)
