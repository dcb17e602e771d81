"""What users hand over, read as tensors and sizes: numbers of any kind, and errors that name them. Host side.

Letters: N rows, B images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from compiled_loss.checks import check_shape, require

ImageSizes = tuple[int, int] | Sequence[tuple[int, int]]


def sizes_of(image_sizes: ImageSizes, batch_size: int) -> list[tuple[int, int]]:
    """(height, width) of every image, given for each or once for all."""
    given: Any = image_sizes.tolist() if hasattr(image_sizes, "tolist") else image_sizes  # type: ignore[union-attr]
    require(isinstance(given, Sequence), "image_sizes", f"one (height, width) or a list of {batch_size}", given)
    sizes: list[Any] = list(given)
    if len(sizes) == 2 and not any(isinstance(side, Sequence) for side in sizes):
        sizes = [tuple(sizes)] * batch_size
    require(len(sizes) == batch_size, "image_sizes", f"one (height, width) or a list of {batch_size}", len(sizes))
    for size in sizes:
        fits = isinstance(size, Sequence) and len(size) == 2 and min(size) > 0
        require(fits, "image_sizes", "(height, width), both positive", size)
    return sizes


def field(mapping: Mapping[str, Any], key: str, name: str) -> Any:
    """The value of a key that must be there."""
    require(isinstance(mapping, Mapping), name, "a dict", type(mapping).__name__)
    require(key in mapping, name, f"the key {key!r}", sorted(map(str, mapping)))
    return mapping[key]


def tensor_of(values: Any, name: str) -> Tensor:
    """Any shape and real dtype."""
    try:
        x = torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"{name}: expected numbers, got {values!r:.80}") from None
    require(not x.is_complex(), name, "real numbers", x.dtype)
    return x


def boxes_of(values: Any, name: str, *sizes: int) -> Tensor:
    """`[N, 4]`, or another of the sizes allowed; without rows any shape will do."""
    boxes = tensor_of(values, name)
    if boxes.numel() == 0:
        return boxes.reshape(0, boxes.shape[-1] if boxes.shape[-1] in sizes else sizes[0])
    expected = " or ".join(map(str, sizes))
    check_shape(name, boxes, ["N", sizes[0] if len(sizes) == 1 else expected])
    require(boxes.shape[1] in sizes, name, ["N", expected], tuple(boxes.shape))
    return boxes


def whole_column(values: Any, name: str) -> Tensor:
    """`[N]` int64 from `[N]` or `[N, 1]` integers or whole floats."""
    x = tensor_of(values, name)
    if x.dim() == 2 and x.shape[1] == 1:
        x = x[:, 0]
    require(x.dim() == 1, name, "shape [N] or [N, 1]", tuple(x.shape))
    return whole_numbers(x, name)


def whole_numbers(x: Tensor, name: str) -> Tensor:
    """Any shape; int64."""
    whole = x.to(torch.int64)
    broken = whole.to(x.dtype) != x
    if broken.any():
        place = broken.nonzero()[0].tolist()
        at = f"row {place[0]}" if len(place) == 1 else f"place {place}"
        raise ValueError(f"{name}: expected whole numbers, got {x[tuple(place)].item()} in {at}")
    return whole
