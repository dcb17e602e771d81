"""Batches for luxonis-train's detection loss and ours, and what a loss says of one.

    python tests/integrations/luxonis_cases.py     # where luxonis-train 0.6.0 is installed: stores what its loss says

Objects stand apart, each in a quarter of its image: of an anchor that two rows select the trainer asks all rows of the
image, the paper these two alone.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

ANSWERS = Path(__file__).with_name("luxonis_answers.json")
SIZE, STRIDES, CLASSES, REG_MAX = 128, (8, 16, 32), 3, 16
COUNTS = ((4, 0, 3), (1, 2, 0), (0, 0, 0), (4, 4, 4))


class LuxonisBatch(NamedTuple):
    """Maps `[B, 4*R + C, h, w]` of each level and rows `[N, 6]` (image, class, x, y, w, h)."""

    features: list[Tensor]
    target: Tensor


def make_batch(seed: int, counts: tuple[int, ...]) -> LuxonisBatch:
    """`counts[b]` objects on image b, up to 4, with sides from a pixel to 40."""
    dice, channels = torch.Generator().manual_seed(seed), 4 * REG_MAX + CLASSES
    grids = [(len(counts), channels, SIZE // s, SIZE // s) for s in STRIDES]
    features = [torch.randn(*grid, generator=dice) for grid in grids]
    for x in features:
        x[:, 4 * REG_MAX :] -= 3
    rows = []
    for image, count in enumerate(counts):
        for quarter in range(count):
            sides = 40 ** torch.rand(2, generator=dice)
            centre = torch.tensor([quarter % 2, quarter // 2]) * 64 + 30 + 4 * torch.rand(2, generator=dice)
            label = torch.randint(CLASSES, (1,), generator=dice)
            place = torch.cat([centre - sides / 2, sides]) / SIZE
            rows.append(torch.cat([torch.tensor([float(image)]), label.float(), place]))
    return LuxonisBatch(features, torch.stack(rows) if rows else torch.zeros(0, 6))


def answer(loss: Callable[..., Any], batch: LuxonisBatch) -> dict[str, Any]:
    """The total, the terms, and of each level's gradient its size and its product with random numbers."""
    leaves = [x.clone().requires_grad_() for x in batch.features]
    total, terms = loss(leaves, batch.target.clone())
    gradients = torch.autograd.grad(total, leaves)
    dice = torch.Generator().manual_seed(99)
    sizes = [[g.abs().sum().item(), (g * torch.randn(g.shape, generator=dice)).sum().item()] for g in gradients]
    return {"total": total.item(), "terms": {n: x.item() for n, x in terms.items()}, "gradients": sizes}


def batches() -> list[LuxonisBatch]:
    """The batches of the stored answers."""
    return [make_batch(seed, counts) for seed, counts in enumerate(COUNTS * 2)]


if __name__ == "__main__":
    from luxonis_train.attached_modules.losses import PrecisionDFLDetectionLoss  # type: ignore[import-not-found]
    from luxonis_train.nodes import PrecisionBBoxHead  # type: ignore[import-not-found]

    shapes = [torch.Size([1, 16, SIZE // s, SIZE // s]) for s in STRIDES]
    head = PrecisionBBoxHead(
        n_heads=3, n_classes=CLASSES, input_shapes=[{"features": shapes}], original_in_shape=torch.Size([3, SIZE, SIZE])
    )
    said = {}
    for skip in (False, True):
        own = PrecisionDFLDetectionLoss(node=head, skip_stal=skip)
        said[f"skip_stal={skip}"] = [answer(own, batch) for batch in batches()]
    ANSWERS.write_text(json.dumps(said, indent=1) + "\n")
