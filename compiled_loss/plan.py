"""The shape of a batch: padded rows and planned pages of candidates, so that a training run is one graph.

Host side: everything here runs in the data loading workers and reads values, so that the device never has to.

Letters: B images, N rows, K keypoints, A anchors, H and W mask pixels.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from compiled_loss.assign.rotated import rotated_reach
from compiled_loss.checks import check_strides, finite_number, require, true_or_false, whole_number
from compiled_loss.geometry.boxes import cxcywh_to_xyxy
from compiled_loss.geometry.pixels import box_pixels
from compiled_loss.pages import pages_of
from compiled_loss.rows import join_images, map_rows, next_power_of_two, pad_rows, rounded_rows
from compiled_loss.targets import Targets

# Of pages: not 0 or 1, which torch takes for constants, and not a bucket for every few.
_FEWEST = 16

# Room for the pixels of rows that hold more than k positives, having won anchors that other rows selected, which read
# their box once more: in crowds up to a sixth more was seen, and where rows are few it may be the largest box.
_FURTHER = 5 / 4

# The device may round the pixel sides of a box differently (fused multiply-add), and then an anchor that lies on a side
# here lies inside there. Sides are within 5 image sizes of the origin (`Targets.validate`) and come from a handful of
# float32 operations, each off by at most 2^-24 of that: together below 3e-6 of the image size. Candidates are counted
# with every side moved outwards by more than that; anchors are whole or half pixels, so it adds only those on a side.
_SLACK = 1e-5


@dataclass(frozen=True)
class TargetPlan:
    """How many rows a batch is padded to, and how many pages of 64 candidate anchors are kept for all rows together.

    With `rows` and `pages` given (`from_dataset`) every batch has one shape, as CUDA graphs want it. Where they are
    None, each batch takes the smallest bucket that holds it: rows in multiples of 16, pages in steps of a sixteenth, or
    both in powers of two. One graph serves them all (`Targets.mark_dynamic`). A batch with more or larger rows than
    planned loses nothing: it takes a larger bucket, and a warning says so once. For other image sizes (multi-scale),
    `dataclasses.replace(plan, image_size=...)`.

    Where targets have masks, the mask pixels in the boxes are planned too: tiles of 64 for all rows together, and a
    quarter or the largest row's more. That room is for rows with more than k positives, of which the host cannot know.
    Should it not suffice, those positives lack pixels in the mask term, which `LossOutput.overflow` counts.

    Args:
        image_size: (height, width) in pixels, multiples of the finest stride; coarser grids are rounded up.
        strides: pixels per grid cell of each level, finest first.
        rows: N of every batch; None plans it for each batch.
        pages: pages of candidate anchors kept for a batch; None plans it for each batch.
        power_of_two: round rows, pages and tiles up to powers of two.
        num_classes: C, to check the labels of every batch against; None leaves them unchecked above.
        mask_tiles: tiles of mask pixels kept for a batch; None plans it for each batch.

    Raises:
        ValueError: for an image size that the finest stride does not divide, or numbers that are not positive.

    Example:
        >>> import torch
        >>> t = Targets(torch.tensor([1, 0]), torch.tensor([3, 4]), torch.full((2, 4), 0.5))
        >>> planned = TargetPlan((64, 64), (8, 16, 32)).apply(t)
        >>> len(planned.labels), len(planned.pages), planned.labels[:2]
        (16, 16, tensor([4, 3]))
    """

    image_size: tuple[int, int]
    strides: tuple[int, ...] = (8, 16, 32)
    rows: int | None = None
    pages: int | None = None
    power_of_two: bool = False
    num_classes: int | None = None
    mask_tiles: int | None = None

    def __post_init__(self) -> None:
        strides, pair = check_strides(self.strides), self.image_size
        expected = f"(height, width), multiples of the finest stride {strides[0]}"
        require(isinstance(pair, Sequence) and len(pair) == 2, "image_size", expected, pair)
        size = tuple(whole_number("image_size", side) for side in pair)
        require(not any(side % strides[0] for side in size), "image_size", expected, size)
        checked: dict[str, Any] = {"image_size": size, "strides": strides}
        for name, least in (("rows", 2), ("pages", 1), ("mask_tiles", 1), ("num_classes", 1)):
            number = getattr(self, name)
            checked[name] = None if number is None else whole_number(name, number, least)
        true_or_false("power_of_two", self.power_of_two)
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    @classmethod
    def from_dataset(
        cls,
        targets: Iterable[Targets],
        *,
        batch_size: int,
        image_size: tuple[int, int],
        strides: tuple[int, ...] = (8, 16, 32),
        margin: float = 0.0,
        power_of_two: bool = False,
        num_classes: int | None = None,
    ) -> TargetPlan:
        """One plan for a whole data set: no batch drawn from it without replacement exceeds it.

        `rows` is the sum of the `batch_size` largest images' row counts, rounded up; `pages` that of their pages;
        `mask_tiles`, where the first image has masks, that of their tiles with room.

        Args:
            targets: the Targets of each image (`batch_idx` 0), as the model will see them.
            batch_size: images in a batch.
            image_size: (height, width) in pixels, after resizing.
            strides: pixels per grid cell of each level, finest first.
            margin: room for augmentation: 0.25 plans for a quarter more rows, each with sides a quarter longer.
            power_of_two: round rows, pages and tiles up to powers of two.
            num_classes: C, to check labels against, here and in every batch.

        Returns:
            A plan with `rows`, `pages` and, for masks, `mask_tiles` fixed.

        Raises:
            ValueError: for an empty data set, Targets that are not one image's, or arguments out of range.

        Example:
            >>> import torch
            >>> one = Targets(torch.zeros(20).long(), torch.zeros(20).long(), torch.full((20, 4), 0.5))
            >>> plan = TargetPlan.from_dataset([one, one, one], batch_size=2, image_size=(64, 64))
            >>> plan.rows, plan.pages
            (48, 40)
        """
        plan = cls(image_size, strides, power_of_two=power_of_two, num_classes=num_classes)
        batch_size = whole_number("batch_size", batch_size)
        margin = finite_number("margin", margin)
        images, size = [], None
        for one in targets:
            require(isinstance(one, Targets), f"targets[{len(images)}]", "Targets", type(one).__name__)
            size = _mask_size(one) if not images else size
            images.append(_without_pixels(one))
        joined = join_images(images, "targets").validate(num_classes=num_classes)

        def largest(counts: Tensor) -> int:
            """The most that a batch may need of something that the rows need so much of, with margin."""
            of_images = counts.new_zeros(len(images)).index_add(0, joined.batch_idx, counts)
            most = int(of_images.topk(min(batch_size, len(images))).values.sum())
            return math.ceil(most * (1 + margin))

        rows = rounded_rows(largest(torch.ones_like(joined.batch_idx)), 16, power_of_two)
        pages = plan._bucket(largest(plan._pages(joined, margin)))
        plan = replace(plan, rows=rows, pages=pages)
        if size is None:
            return plan
        tiles = _tiles(joined.boxes, size, margin)
        return replace(plan, mask_tiles=plan._bucket(_with_room(largest(tiles), tiles)))

    def apply(self, targets: Targets, batch_size: int | None = None) -> Targets:
        """Sort by image, keeping the order inside each; drop old padding; pad anew; set the pages.

        Args:
            targets: the rows of one batch, in any order.
            batch_size: B, to check `batch_idx` against; None leaves it unchecked above.

        Returns:
            Targets with `is_sorted` and `pages` set, ready for the device.

        Raises:
            ValueError: what `Targets.validate` finds.
        """
        targets.validate(batch_size, self.num_classes)
        order = torch.argsort(targets.batch_idx, stable=True)
        order = order[int((targets.batch_idx < 0).sum()) :]
        kept = map_rows(targets, lambda x: x[order])
        size = _mask_size(kept)
        kept = kept._replace(
            pages=self._room("pages", int(self._pages(kept).sum())),
            is_sorted=True,
            mask_tiles=None if size is None else self._room("mask_tiles", *_needed_tiles(kept.boxes, size)),
        )
        return pad_rows(kept, self._fitting_rows(len(order)), power_of_two=self.power_of_two)

    @property
    def _grid_sizes(self) -> tuple[tuple[int, int], ...]:
        height, width = self.image_size
        return tuple((-(-height // s), -(-width // s)) for s in self.strides)

    def _pages(self, targets: Targets, margin: float = 0.0) -> Tensor:
        """`[N]` pages that suffice for each row: an interval of length l holds at most `floor(l / s) + 1` anchors."""
        boxes, (height, width) = targets.boxes.float(), self.image_size
        # Short sides are enlarged here already: after that the slack counts for them too.
        sides = boxes[:, 2:] * boxes.new_tensor([width, height]) * (1 + margin)
        sides = sides.clamp(min=self.strides[:2][-1])
        if targets.angles is not None:
            turned = torch.cat([boxes[:, :2] * boxes.new_tensor([width, height]), sides], 1)
            reach = rotated_reach(torch.cat([turned, targets.angles.float()[:, None]], 1), self.strides)
            sides = reach[:, 2:] - reach[:, :2]
        sides = sides + 2 * _SLACK * max(self.image_size)
        cells = (sides / boxes.new_tensor(self.strides)[:, None, None]).floor() + 1  # [L, N, 2]
        grids = boxes.new_tensor([(columns, rows) for rows, columns in self._grid_sizes])
        anchors = torch.minimum(cells, grids[:, None]).prod(2).sum(0)
        return pages_of(torch.where(targets.batch_idx >= 0, anchors, 0))

    def _bucket(self, count: int) -> int:
        """The least bucket that holds `count`: a power of two, or steps of a sixteenth of one."""
        power = next_power_of_two(max(count, _FEWEST))
        step = power if self.power_of_two else power // 16
        return max(-(-count // step) * step, _FEWEST)

    def _room(self, field: str, count: int, wished: int | None = None) -> Tensor:
        """A tensor as long as there are to be pages: as planned, else a bucket that holds `count`, or better `wished`.

        What it holds is of no interest; as a size, unlike a number, it leaves a compiled graph open for others.
        """
        planned = getattr(self, field)
        if planned is not None and count > planned:
            _warn_once(self, field, planned, count)
            planned = None
        size = self._bucket(wished or count) if planned is None else planned
        return torch.zeros(size, dtype=torch.int8, device="cpu")

    def _fitting_rows(self, count: int) -> int | None:
        if self.rows is None:
            return None
        rows = self.rows
        while rows < count:
            rows *= 2
        if rows > self.rows:
            _warn_once(self, "rows", self.rows, count)
        return rows


def _without_pixels(one: Targets) -> Targets:
    """What a plan looks at; masks would be the whole data set's."""
    return one._replace(masks=None, index_map=None, class_map=None)


