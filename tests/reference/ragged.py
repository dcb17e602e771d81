"""The ragged fill and its inverse, one row at a time."""

import torch
from torch import Tensor


def positions(batch_idx: list[int]) -> list[int]:
    """Of each row: how many earlier rows belong to the same image."""
    seen: dict[int, int] = {}
    result = []
    for image in batch_idx:
        result.append(seen.get(image, 0))
        seen[image] = seen.get(image, 0) + 1
    return result


def fill(
    values: Tensor,  # [N, ...]
    batch_idx: Tensor,  # [N]
    batch_size: int,
    capacity: int,
    fill_value: float = 0,
) -> tuple[Tensor, Tensor, Tensor]:  # [B, M, ...], [B, M] bool, [B]
    """Each row in its image's next slot; returns the slots, which are taken, and how many rows found none."""
    filled = torch.full((batch_size, capacity, *values.shape[1:]), fill_value, dtype=values.dtype)
    mask = torch.zeros(batch_size, capacity, dtype=torch.bool)
    dropped = torch.zeros(batch_size, dtype=torch.int64)
    images = batch_idx.tolist()
    for row, (image, position) in enumerate(zip(images, positions(images), strict=True)):
        if not 0 <= image < batch_size:
            continue
        if position < capacity:
            filled[image, position] = values[row]
            mask[image, position] = True
        else:
            dropped[image] += 1
    return filled, mask, dropped


def unfill(
    filled: Tensor,  # [B, M, ...]
    batch_idx: Tensor,  # [N]
    capacity: int,
    fill_value: float = 0,
) -> Tensor:  # [N, ...]
    """What `fill` put away, row by row; rows that it left out hold `fill_value`."""
    images = batch_idx.tolist()
    values = torch.full((len(images), *filled.shape[2:]), fill_value, dtype=filled.dtype)
    for row, (image, position) in enumerate(zip(images, positions(images), strict=True)):
        if 0 <= image < len(filled) and position < capacity:
            values[row] = filled[image, position]
    return values
