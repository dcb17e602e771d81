"""True masks in their two forms, prototypes of another size, and the overlap of masks.

Letters: B images, N rows, P slots, G pages, S slots of a page, D prototypes, H and W mask pixels.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from compiled_loss.geometry.pixels import box_pixels, inside_pixels
from compiled_loss.geometry.products import product, without_autocast
from compiled_loss.pages import paginate
from compiled_loss.ragged import positions
from compiled_loss.torch_private import is_exporting

# Slots that read an image's prototypes together.
SLOTS_OF_AN_IMAGE = 64
_BANDS = 8


class MaskTargets(NamedTuple):
    """True masks of the rows, and of an extra row that represents "no row".

    Args:
        maps: `[B, H, W]` index maps, or `[N + 1, H, W]` masks.
        source: `[N + 1]` map of each row.
        number: `[N + 1]` index of each row in its map; None if maps are masks.
    """

    maps: Tensor
    source: Tensor
    number: Tensor | None

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.maps.shape[1], self.maps.shape[2]

    def on_pages(self, row: Tensor, image: Tensor, pixel: Tensor, dtype: torch.dtype) -> Tensor:
        """`[G, S, Q]` values of rows `[G, S]` at pixels `[Q]`; all rows of a page are in one image `[G]`."""
        maps = self.maps.flatten(1)
        if self.number is None:
            return maps[row[..., None], pixel].to(dtype)
        return (maps[image[:, None], pixel][:, None] == self.number[row][..., None]).to(dtype)

    def at(self, row: Tensor, pixel: Tensor, dtype: torch.dtype) -> Tensor:
        """Values of rows `[..., 1]` at pixels `[..., Q]`."""
        values = self.maps.flatten(1)[self.source[row], pixel]
        return (values if self.number is None else values == self.number[row]).to(dtype)


def index_map_targets(index_map: Tensor, batch_idx: Tensor) -> MaskTargets:
    """Masks from index maps, in which 0 is no instance and i + 1 the image's i-th row.

    Args:
        index_map: `[B, H, W]`, any dtype.
        batch_idx: `[N]` image of each row; rows outside `[0, B)` are padding.

    Returns:
        `MaskTargets`.

    Example:
        >>> index_map_targets(torch.tensor([[[2, 1]]]), torch.tensor([0, 0])).number
        tensor([1, 2, 0])
    """
    images = index_map.shape[0]
    slots, _ = positions(batch_idx, images)
    real = (batch_idx >= 0) & (batch_idx < images)
    none = slots.new_zeros(1)
    source, number = torch.where(real, batch_idx, 0).long(), torch.where(real, slots + 1, 0)
    return MaskTargets(index_map, torch.cat([source, none]), torch.cat([number, none]))


def stacked_targets(masks: Tensor) -> MaskTargets:
    """Masks from a stack in row order, with unchanged values.

    Args:
        masks: `[N, H, W]`, 0 to 1, any dtype.

    Returns:
        `MaskTargets`.

    Example:
        >>> stacked_targets(torch.full((1, 2, 2), 0.7)).source
        tensor([0, 1])
    """
    # The extra row is read in a batch without rows.
    maps = torch.cat([masks, masks.new_zeros(1, *masks.shape[1:])])
    return MaskTargets(maps, torch.arange(maps.shape[0], device=masks.device), None)


def resize_prototypes(prototypes: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize prototypes bilinearly, without corner alignment; unchanged if they have the size already.

    Args:
        prototypes: `[B, D, h, w]`.
        size: (H, W).

    Returns:
        `[B, D, H, W]`.

    Example:
        >>> resize_prototypes(torch.tensor([[[[0.0, 4.0]]]]), (1, 4))
        tensor([[[[0., 1., 3., 4.]]]])
    """
    if prototypes.shape[-2:] == torch.Size(size):
        return prototypes
    # An export differentiates what is inside a custom autograd function.
    if torch.is_grad_enabled() and prototypes.requires_grad and not is_exporting():
        return _Resized.apply(prototypes, *size)
    return F.interpolate(prototypes, size=size, mode="bilinear", align_corners=False)


