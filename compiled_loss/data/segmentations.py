"""Masks from outlines: polygons, which `pycocotools` draws, and run lengths.

Compiled code behind `pycocotools` trusts what it is given, so that every number is looked at before.

Letters: H and W mask pixels.
"""

import warnings
from collections.abc import Mapping
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from compiled_loss.checks import require
from compiled_loss.data.reading import are_numbers, is_list, is_number, plain

# Image sizes that a corner may lie outside the image, as `Targets.validate` has it for boxes.
_REACH = 4


def draw(segmentation: Any, image_size: tuple[int, int], mask_size: tuple[int, int], name: str) -> Tensor:
    """Draw a COCO segmentation as a mask.

    Polygons are scaled to the mask first. Run lengths are decoded and read at the nearest pixel, `floor(i in / out)`.

    Args:
        segmentation: a list of polygons, each flat `x, y, ...`; or a dict of run lengths, with `counts` as a list or
            compressed, and `size`; or None or empty for no pixels.
        image_size: (height, width) in pixels, the scale of polygons.
        mask_size: (H, W).
        name: name of the segmentation in messages.

    Returns:
        `[H, W]` uint8, 0 or 1.

    Raises:
        ValueError: if `check_segmentation` rejects the segmentation.
        ImportError: for polygons if `pycocotools` is not installed.

    Example:
        >>> draw([[0, 0, 8, 0, 8, 4, 0, 4]], (8, 8), (2, 2), "segmentation")
        tensor([[1, 1],
                [0, 0]], dtype=torch.uint8)
    """
    if segmentation is None or ((is_list(segmentation) or isinstance(segmentation, Mapping)) and not segmentation):
        return torch.zeros(mask_size, dtype=torch.uint8, device="cpu")
    if isinstance(segmentation, Mapping):
        return nearest(decode_runs(segmentation, image_size, name)[None], mask_size)[0]
    polygons = _polygons(segmentation, image_size, name)
    try:
        from pycocotools import mask as coco  # noqa: PLC0415  (optional)
    except ImportError as error:
        raise ImportError("drawing masks needs pycocotools: pip install compiled-loss[masks]") from error
    scale = (mask_size[1] / image_size[1], mask_size[0] / image_size[0])
    scaled: Any = [[value * scale[i % 2] for i, value in enumerate(polygon)] for polygon in polygons]
    drawn: Any = coco.merge(coco.frPyObjects(scaled, *mask_size))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of NumPy 2, about pycocotools' own arrays
        return torch.from_numpy(coco.decode(drawn).copy())


def check_segmentation(segmentation: Any, image_size: tuple[int, int], name: str) -> None:
    """Check that a segmentation is polygons of at least three points near the image, or run lengths that fill it.

    Raises:
        ValueError: naming the segmentation, for another form, a value that is not a number, corners further outside the
            image than `Targets.validate` allows for boxes, or run lengths whose size or sum differs from the image's.

    Example:
        >>> check_segmentation({"size": [2, 3], "counts": [1, 2, 4]}, (2, 3), "segmentation")
        Traceback (most recent call last):
        ValueError: segmentation: expected run lengths of 2 x 3 = 6 pixels together, got 7
    """
    if isinstance(segmentation, Mapping):
        _runs(segmentation, image_size, name)
    else:
        _polygons(segmentation, image_size, name)


def decode_runs(segmentation: Mapping[str, Any], image_size: tuple[int, int], name: str) -> Tensor:
    """`[height, width]` uint8 from run lengths, which go down the columns and begin with the pixels outside.

    Raises:
        ValueError: if `check_segmentation` rejects the segmentation.

    Example:
        >>> decode_runs({"size": [2, 3], "counts": [1, 2, 3]}, (2, 3), "segmentation")
        tensor([[0, 1, 0],
                [1, 0, 0]], dtype=torch.uint8)
    """
    counts = torch.tensor(_runs(segmentation, image_size, name), device="cpu")
    values = (torch.arange(len(counts), device="cpu") % 2).to(torch.uint8)
    height, width = image_size
    return values.repeat_interleave(counts).reshape(int(width), int(height)).T.contiguous()


def nearest(masks: Tensor, mask_size: tuple[int, int]) -> Tensor:
    """Masks `[n, height, width]` read at the nearest pixel: `[n, H, W]`."""
    down, right = (
        torch.arange(out, device=masks.device) * given // out
        for out, given in zip(mask_size, masks.shape[1:], strict=True)
    )
    return masks[:, down][:, :, right]


def _polygons(segmentation: Any, image_size: tuple[int, int], name: str) -> list[list[float]]:
    polygons: list[Any] = [plain(polygon) for polygon in segmentation] if is_list(segmentation) else []
    fits = bool(polygons) and all(
        is_list(polygon) and len(polygon) >= 6 and len(polygon) % 2 == 0 and are_numbers(polygon)
        for polygon in polygons
    )
    expected = "polygons, each one list of x, y for three or more points, or a dict of run lengths"
    require(fits, name, expected, f"{type(segmentation).__name__} {segmentation!r:.80}")
    height, width = image_size
    pixels = len(polygons) == height and all(len(polygon) == width for polygon in polygons)
    require(not pixels, name, expected, "a list of rows of pixels")
    for polygon in polygons:
        for values, side in ((polygon[::2], width), (polygon[1::2], height)):
            # Written so that it fails for NaN too.
            far = [x for x in values if not -_REACH * side <= x <= (1 + _REACH) * side]
            expected = f"pixels, at most {_REACH} image sizes outside the image of {width}x{height}"
            require(not far, name, expected, f"{far[:1]!r:.80}"[1:-1])
    return polygons


def _runs(segmentation: Mapping[str, Any], image_size: tuple[int, int], name: str) -> list[int]:
    require({"counts", "size"} <= set(segmentation), name, "run lengths with counts and size", list(segmentation))
    size, (height, width) = plain(segmentation["size"]), image_size
    same = is_list(size) and len(size) == 2 and all(map(is_number, size)) and tuple(size) == (height, width)
    require(same, name, f"run lengths of the image's size [{height}, {width}]", f"size {size!r:.80}")
    given: Any = plain(segmentation["counts"])
    counts: Any = _uncompressed(given) if isinstance(given, str | bytes) else given
    whole = is_list(counts) and all(is_number(x) and x >= 0 and isinstance(x, Integral) for x in counts)
    require(whole, name, "counts of 0 or more, a list or compressed", f"{given!r:.80}")
    pixels = int(height * width)
    require(sum(counts) == pixels, name, f"run lengths of {height} x {width} = {pixels} pixels together", sum(counts))
    return [int(x) for x in counts]


def _uncompressed(text: str | bytes) -> list[int] | None:
    """COCO's compressed counts: five bits per character, with bit 6 unset in the last of a number; from the fourth
    number on, the difference to the last but one. None for malformed text.
    """
    counts: list[int] = []
    value = bits = 0
    for character in text.encode("utf-8", "replace") if isinstance(text, str) else text:
        part = character - 48
        if not 0 <= part < 64 or bits > 35:
            return None
        value |= (part & 31) << bits
        bits += 5
        if part & 32:
            continue
        if part & 16:
            value -= 1 << bits
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = bits = 0
    return None if bits else counts
