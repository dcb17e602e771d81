"""The shape of a batch: padded rows and planned candidate windows, so that a training run is one graph.

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
from compiled_loss.assign.windows import candidate_counts
from compiled_loss.checks import check_strides, require, whole_number
from compiled_loss.geometry.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh
from compiled_loss.geometry.pixels import box_pixels
from compiled_loss.rows import join_images, map_rows, next_power_of_two, pad_rows, rounded_rows
from compiled_loss.targets import Targets

_SMALLEST_WINDOW = 32

# Room for the pixels of rows that hold more than k positives, having won anchors that other rows selected, which read
# their box once more: in crowds up to a sixth more was seen, and where rows are few it may be the largest box.
_FURTHER = 5 / 4

# The device may round the pixel sides of a box differently (fused multiply-add), and then an anchor that lies on a side
# here lies inside there. Sides are within 5 image sizes of the origin (`Targets.validate`) and come from a handful of
# float32 operations, each off by at most 2^-24 of that: together below 3e-6 of the image size. Windows are counted with
# every side moved outwards by more than that; anchors are whole or half pixels, so it adds only those on a side.
_SLACK = 1e-5


@dataclass(frozen=True)
class TargetPlan:
    """How many rows a batch is padded to and how many candidate anchors a row keeps.

    With `rows` and `window` given (`from_dataset`) every batch has one shape, and a run one graph. Where they are None,
    each batch takes the smallest bucket that holds it: rows in multiples of 16, or in powers of two; windows of 32, 48,
    64, 96, 128, ... up to the number of anchors. A batch with more or larger rows than planned loses nothing: it takes
    a larger bucket, and a warning says so once. For other image sizes (multi-scale),
    `dataclasses.replace(plan, image_size=...)`.

    Where targets have masks, the mask pixels in the boxes are planned too: tiles of 64 for all rows together, and a
    quarter or the largest row's more. That room is for rows with more than k positives, of which the host cannot know.
    Should it not suffice, those positives lack pixels in the mask term, which `LossOutput.overflow` counts.

    Args:
        image_size: (height, width) in pixels, multiples of every stride.
        strides: pixels per grid cell of each level, finest first.
        rows: N of every batch; None plans it for each batch.
        window: candidate anchors kept per row; None plans it for each batch.
        power_of_two: round the number of rows up to a power of two.
        num_classes: C, to check the labels of every batch against; None leaves them unchecked above.
        mask_tiles: tiles of mask pixels kept for a batch; None plans it for each batch.

    Raises:
        ValueError: for an image size that a stride does not divide, or numbers that are not positive.

    Example:
        >>> import torch
        >>> t = Targets(torch.tensor([1, 0]), torch.tensor([3, 4]), torch.full((2, 4), 0.5))
        >>> planned = TargetPlan((64, 64), (8, 16, 32)).apply(t)
        >>> len(planned.labels), planned.window, planned.labels[:2]
        (16, 32, tensor([4, 3]))
    """

    image_size: tuple[int, int]
    strides: tuple[int, ...] = (8, 16, 32)
    rows: int | None = None
    window: int | None = None
    power_of_two: bool = False
    num_classes: int | None = None
    mask_tiles: int | None = None

    def __post_init__(self) -> None:
        strides, pair = check_strides(self.strides), self.image_size
        two = isinstance(pair, Sequence) and len(pair) == 2
        require(two, "image_size", f"(height, width), multiples of the strides {strides}", pair)
        size = tuple(whole_number("image_size", side) for side in pair)
        fits = not any(side % s for side in size for s in strides)
        require(fits, "image_size", f"(height, width), multiples of the strides {strides}", size)
        checked: dict[str, Any] = {"image_size": size, "strides": strides}
        for name, least in (("rows", 2), ("window", 1), ("mask_tiles", 1), ("num_classes", 1)):
            number = getattr(self, name)
            checked[name] = None if number is None else whole_number(name, number, least)
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

        `rows` is the sum of the `batch_size` largest images' row counts, rounded up; `window` the widest box's;
        `mask_tiles`, where the first image has masks, the sum of the `batch_size` largest images' tiles with room.

        Args:
            targets: the Targets of each image (`batch_idx` 0), as the model will see them.
            batch_size: images in a batch.
            image_size: (height, width) in pixels, after resizing.
            strides: pixels per grid cell of each level, finest first.
            margin: room for augmentation: 0.25 plans for a quarter more rows, and for sides a quarter longer.
            power_of_two: round the number of rows up to a power of two.
            num_classes: C, to check labels against, here and in every batch.

        Returns:
            A plan with `rows`, `window` and, for masks, `mask_tiles` fixed.

        Raises:
            ValueError: for an empty data set, Targets that are not one image's, or arguments out of range.

        Example:
            >>> import torch
            >>> one = Targets(torch.zeros(20).long(), torch.zeros(20).long(), torch.full((20, 4), 0.5))
            >>> plan = TargetPlan.from_dataset([one, one, one], batch_size=2, image_size=(64, 64))
            >>> plan.rows, plan.window
            (48, 32)
        """
        plan = cls(image_size, strides, power_of_two=power_of_two, num_classes=num_classes)
        batch_size = whole_number("batch_size", batch_size)
        require(0 <= margin < math.inf, "margin", "a finite number of 0 or more", margin)
        images, size = [], None
        for one in targets:
            require(isinstance(one, Targets), f"targets[{len(images)}]", "Targets", type(one).__name__)
            size = _mask_size(one) if not images else size
            images.append(_without_pixels(one))
        joined = join_images(images, "targets").validate(num_classes=num_classes)
        counts = torch.bincount(joined.batch_idx, minlength=len(images))
        largest = int(counts.topk(min(batch_size, len(images))).values.sum())
        rows = rounded_rows(math.ceil(largest * (1 + margin)), 16, power_of_two)
        widest = plan._widest(joined, margin)
        plan = replace(plan, rows=rows, window=plan._window_for(widest))
        if size is None:
            return plan
        tiles = _row_tiles(joined.boxes, size, margin)
        of_images = torch.zeros(len(images), dtype=torch.int64).index_add(0, joined.batch_idx, tiles)
        most = of_images.topk(min(batch_size, len(images))).values
        return replace(plan, mask_tiles=_tiles_for(most))

    def apply(self, targets: Targets, batch_size: int | None = None) -> Targets:
        """Sort by image, keeping the order inside each; drop old padding; pad anew; set the window.

        Args:
            targets: the rows of one batch, in any order.
            batch_size: B, to check `batch_idx` against; None leaves it unchecked above.

        Returns:
            Targets with `is_sorted` and `window` set, ready for the device.

        Raises:
            ValueError: what `Targets.validate` finds.
        """
        targets.validate(batch_size, self.num_classes)
        order = torch.argsort(targets.batch_idx, stable=True)
        order = order[int((targets.batch_idx < 0).sum()) :]
        kept = map_rows(targets, lambda x: x[order])
        size = _mask_size(kept)
        kept = kept._replace(
            window=self._fitting_window(self._widest(kept)),
            is_sorted=True,
            mask_tiles=None if size is None else self._fitting_tiles(_row_tiles(kept.boxes, size)),
        )
        return pad_rows(kept, self._fitting_rows(len(order)), power_of_two=self.power_of_two)

    @property
    def _grid_sizes(self) -> tuple[tuple[int, int], ...]:
        return tuple((self.image_size[0] // s, self.image_size[1] // s) for s in self.strides)

    def _widest(self, targets: Targets, margin: float = 0.0) -> int:
        """Most slots that any of the rows needs, an upper bound under rounding."""
        boxes = targets.boxes
        if len(boxes) == 0:
            return 0
        height, width = self.image_size
        pixels = boxes.float() * boxes.new_tensor([width, height, width, height], dtype=torch.float32)
        # Short sides are enlarged here already: after that the slack counts for them too.
        sides = (pixels[:, 2:] * (1 + margin)).clamp(min=self.strides[:2][-1])
        upright = torch.cat([pixels[:, :2], sides], dim=1)
        if targets.angles is not None:
            turned = torch.cat([upright, targets.angles.float()[:, None]], dim=1)
            upright = xyxy_to_cxcywh(rotated_reach(turned, self.strides))
        grown = cxcywh_to_xyxy(upright + upright.new_tensor([0, 0, 1, 1]) * 2 * _SLACK * max(self.image_size))
        return int(candidate_counts(grown, self._grid_sizes, self.strides).max())

    def _window_for(self, count: int) -> int:
        """The bucket of a window that has to hold `count` anchors."""
        return min(_bucket(count), sum(h * w for h, w in self._grid_sizes))

    def _fitting_window(self, count: int) -> int:
        if self.window is None:
            return self._window_for(count)
        if count > self.window:
            _warn_once(self, "window", self.window, count)
            return self._window_for(count)
        return self.window

    def _fitting_tiles(self, tiles: Tensor) -> int:
        if self.mask_tiles is None:
            return _tiles_for(tiles)
        count = int(tiles.sum())
        if count > self.mask_tiles:
            _warn_once(self, "mask_tiles", self.mask_tiles, count)
            return _tiles_for(tiles)
        return self.mask_tiles

    def _fitting_rows(self, count: int) -> int | None:
        if self.rows is None:
            return None
        rows = self.rows
        while rows < count:
            rows *= 2
        if rows > self.rows:
            _warn_once(self, "rows", self.rows, count)
        return rows


def _bucket(count: int) -> int:
    """The least of 32, 48, 64, 96, 128, ... that is not below `count`."""
    bucket = next_power_of_two(max(count, _SMALLEST_WINDOW))
    return bucket * 3 // 4 if count <= bucket * 3 // 4 and bucket > _SMALLEST_WINDOW else bucket


def _without_pixels(one: Targets) -> Targets:
    """What a plan looks at; masks would be the whole data set's."""
    return one._replace(masks=None, index_map=None, class_map=None)


def _mask_size(targets: Targets) -> tuple[int, int] | None:
    """(H, W) of the masks, if there are any."""
    maps = targets.masks if targets.index_map is None else targets.index_map
    return None if maps is None else (maps.shape[1], maps.shape[2])


def _row_tiles(boxes: Tensor, size: tuple[int, int], margin: float = 0.0) -> Tensor:
    """`[N]` tiles that hold the pixels of each box, an upper bound under rounding."""
    sides = boxes[:, 2:].float() * (1 + margin) + 2 * _SLACK
    grown = cxcywh_to_xyxy(torch.cat([boxes[:, :2].float(), sides], dim=1))
    return box_pixels(grown * grown.new_tensor([size[1], size[0]] * 2), size).tiles.long()


def _tiles_for(tiles: Tensor) -> int:
    """Room for them all and for rows with more positives, in steps of an eighth: work follows it closely."""
    needed, largest = int(tiles.sum()), int(tiles.max()) if len(tiles) else 0
    count = max(math.ceil(needed * _FURTHER), needed + largest, _SMALLEST_WINDOW)
    step = max(next_power_of_two(count) // 16, 1)
    return -(-count // step) * step


_warned: set[tuple[TargetPlan, str]] = set()


def _warn_once(plan: TargetPlan, field: str, planned: int, count: int) -> None:
    if (plan, field) in _warned:
        return
    warnings.warn(
        f"a batch needs {field}={count}, more than the {planned} of its TargetPlan. It is given a larger bucket, so no "
        "target is lost, but the compiled step meets a new shape. Make the plan larger: TargetPlan.from_dataset(..., "
        "margin=0.5), or from targets that are augmented as in training. This is said once.",
        stacklevel=4,
    )
    _warned.add((plan, field))
