"""Targets row by row: padding a batch, joining images, picking and ordering rows. Host side.

Letters: N rows, B images, H by W pixels of a mask.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from compiled_loss.checks import kind_of, require, true_or_false, whole_number
from compiled_loss.data.targets import IMAGE_FIELDS, ROW_FIELDS, Targets, check_structure

_OPTIONAL = (*ROW_FIELDS[3:], *IMAGE_FIELDS)


def check_kind(value: Any, argument: str, expected: str = "Targets, flat rows") -> None:
    """Check that something is `Targets`.

    Raises:
        ValueError: for anything else; for a list or a dict, it names the functions that convert it to `Targets`.

    Example:
        >>> check_kind([], "targets", "Targets")
        Traceback (most recent call last):
        ValueError: targets: expected Targets, got list; see sources.from_torchvision or sources.from_yolo
    """
    if not isinstance(value, Targets):
        hint = "; see sources.from_torchvision or sources.from_yolo" if isinstance(value, list | dict) else ""
        require(False, argument, expected, kind_of(value) + hint)


def map_rows(targets: Targets, function: Callable[[Tensor], Tensor]) -> Targets:
    """Apply a function to every field with one entry per row; the others stay as they are.

    `rows` is reset to None, since the number of rows may have changed.
    """
    fields = {name: getattr(targets, name) for name in ROW_FIELDS}
    changed: Any = {name: function(x) for name, x in fields.items() if x is not None}
    return targets._replace(**changed, rows=None)


def pad_rows(
    targets: Targets,
    rows: int | None = None,
    *,
    multiple_of: int = 16,
    power_of_two: bool = False,
) -> Targets:
    """Append padding rows, so that N takes few values and is never 0 or 1, the sizes that `torch.compile` specialises.

    N becomes `rows`, or if that is None the smallest multiple of `multiple_of` that holds all rows, at least 2; with
    `power_of_two` it is rounded up to a power of two. Padding rows have `batch_idx` -1 and zeros elsewhere.

    Args:
        targets: N rows; existing padding counts as rows.
        rows: the new N, at least 2; None rounds up.
        multiple_of: N is rounded up to a multiple of this if `rows` is None.
        power_of_two: use buckets for static shapes (CUDA graphs): 16, 32, 64, ... rows.

    Returns:
        The targets with padding at the end, sorted if they were, and `Targets.rows` set.

    Raises:
        ValueError: if `rows` is below 2 or below N, or `multiple_of` below 1.

    Example:
        >>> import torch
        >>> t = Targets(torch.tensor([1, 0]), torch.tensor([3, 4]), torch.rand(2, 4))
        >>> pad_rows(t, 4).batch_idx
        tensor([ 1,  0, -1, -1])
        >>> len(pad_rows(t).labels)
        16
    """
    check_kind(targets, "targets")
    given = len(targets.batch_idx)
    multiple_of, power_of_two = whole_number("multiple_of", multiple_of), true_or_false("power_of_two", power_of_two)
    rows = rounded_rows(given, multiple_of, power_of_two) if rows is None else whole_number("rows", rows)
    require(rows >= max(given, 2), "rows", f"at least {max(given, 2)} for {given} target rows", rows)

    def pad(x: Tensor, value: int = 0) -> Tensor:
        return torch.cat([x, x.new_full((rows - given, *x.shape[1:]), value)])

    padded = map_rows(targets, pad)
    return padded._replace(batch_idx=pad(targets.batch_idx, -1), rows=targets.batch_idx.new_full((), rows))


def join_images(images: Sequence[Targets], argument: str) -> Targets:
    """Concatenate the rows of single images, numbered by image. Values other than `batch_idx` are not read.

    Args:
        images: the Targets of each image, `batch_idx` 0 and no padding.
        argument: name of the images in messages.

    Raises:
        ValueError: naming the image, if it has padding or rows of several images, or fields unlike the first's.
    """
    require(len(images) > 0, argument, "at least one image", "none")
    for i, image in enumerate(images):
        name = f"{argument}[{i}]"
        check_kind(image, name, "Targets")
        check_structure(image, name)
        given = image.batch_idx
        require(not given.any(), name, "rows of one image (batch_idx 0) without padding", given.tolist())
        for field in _OPTIONAL:
            got, expected = _shape(image, field), _shape(images[0], field)
            told = f"{expected} as in the first (also for images without objects)"
            require(got == expected, f"{name}.{field}", told, got)
        for field in IMAGE_FIELDS:
            x = getattr(image, field)
            require(x is None or len(x) == 1, f"{name}.{field}", [1, "H", "W"], None if x is None else tuple(x.shape))
    fields = {name: [getattr(image, name) for image in images] for name in (*ROW_FIELDS, *IMAGE_FIELDS)}
    joined: Any = {name: None if parts[0] is None else torch.cat(parts) for name, parts in fields.items()}
    joined["batch_idx"] = torch.cat([image.batch_idx + i for i, image in enumerate(images)])
    return Targets(**joined, is_sorted=True)


def _shape(image: Targets, field: str) -> str:
    x = getattr(image, field)
    return "None" if x is None else "[" + ", ".join(["N", *map(str, x.shape[1:])]) + "]"


def rounded_rows(rows: int, multiple_of: int, power_of_two: bool) -> int:
    """The smallest N that holds `rows`: a multiple, or a power of two, at least 2."""
    size = max(-(-rows // multiple_of), 1) * multiple_of
    return next_power_of_two(size) if power_of_two else max(size, 2)


def next_power_of_two(count: int) -> int:
    """The smallest power of two that is at least `count`, and at least 2."""
    return max(2, 1 << (count - 1).bit_length())