def _mask_size(targets: Targets) -> tuple[int, int] | None:
    """(H, W) of the masks, if there are any."""
    maps = targets.masks if targets.index_map is None else targets.index_map
    return None if maps is None else (maps.shape[1], maps.shape[2])


def _tiles(boxes: Tensor, size: tuple[int, int], margin: float = 0.0) -> Tensor:
    """`[N]` tiles that hold the pixels of each box, an upper bound under rounding."""
    sides = boxes[:, 2:].float() * (1 + margin) + 2 * _SLACK
    grown = cxcywh_to_xyxy(torch.cat([boxes[:, :2].float(), sides], dim=1))
    return pages_of(box_pixels(grown * grown.new_tensor([size[1], size[0]] * 2), size).number)


def _needed_tiles(boxes: Tensor, size: tuple[int, int]) -> tuple[int, int]:
    """Tiles for every row's box, and with room for rows with more positives."""
    tiles = _tiles(boxes, size)
    needed = int(tiles.sum())
    return needed, _with_room(needed, tiles)


def _with_room(needed: int, tiles: Tensor) -> int:
    """Room for them all and for rows with more positives, of which there may be one of the largest."""
    largest = int(tiles.max()) if len(tiles) else 0
    return max(math.ceil(needed * _FURTHER), needed + largest)


_warned: set[tuple[TargetPlan, str]] = set()


def _warn_once(plan: TargetPlan, field: str, planned: int, count: int) -> None:
    if (plan, field) in _warned:
        return
    warnings.warn(
        f"a batch needs {field}={count}, more than the {planned} of its TargetPlan. It is given a larger bucket, so no "
        "target is lost, but the compiled step may meet a new shape. Make the plan larger: "
        "TargetPlan.from_dataset(..., margin=0.5), or from targets augmented as in training. This is said once.",
        stacklevel=4,
    )
    _warned.add((plan, field))
