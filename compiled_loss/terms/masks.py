"""Instance-mask terms.

Letters: B images, N rows, P positive slots, G pages, S slots of a page, T tiles, Q pixels of a tile, D prototypes,
C classes, H and W mask pixels.
"""

import torch
from torch import Tensor

from compiled_loss.geometry.masks import SLOTS_OF_AN_IMAGE, MaskTargets
from compiled_loss.geometry.pixels import Tiles, box_pixels, inside_pixels, list_tiles
from compiled_loss.geometry.products import product
from compiled_loss.numerics import binary_cross_entropy, masked
from compiled_loss.pages import Pages, capacity, lay_out, number_of, pages_of, paginate
from compiled_loss.types import Assignment


def mask_cross_entropy(
    coefficients: Tensor,  # [P, D]
    prototypes: Tensor,  # [B, D, H, W]
    assignment: Assignment,
    boxes: Tensor,  # [N, 4] xyxy, mask pixels
    truth: MaskTargets,
    *,
    slots_per_row: int = 10,
    tiles: Tensor | int | None = None,
) -> Tensor:
    """Binary cross-entropy of every positive's mask, over the pixels in its true box, per unit of box area.

    `sum over pixels in the box of BCE(coefficients . prototype, true) / box area`: the mean over all pixels, divided by
    the box's share of them. Memory is `64 T (D + S)` for T tiles, the pixels in the rows' boxes, whose prototypes a
    row's positives read together. If T is neither planned nor can be read, memory is about `P H W`.

    Args:
        coefficients: `[P, D]`, 0 in empty slots.
        prototypes: `[B, D, H, W]`, of the true masks' size.
        assignment: the positives.
        boxes: `[N, 4]` true boxes, xyxy mask pixels.
        truth: the rows' true masks.
        slots_per_row: number S of positives that read a row's pixels together; further ones of the row read them again.
        tiles: number T of tiles of 64 pixels in all boxes, as for `Targets.mask_tiles`.

    Returns:
        `[P]`; 0 in empty slots and for boxes without pixels.

    Source: YOLACT, arXiv 1904.02689.

    Example:
        >>> one = Assignment(*torch.tensor([[0], [7], [0]]), torch.tensor([True]), torch.tensor([0.9]), torch.tensor(0))
        >>> truth = MaskTargets(torch.ones(2, 4, 4), torch.tensor([0, 1]), None)
        >>> box = torch.tensor([[0.0, 1.0, 2.0, 4.0]])
        >>> mask_cross_entropy(torch.ones(1, 2), torch.zeros(1, 2, 4, 4), one, box, truth)
        tensor([0.6931])
    """
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    # For empty slots in a batch without rows.
    boxes = torch.cat([boxes, boxes.new_zeros(1, 4)])
    pages = paginate(assignment.row, assignment.valid, boxes.shape[0] - 1, slots_per_row)
    pixels = box_pixels(boxes[pages.group], truth.size)
    room = capacity(tiles, pages_of(pixels.number))
    if room is None:
        sums = _over_images(coefficients, prototypes, assignment, boxes, truth)
    else:
        listed = list_tiles(pixels, truth.size[1], room)
        sums = _over_tiles(coefficients, prototypes, assignment, pages, listed, truth)
    area = torch.where(area > 0, area, 1.0)[assignment.row]
    return masked(sums / area, assignment.valid)


def _over_tiles(
    coefficients: Tensor,
    prototypes: Tensor,
    assignment: Assignment,
    pages: Pages,
    tiles: Tiles,
    truth: MaskTargets,
) -> Tensor:
    """`[P]` sums; a page holds some of a row's positives, and the pixels of its box are listed once for it."""
    rows, (height, width) = truth.source.shape[0], truth.size
    row = pages.group[tiles.page]
    image = assignment.image.new_zeros(rows).scatter(0, assignment.row, assignment.image)[row]

    if prototypes.is_contiguous():
        # Through one dimension; otherwise their gradient would be transposed, and copied entry by entry.
        prototypes = prototypes.flatten().view(prototypes.shape)
    flat = prototypes.flatten(2).transpose(1, 2).flatten(0, 1)  # [B*H*W, D]
    place = (image[:, None] * (height * width) + tiles.pixel).flatten()
    # Not flat[place]: the gradient of a gather adds whole vectors.
    pixels = flat.gather(0, place[:, None].expand(-1, flat.shape[1])).unflatten(0, tiles.pixel.shape)
    logits = product(pages.write(coefficients)[tiles.page], pixels.transpose(1, 2))  # [T, S, Q]
    true = truth.at(row[:, None], tiles.pixel, logits.dtype)
    sums = _entropy(logits, true[:, None], tiles.inside[:, None]).sum(-1)
    paged = sums.new_zeros(pages.group.shape[0], pages.width).scatter_add(0, tiles.page[:, None].expand_as(sums), sums)
    return pages.read(paged)


