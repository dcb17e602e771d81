"""How many pages of candidates and tiles of mask pixels rows need, for a plan.

Host side, upper bounds under the rounding of any device.

Letters: N rows, L levels, H and W mask pixels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from compiled_loss.assign.regions import InBox, Region
from compiled_loss.assign.rotated import InRotatedBox
from compiled_loss.assign.scheduled import Either
from compiled_loss.checks import given
from compiled_loss.data.targets import Targets
from compiled_loss.geometry.boxes import cxcywh_to_xyxy
from compiled_loss.geometry.pixels import box_pixels
from compiled_loss.pages import pages_of

# Room for rows with more than k positives, having won anchors that other rows selected, whose box pixels are read once
# more: in crowds up to a sixth more was seen, and with few rows it may be the largest box.
_FURTHER = 5 / 4

# The device may round the pixel sides of a box differently (fused multiply-add), and then an anchor that lies on a side
# here lies inside there. Sides are within 5 image sizes of the origin (`Targets.validate`) and come from a handful of
# float32 operations, each off by at most 2^-24 of that: together below 3e-6 of the image size. Candidates are counted
# with every side moved outwards by more than that; anchors are whole or half pixels, so it adds only those on a side.
_SLACK = 1e-5


def needed_pages(
    targets: Targets,
    image_size: tuple[int, int],
    strides: tuple[int, ...],
    margin: float = 0.0,
    region: Region | None = None,
) -> Tensor:
    """`[N]` pages that suffice for each row: an interval of length l holds at most `floor(l / s) + 1` anchors.

    Args:
        targets: N rows.
        image_size: (height, width) in pixels.
        strides: pixels per grid cell of each level, finest first.
        margin: how much longer sides may become: 0.25 for a quarter.
        region: where the assigner's candidates lie; None means inside the boxes, upright or rotated by their angles,
            whichever needs more, since a loss of either kind may read rows with angles.

    Example:
        >>> needed_pages(Targets(torch.tensor([0]), torch.tensor([0]), torch.full((1, 4), 0.5)), (64, 64), (8, 16))
        tensor([1])
    """
    if targets.ignore is not None and region is not None:  # ignore rows need all anchors in their boxes
        ignore, targets = targets.ignore, targets._replace(ignore=None)
        plain, others = (needed_pages(targets, image_size, strides, margin, x) for x in (None, region))
        return torch.where(ignore, plain, others)
    if region is None and targets.angles is None:
        region = InBox()
    if region is None or isinstance(region, Either):
        either = (InBox(), InRotatedBox()) if region is None else (region.first, region.then)
        return torch.maximum(*(needed_pages(targets, image_size, strides, margin, x) for x in either))
    (height, width), boxes = image_size, targets.boxes.float()
    boxes = boxes * boxes.new_tensor([width, height, width, height])
    boxes = torch.cat([boxes[:, :2], boxes[:, 2:] * (1 + margin)], 1)
    if getattr(region, "oriented", False):
        boxes = torch.cat([boxes, given("targets.angles", targets.angles).float()[:, None]], 1)
    else:
        boxes = cxcywh_to_xyxy(boxes)
    grids = [(-(-height // s), -(-width // s)) for s in strides]
    reach = region.reach(boxes, strides, grids)
    sides = reach[..., 2:] - reach[..., :2] + 2 * _SLACK * max(image_size)
    cells = (sides / boxes.new_tensor(strides)[:, None, None]).floor() + 1  # [L, N, 2]
    most = boxes.new_tensor(grids).flip(1)[:, None]
    anchors = torch.minimum(cells.clamp(min=0), most).prod(2).sum(0)
    return pages_of(torch.where(targets.batch_idx >= 0, anchors, 0))


def mask_size(targets: Targets) -> tuple[int, int] | None:
    """(H, W) of the masks, if there are any."""
    maps = targets.masks if targets.index_map is None else targets.index_map
    return None if maps is None else (maps.shape[1], maps.shape[2])


def needed_tiles(boxes: Tensor, size: tuple[int, int], margin: float = 0.0) -> Tensor:
    """`[N]` tiles that hold the pixels of each box.

    Args:
        boxes: `[N, 4]` (cx, cy, w, h) as fractions of the image.
        size: (H, W) of the masks.
        margin: how much longer sides may become.

    Example:
        >>> needed_tiles(torch.full((1, 4), 0.5), (32, 32))
        tensor([5])
    """
    sides = boxes[:, 2:].float() * (1 + margin) + 2 * _SLACK
    grown = cxcywh_to_xyxy(torch.cat([boxes[:, :2].float(), sides], dim=1))
    return pages_of(box_pixels(grown * grown.new_tensor([size[1], size[0]] * 2), size).number)


def with_room(needed: int, tiles: Tensor) -> int:
    """Room for all tiles and a reserve for rows with more than k positives, which may include the largest.

    Args:
        needed: total tiles for the rows' boxes.
        tiles: `[N]` tiles of each row.

    Example:
        >>> with_room(5, torch.tensor([1, 4]))
        9
    """
    largest = int(tiles.max()) if len(tiles) else 0
    return max(math.ceil(needed * _FURTHER), needed + largest)
