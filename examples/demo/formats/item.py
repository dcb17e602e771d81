"""One item of a data set in Python: a picture and a dict, looked at before they are used."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from compiled_loss.data.reading import read_dict
from demo import pictures
from demo.annotations import require
from demo.labels import DataError


@dataclass(frozen=True, eq=False)
class Item:
    """A picture of a data set, which is asked for it whenever it is needed."""

    path: Path
    dataset: Any
    index: int
    name: str
    boxes: list[list[float]]

    def check(self, size: tuple[int, int]) -> None:
        """Nothing is left to check: the picture was looked at together with its labels."""

    def read(self, size: tuple[int, int]) -> Image.Image:
        with naming(self.path, self.name):
            picture, target = pair_of(self.dataset, self.index)
            same = picture.size == size and boxes_of(target, picture) == self.boxes
            require(same, "differs from what it was before; return the same every time, training adds random changes")
        return picture


def boxes_of(target: Mapping[str, Any], picture: Image.Image) -> list[list[float]]:
    return read_dict(target, "its dict", (picture.height, picture.width), "ignore")[1].tolist()


def pair_of(dataset: Any, index: int) -> tuple[Image.Image, Mapping[str, Any]]:
    """A picture in RGB, and its dict."""
    with theirs():
        item = dataset[index]
    pair = isinstance(item, tuple | list) and len(item) == 2
    require(pair, "should be a picture and a dict", type(item))
    picture, target = item
    hint = " (around CocoDetection: torchvision.datasets.wrap_dataset_for_transforms_v2)"
    require(isinstance(target, Mapping), f"should be a picture and a dict{hint}", type(target))
    return _as_picture(picture), target


def _as_picture(picture: Any) -> Image.Image:
    expected = (
        "its picture should be PIL's with 8 bits a channel, or a tensor [3, H, W] or [1, H, W], uint8 or from 0 to 1"
    )
    if isinstance(picture, Image.Image):
        require(not pictures.too_deep(picture), expected, picture.mode)
        return pictures.in_colour(picture)
    require(isinstance(picture, Tensor), expected, type(picture))
    x = picture.detach().as_subclass(Tensor).cpu()
    fits = x.dim() == 3 and x.shape[0] in (1, 3) and x.numel() > 0
    require(fits and (x.dtype == torch.uint8 or x.is_floating_point()), expected, f"{x.dtype} {tuple(x.shape)}")
    if x.is_floating_point():
        low, high = x.min().item(), x.max().item()
        require(low >= 0 and high <= 1, expected, f"numbers from {low:g} to {high:g}")
        x = (x * 255).round().to(torch.uint8)
    return Image.fromarray(x.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy())


@contextlib.contextmanager
def naming(path: Path, what: str) -> Iterator[None]:
    """Errors of what is inside, with the file and what was looked at."""
    try:
        yield
    except DataError:
        raise
    except ValueError as error:
        raise DataError(f"{path}: {what}: {error}") from error


@contextlib.contextmanager
def theirs() -> Iterator[None]:
    """What code that is not ours raises, in one line with the place."""
    try:
        yield
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise ValueError(f"{type(error).__name__}: {error} ({place.filename}, line {place.lineno})") from error