def _over_images(
    coefficients: Tensor,
    prototypes: Tensor,
    assignment: Assignment,
    boxes: Tensor,  # [N + 1, 4]
    truth: MaskTargets,
) -> Tensor:
    """`[P]` sums; a page holds some of an image's positives, and covers all of its pixels."""
    images, (height, width) = prototypes.shape[0], truth.size
    pages = paginate(assignment.image, assignment.valid, images, SLOTS_OF_AN_IMAGE)
    image = pages.group.clamp(max=images - 1)
    # Places without a slot get the last row, a box without pixels.
    row = boxes.shape[0] - 1 - pages.write(boxes.shape[0] - 1 - assignment.row)
    logits = product(pages.write(coefficients), prototypes.flatten(2)[image])  # [G, S, H*W]
    pixel = torch.arange(height * width, device=row.device)
    true = truth.on_pages(row, image, pixel, logits.dtype)
    inside = inside_pixels(box_pixels(boxes[row], truth.size), pixel, width)
    return pages.read(_entropy(logits, true, inside).sum(-1))


def mask_overflow(
    assignment: Assignment,
    boxes: Tensor,  # [N, 4] xyxy, mask pixels
    size: tuple[int, int],
    *,
    slots_per_row: int = 10,
    tiles: Tensor | int | None = None,
) -> Tensor:
    """How often the planned tiles had no room for all pixels of the box of a row's positives.

    Args:
        assignment: the positives.
        boxes: `[N, 4]` true boxes, xyxy mask pixels.
        size: (H, W) of the masks.
        slots_per_row: as for `mask_cross_entropy`.
        tiles: as for `mask_cross_entropy`.

    Returns:
        scalar; 0 without a plan.

    Example:
        >>> one = Assignment(*torch.tensor([[0], [7], [0]]), torch.tensor([True]), torch.tensor([0.9]), torch.tensor(0))
        >>> mask_overflow(one, torch.tensor([[0.0, 0.0, 9.0, 9.0]]), (16, 16), tiles=1)
        tensor(1)
    """
    if tiles is None:
        return torch.zeros_like(assignment.overflow)
    boxes = torch.cat([boxes, boxes.new_zeros(1, 4)])
    pages = paginate(assignment.row, assignment.valid, boxes.shape[0] - 1, slots_per_row)
    counts = box_pixels(boxes[pages.group], size).number
    return (~lay_out(counts, number_of(tiles)).fits).sum()


def _entropy(logits: Tensor, true: Tensor, inside: Tensor) -> Tensor:
    """Binary cross-entropy; value and gradient are 0 outside."""
    return torch.where(inside, binary_cross_entropy(torch.where(inside, logits, 0.0), true), 0.0)


def semantic_error(
    logits: Tensor,  # [B, C, h, w]
    class_map: Tensor,  # [B, H, W]
    covered: Tensor,  # [B, H, W] bool
) -> Tensor:
    """Half the mean cross-entropy of the pixels plus half the Dice loss, for every image and class.

    `BCE(x, t) / 2 + (1 - (2 sum s(x) t + 1) / (sum s(x) + sum t + 1)) / 2`, with sums over an image's pixels. The
    targets t are one-hot, 0 where no instance covers the pixel, and read at the nearest pixel, `floor(i in / out)`.

    Args:
        logits: `[B, C, h, w]`.
        class_map: `[B, H, W]` class ids; a pixel with an id outside `[0, C)` has no class.
        covered: `[B, H, W]` bool, pixels of any instance.

    Returns:
        `[B, C]`; its mean is the loss.

    Source: V-Net (Dice), arXiv 1606.04797.

    Example:
        >>> ones = torch.ones(1, 2, 2)
        >>> semantic_error(torch.zeros(1, 2, 1, 1), ones, ones > 0)
        tensor([[0.5132, 0.4466]])
    """
    down, right = (
        torch.arange(out, device=logits.device) * given // out
        for out, given in zip(logits.shape[2:], class_map.shape[1:], strict=True)
    )
    nearest, covered = (x[:, down][:, :, right][:, None] for x in (class_map, covered))
    classes = torch.arange(logits.shape[1], device=logits.device)
    true = ((nearest == classes[:, None, None]) & covered).to(logits.dtype)
    score = logits.sigmoid()
    joint, sizes = (score * true).sum((2, 3)), (score + true).sum((2, 3))
    dice = 1 - (2 * joint + 1) / (sizes + 1)
    entropy = binary_cross_entropy(logits, true).mean((2, 3))
    return (entropy + dice) / 2
