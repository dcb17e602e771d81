"""Masks drawn from outlines: the one place that needs `pycocotools`.

Letters: H and W mask pixels.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from compiled_loss.checks import require


def draw(segmentation: Any, image_size: tuple[int, int], mask_size: tuple[int, int], name: str) -> Tensor:
    """Draw a COCO segmentation as a mask.

    Polygons are scaled to the mask first. Run lengths are decoded and read at the nearest pixel, `floor(i in / out)`.

    Args:
        segmentation: a list of polygons, each flat `x, y, ...`; or a dict of run lengths, `counts` a list or
            compressed, and `size`; or None or empty for no pixel.
        image_size: (height, width) in pixels, the scale of polygons.
        mask_size: (H, W).
        name: what the segmentation is called in messages.

    Returns:
        `[H, W]` uint8, 0 or 1.

    Raises:
        ValueError: for a segmentation of another form.
        ImportError: if `pycocotools` is not installed.

    Example:
        >>> draw([[0, 0, 8, 0, 8, 4, 0, 4]], (8, 8), (2, 2), "segmentation")
        tensor([[1, 1],
                [0, 0]], dtype=torch.uint8)
    """
    if not segmentation:
        return torch.zeros(mask_size, dtype=torch.uint8)
    try:
        from pycocotools import mask as coco  # noqa: PLC0415  (optional)
    except ImportError as error:
        raise ImportError("drawing masks needs pycocotools: pip install compiled-loss[masks]") from error
    if isinstance(segmentation, Mapping):
        require({"counts", "size"} <= set(segmentation), name, "run lengths with counts and size", list(segmentation))
        runs: Any = dict(segmentation)
        if isinstance(runs["counts"], Sequence) and not isinstance(runs["counts"], str | bytes):
            runs = coco.frPyObjects(runs, *runs["size"])
        mask = _decoded(coco, runs)
        down, right = (torch.arange(out) * given // out for out, given in zip(mask_size, mask.shape, strict=True))
        return mask[down][:, right].contiguous()
    fits = isinstance(segmentation, Sequence) and all(
        isinstance(polygon, Sequence) and len(polygon) >= 6 and len(polygon) % 2 == 0 for polygon in segmentation
    )
    require(fits, name, "polygons, each x, y of three points or more", type(segmentation).__name__)
    scale = (mask_size[1] / image_size[1], mask_size[0] / image_size[0])
    scaled: Any = [[value * scale[i % 2] for i, value in enumerate(polygon)] for polygon in segmentation]
    drawn: Any = coco.merge(coco.frPyObjects(scaled, *mask_size))
    return _decoded(coco, drawn)


def _decoded(coco: Any, runs: Any) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of NumPy 2, about pycocotools' own arrays
        return torch.from_numpy(coco.decode(runs).copy())
