"""The pixels of boxes, listed by integer arithmetic in tiles of static size.

Letters: N boxes, G pages, T tiles, Q pixels of a tile, H and W mask pixels.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from compiled_loss.pages import PAGE, lay_out


class Pixels(NamedTuple):
    """The pixels of every box, a rectangle: `[...]` int32 each, first column and row, columns and rows."""

    x: Tensor
    y: Tensor
    width: Tensor
    height: Tensor

    @property
    def number(self) -> Tensor:
        """`[...]` int32."""
        return self.width * self.height


def box_pixels(boxes: Tensor, size: tuple[int, int]) -> Pixels:
    """Pixels of every box: column c with `x1 <= c < x2`, row r with `y1 <= r < y2`.

    Args:
        boxes: `[..., 4]` xyxy, mask pixels.
        size: (H, W) of the mask.

    Returns:
        `Pixels`; none for a box that is NaN, reversed or outside.

    Example:
        >>> box_pixels(torch.tensor([[0.5, 1.0, 3.0, 9.0]]), (4, 4))
        Pixels(x=tensor([1], dtype=torch.int32), y=tensor([1], dtype=torch.int32), width=tensor([2], dtype=torch.int32), height=tensor([3], dtype=torch.int32))
    """  # noqa: E501
    left, top, right, bottom = boxes.unbind(-1)
    x, width = _span(left, right, size[1])
    y, height = _span(top, bottom, size[0])
    return Pixels(x, y, width, height)


def _span(low: Tensor, high: Tensor, size: int) -> tuple[Tensor, Tensor]:
    first, end = low.ceil().clamp(min=0), high.ceil().clamp(max=size)
    some = end > first  # False with NaN
    return torch.where(some, first, 0).int(), torch.where(some, end - first, 0).int()


def inside_pixels(pixels: Pixels, flat: Tensor, columns: int) -> Tensor:
    """Which of some pixels every box holds.

    Args:
        pixels: the pixels of every box.
        flat: `[Q]` pixels `y*W + x`.
        columns: W.

    Returns:
        `[..., Q]` bool.

    Example:
        >>> inside_pixels(box_pixels(torch.tensor([[0.5, 0.0, 3.0, 1.0]]), (2, 4)), torch.arange(8), 4).int()
        tensor([[0, 1, 1, 0, 0, 0, 0, 0]], dtype=torch.int32)
    """
    x, y, width, height = (values[..., None] for values in pixels)
    down = flat // columns
    right = flat - down * columns  # `%` by a dynamic size has no ONNX form
    return (down >= y) & (down < y + height) & (right >= x) & (right < x + width)


class Tiles(NamedTuple):
    """The pixels of all pages' boxes, in tiles of one page each.

    Args:
        page: `[T]` page of each tile; 0 in empty tiles.
        pixel: `[T, Q]` pixel `y*W + x`; 0 in empty places.
        inside: `[T, Q]` bool, True where there is a pixel.
    """

    page: Tensor
    pixel: Tensor
    inside: Tensor


def list_tiles(pixels: Pixels, columns: int, capacity: int) -> Tiles:
    """One tile after the other, those of the first page first; what exceeds T tiles is left out.

    Args:
        pixels: the pixels of every page, at least one page.
        columns: W.
        capacity: T.

    Returns:
        `Tiles`.

    Example:
        >>> pixels = box_pixels(torch.tensor([[0.0, 0, 8, 9], [1, 2, 3, 4]]), (10, 10))
        >>> t = list_tiles(pixels, 10, 4)
        >>> t.page, t.pixel[t.inside][-4:]
        (tensor([0, 0, 1, 0]), tensor([21, 22, 31, 32]))
    """
    layout = lay_out(pixels.number, capacity)
    page = torch.where(layout.group < pixels.x.shape[0], layout.group, 0)
    x, y, width, height = (values[page][:, None] for values in pixels)
    local = layout.begin[:, None] + torch.arange(PAGE, dtype=torch.int32, device=page.device)
    inside = (layout.group < pixels.x.shape[0])[:, None] & (local < width * height)
    down = local // width.clamp(min=1)
    pixel = (y + down) * columns + x + local - down * width
    return Tiles(page, torch.where(inside, pixel, 0).long(), inside)