class _Resized(torch.autograd.Function):
    """Resizing whose gradient is computed by matrix products.

    With torch's own gradient, the code generator's CPU code can lose it if a convolution comes before (torch 2.13), and
    on a GPU it is summed in no fixed order.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(prototypes: Tensor, height: int, width: int) -> Tensor:
        return F.interpolate(prototypes, size=(height, width), mode="bilinear", align_corners=False)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int, int], output: Tensor) -> None:
        ctx.given = inputs[0].shape[-2:]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,), (height, width) = gradients, ctx.given
        rows, columns = (_bilinear(n, m, gradient) for n, m in zip(gradient.shape[-2:], (height, width), strict=True))
        with without_autocast(gradient):
            return rows.T @ (gradient @ columns), None, None


def _bilinear(out: int, given: int, like: Tensor) -> Tensor:
    """`[out, given]`: the share of each given pixel in each pixel of the result."""
    places, pixels = (torch.arange(n, device=like.device, dtype=like.dtype) for n in (out, given))
    source = ((places + 0.5) * (given / out) - 0.5).clamp(0, given - 1)
    return (1 - (source[:, None] - pixels).abs()).clamp(min=0)


@torch.no_grad()
def mask_iou(
    coefficients: Tensor,  # [P, D]
    prototypes: Tensor,  # [B, D, H, W]
    boxes: Tensor,  # [P, 4] xyxy, prototype pixels
    image: Tensor,  # [P]
    row: Tensor,  # [P]
    valid: Tensor,  # [P] bool
    truth: MaskTargets,
) -> Tensor:
    """Intersection over union of predicted masks, `coefficients . prototypes > 0` inside their boxes, and true ones.

    The true mask, taken where it is above a half, is not cropped. If its size differs, it is read at the nearest pixel,
    `floor(i in / out)`.

    Args:
        coefficients: `[P, D]`.
        prototypes: `[B, D, H, W]`.
        boxes: `[P, 4]` predicted boxes, xyxy prototype pixels.
        image: `[P]` image of each slot.
        row: `[P]` row whose mask is the true one.
        valid: `[P]` bool; other slots get 0.
        truth: the rows' true masks.

    Returns:
        `[P]`; 0 if both masks are empty.

    Example:
        >>> truth = stacked_targets(torch.tensor([[[1.0, 1.0, 0.0, 0.0]]]))
        >>> box, zero = torch.tensor([[0.0, 0.0, 3.0, 1.0]]), torch.tensor([0])
        >>> mask_iou(torch.ones(1, 1), torch.ones(1, 1, 1, 4), box, zero, zero, zero == 0, truth)
        tensor([0.6667])
    """
    images, size, none = prototypes.shape[0], (prototypes.shape[2], prototypes.shape[3]), truth.source.shape[0] - 1
    pages = paginate(image, valid, images, SLOTS_OF_AN_IMAGE)
    image = pages.group.clamp(max=images - 1)
    row = none - pages.write(none - row)
    pixels = box_pixels(pages.write(boxes), size)
    paged, maps = pages.write(coefficients), prototypes.flatten(2)
    flat = torch.arange(size[0] * size[1], device=row.device)
    predicted, joint, true = (row.new_zeros(row.shape) for _ in range(3))
    # In bands, to hold only a few pixels of all slots at a time.
    for band in flat.chunk(_BANDS):
        with without_autocast(paged):
            positive = paged @ maps[:, :, band][image] > 0
        positive = positive & inside_pixels(pixels, band, size[1])
        down = band // size[1]
        right = band - down * size[1]  # `%` by a dynamic size has no ONNX form
        pixel = (down * truth.size[0] // size[0]) * truth.size[1] + right * truth.size[1] // size[1]
        covered = truth.on_pages(row, image, pixel, paged.dtype) > 0.5
        predicted, joint = predicted + positive.sum(-1), joint + (positive & covered).sum(-1)
        true = true + covered.sum(-1)
    union = predicted + true - joint
    return pages.read(joint / union.clamp(min=1))


def decode_masks(
    coefficients: Tensor,
    prototypes: Tensor,
    boxes: Tensor,
    image_size: tuple[int, int],
    size: tuple[int, int] | None = None,
) -> Tensor:
    """Masks of detections: `sigmoid(coefficients . prototypes)` at pixels with the centre inside the box, otherwise 0.

    Args:
        coefficients: `[B, k, D]`.
        prototypes: `[B, D, h, w]` of the whole image.
        boxes: `[B, k, 4]` xyxy, image pixels.
        image_size: (height, width) in image pixels.
        size: (H, W) of the masks, to which logits are resized bilinearly; None means the prototypes' size.

    Returns:
        `[B, k, H, W]` float32 probabilities.

    Example:
        >>> half = torch.tensor([[[0.0, 0.0, 8.0, 8.0]]])
        >>> decode_masks(torch.zeros(1, 1, 3), torch.zeros(1, 3, 1, 4), half, (4, 16))
        tensor([[[[0.5000, 0.5000, 0.0000, 0.0000]]]])
    """
    rows, columns = (prototypes.shape[2], prototypes.shape[3]) if size is None else size
    logits = product(coefficients.float(), prototypes.float().flatten(2))
    logits = logits.unflatten(2, (prototypes.shape[2], prototypes.shape[3]))
    if size is not None:
        logits = (_resized_exported if is_exporting() else resize_prototypes)(logits, size)
    (height, width), device = image_size, boxes.device
    y = (torch.arange(rows, device=device) + 0.5) * height / rows
    x = (torch.arange(columns, device=device) + 0.5) * width / columns
    left, top, right, bottom = boxes[..., None].unbind(2)
    down, along = (y > top) & (y < bottom), (x > left) & (x < right)
    return torch.where(down[..., :, None] & along[..., None, :], logits.sigmoid(), 0.0)


def _resized_exported(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Like `resize_prototypes`, from plain operators: ONNX Runtime's Resize rounds sampling positions differently."""
    for dim, pixels in zip((2, 3), size, strict=True):
        given = x.shape[dim]
        scale = (torch.zeros((), device=x.device) + given) / pixels
        place = ((torch.arange(pixels, device=x.device) + 0.5) * scale - 0.5).clamp(min=0)
        low = place.long()
        high, share = torch.where(low + 1 < given, low + 1, low), place - low
        share = share[:, None] if dim == 2 else share
        x = x.index_select(dim, low) * (1 - share) + x.index_select(dim, high) * share
    return x
