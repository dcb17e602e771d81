"""True masks for a batch, and a head's coefficients and prototypes.

batch = add_masks(1, make_batch(7), stacked=False)
raw = add_mask_predictions(2, batch, make_predictions(8, batch), nm=6, semantic=True)
"""

import torch
from torch import Tensor

from .batches import Batch, Raw
from .masks import nearest, row_masks


def add_masks(
    seed: int, batch: Batch, *, num_classes: int = 3, scale: int = 4, stacked: bool = False, stray: bool = False
) -> Batch:
    """An ellipse or the half of a box for every row, at the image's size over `scale`.

    In index maps later rows lie on top of earlier ones, and `stray` sets some pixels to an index without a row. Stacked
    masks overlap; with `stray` some are soft. The class map is random where no row is.
    """
    generator = torch.Generator().manual_seed(seed)
    height, width = (n // scale for n in batch.size)
    stack = torch.zeros(len(batch.labels), height, width)
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    for n, (cx, cy, w, h) in enumerate((batch.boxes[:, :4] * torch.tensor([width, height] * 2)).tolist()):
        u, v = (x - cx) / w * 2, (y - cy) / h * 2
        inside = u**2 + v**2 <= 1 if torch.rand((), generator=generator) < 0.7 else (u.abs() <= 1) & (v >= 0) & (v <= 1)
        stack[n] = inside.float()
    if stray and stacked:
        stack[::3] *= 0.7
        stack[1::3] *= 0.3
    batch = with_masks(seed, batch, stack, num_classes=num_classes, stacked=stacked)
    if stray and not stacked and batch.masks is not None:
        batch.masks[torch.rand(batch.masks.shape, generator=generator) < 0.05] = 1000
    return batch


def with_masks(seed: int, batch: Batch, stack: Tensor, *, num_classes: int, stacked: bool) -> Batch:
    """The batch with the masks `[N, H, W]` of its rows, as they are or as index maps, and a class map."""
    shape = (batch.batch_size, *stack.shape[1:])
    class_map = torch.randint(num_classes, shape, generator=torch.Generator().manual_seed(seed))
    index_map = torch.zeros(shape, dtype=torch.int64)
    seen = [0] * batch.batch_size
    for n, image in enumerate(batch.batch_idx.tolist()):
        seen[image] += 1
        index_map[image][stack[n] > 0] = seen[image]
        class_map[image][stack[n] > 0] = batch.labels[n]
    return batch._replace(masks=stack if stacked else index_map, class_map=class_map)


def add_mask_predictions(
    seed: int, batch: Batch, raw: Raw, *, num_classes: int = 3, nm: int = 6, semantic: bool = False, scale: int = 4
) -> Raw:
    """Prototypes that show one row each, and at every anchor the coefficients of some row near it, all with noise."""
    generator = torch.Generator().manual_seed(seed)
    size = (batch.size[0] // scale, batch.size[1] // scale)
    assert batch.masks is not None
    prototypes = torch.randn(batch.batch_size, nm, *size, generator=generator)
    coefficients = torch.randn(batch.batch_size, nm, raw.scores.shape[2], generator=generator)
    truth = nearest(row_masks(batch.masks, batch.batch_idx.tolist()), size).float()
    for n, image in enumerate(batch.batch_idx.tolist()):
        channel = n % nm
        prototypes[image, channel] = truth[n] * 2 - 1 + 0.4 * torch.randn(size, generator=generator)
        at = torch.rand(coefficients.shape[2], generator=generator) < 0.3
        coefficients[image][:, at] *= 0.3
        coefficients[image, channel, at] += 2
    maps: Tensor | None = None
    if semantic:
        maps = torch.randn(batch.batch_size, num_classes, size[0] // 2, size[1] // 2, generator=generator)
    return raw._replace(coefficients=coefficients, prototypes=prototypes, semantic=maps)
