"""The shape of a batch: padded rows and planned pages of candidates, so that a training run is one graph.

Host side: everything here runs in the data loading workers and reads values, so that the device does not have to.

Letters: B images, N rows, M slots per image, K keypoints, A anchors, H and W mask pixels.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal, overload

import torch
from torch import Tensor

from compiled_loss.assign.regions import Region, check_region
from compiled_loss.checks import check_strides, finite_number, require, true_or_false, whole_number, whole_pair
from compiled_loss.data.needs import mask_size, needed_pages, needed_tiles, with_room
from compiled_loss.data.padded import SLOT_STEP, PaddedTargets
from compiled_loss.data.rows import check_kind, join_images, map_rows, next_power_of_two, pad_rows, rounded_rows
from compiled_loss.data.targets import Targets

# Fewest pages: not 0 or 1, which torch treats as constants, and no separate buckets for small numbers.
_FEWEST = 16


@dataclass(frozen=True)
class TargetPlan:
    """How many rows a batch is padded to, and how many pages of 64 candidate anchors are kept for all rows together.

    If `rows` and `pages` are given (`from_dataset`), every batch has the same shape, as CUDA graphs require. If they
    are None, each batch takes the smallest bucket that holds it: rows in multiples of 16, pages in steps of a
    sixteenth, or both in powers of two; one graph serves them all (`Targets.mark_dynamic`). A batch with more or larger
    rows than planned loses nothing: it takes a larger bucket, with a single warning. For other image sizes
    (multi-scale), use `dataclasses.replace(plan, image_size=...)`.

    If targets have masks, the mask pixels in the boxes are planned too, in tiles of 64 for all rows together, plus a
    reserve of a quarter or of the largest row's tiles, whichever is more. It is for rows with more than k positives,
    which the host cannot know. If it is too small, such positives lack pixels in the mask term, which
    `LossOutput.overflow` counts.

    The padded form (`apply(..., padded=True)`) has its own numbers, per image instead of per batch: slots, in multiples
    of 8 unless given, pages and tiles.

    Args:
        image_size: (height, width) in pixels, multiples of the finest stride; coarser grids are rounded up.
        strides: pixels per grid cell of each level, finest level first.
        rows: N of every batch; None plans it for each batch.
        pages: pages of candidate anchors kept for a batch; None plans it for each batch.
        power_of_two: round rows, pages and tiles up to powers of two.
        num_classes: C, to check the labels of every batch against; None sets no upper bound.
        mask_tiles: tiles of mask pixels kept for a batch; None plans it for each batch.
        slots: M of every batch in the padded form; None plans it for each batch.
        image_pages: pages of candidate anchors kept for each image in the padded form; None plans it for each batch.
        image_mask_tiles: tiles of mask pixels kept for each image in the padded form; None plans it for each batch.
        region: where candidates lie, the `criterion.region` of any loss; None means inside the boxes, the default.

    Raises:
        ValueError: if the finest stride does not divide the image size, or a number is not positive.

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
    slots: int | None = None
    image_pages: int | None = None
    image_mask_tiles: int | None = None
    region: Region | None = None

    def __post_init__(self) -> None:
        strides = check_strides(self.strides)
        expected = f"(height, width), multiples of the finest stride {strides[0]}"
        size = whole_pair("image_size", self.image_size, expected)
        require(not any(side % strides[0] for side in size), "image_size", expected, size)
        checked: dict[str, Any] = {"image_size": size, "strides": strides}
        capacities = "pages", "mask_tiles", "slots", "image_pages", "image_mask_tiles"
        for name in ("rows", "num_classes", *capacities):
            number = getattr(self, name)
            checked[name] = None if number is None else whole_number(name, number, 2 if name == "rows" else 1)
        true_or_false("power_of_two", self.power_of_two)
        check_region("region", self.region)
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
        region: Region | None = None,
    ) -> TargetPlan:
        """One plan for a whole data set: no batch drawn from it without replacement exceeds it.

        `rows` is the sum of the `batch_size` largest row counts of an image, rounded up; `pages` is the same for pages;
        `mask_tiles`, if the first image has masks, the same for tiles, with a reserve. `slots`, `image_pages` and
        `image_mask_tiles` are the most that any image needs.

        Args:
            targets: the Targets of each image (`batch_idx` 0), as the model will see them.
            batch_size: images in a batch.
            image_size: (height, width) in pixels, after resizing.
            strides: pixels per grid cell of each level, finest level first.
            margin: extra room for augmentation: 0.25 plans for a quarter more rows, each with sides a quarter longer.
            power_of_two: round rows, pages and tiles up to powers of two.
            num_classes: C, to check labels against, here and in every batch.
            region: where candidates lie, as above.

        Returns:
            A plan with fixed numbers for both forms; numbers of tiles only if there are masks.

        Raises:
            ValueError: for an empty data set, Targets of more than one image, or arguments out of range.

        Example:
            >>> import torch
            >>> one = Targets(torch.zeros(20).long(), torch.zeros(20).long(), torch.full((20, 4), 0.5))
            >>> plan = TargetPlan.from_dataset([one, one, one], batch_size=2, image_size=(64, 64))
            >>> plan.rows, plan.pages, plan.slots, plan.image_pages
            (48, 40, 24, 20)
        """
        plan = cls(image_size, strides, power_of_two=power_of_two, num_classes=num_classes, region=region)
        batch_size = whole_number("batch_size", batch_size)
        margin = finite_number("margin", margin)
        images, size = [], None
        for one in targets:
            check_kind(one, f"targets[{len(images)}]", "Targets")
            size = mask_size(one) if not images else size
            # Joined, the masks would be those of the whole data set.
            images.append(one._replace(masks=None, index_map=None, class_map=None))
        joined = join_images(images, "targets").validate(num_classes=num_classes)

        def largest(counts: Tensor) -> tuple[int, int]:
            """The most that a batch, and an image, may need, with margin, if each row needs `counts`."""
            of_images = counts.new_zeros(len(images)).index_add(0, joined.batch_idx, counts)
            most = of_images.topk(min(batch_size, len(images))).values
            return math.ceil(int(most.sum()) * (1 + margin)), math.ceil(int(most[0]) * (1 + margin))

        rows, slots = largest(torch.ones_like(joined.batch_idx))
        rows, slots = rounded_rows(rows, 16, power_of_two), rounded_rows(slots, SLOT_STEP, power_of_two)
        pages, image_pages = map(plan._bucket, largest(plan._pages(joined, margin)))
        plan = replace(plan, rows=rows, pages=pages, slots=slots, image_pages=image_pages)
        if size is None:
            return plan
        tiles = needed_tiles(joined.boxes, size, margin)
        of_batch, of_image = (plan._bucket(with_room(most, tiles)) for most in largest(tiles))
        return replace(plan, mask_tiles=of_batch, image_mask_tiles=of_image)

    @overload
    def apply(self, targets: Targets, batch_size: int | None = None, *, padded: Literal[False] = False) -> Targets: ...
    @overload
    def apply(self, targets: Targets, batch_size: int, *, padded: Literal[True]) -> PaddedTargets: ...
    @overload
    def apply(self, targets: Targets, batch_size: int | None = None, *, padded: bool) -> Targets | PaddedTargets: ...
    def apply(
        self, targets: Targets, batch_size: int | None = None, *, padded: bool = False
    ) -> Targets | PaddedTargets:
        """Sort rows by image, keeping their order within each, replace the padding, and set the pages.

        Args:
            targets: the rows of one batch, in any order.
            batch_size: B, to check `batch_idx` against; None sets no upper bound.
            padded: give every image its own slots and pages, for code that slices or joins batches by image.

        Returns:
            Targets with `is_sorted`, `pages` and `rows` set, ready for the device; or `PaddedTargets` with `pages` set,
            no field of which is None.

        Raises:
            ValueError: if `Targets.validate` finds a fault, or for the padded form without `batch_size`.

        Example:
            >>> import torch
            >>> t = Targets(torch.tensor([1, 1, 0]), torch.tensor([3, 4, 5]), torch.full((3, 4), 0.5))
            >>> planned = TargetPlan((64, 64)).apply(t, 2, padded=True)
            >>> planned.counts, planned.labels.shape, planned.pages.shape
            (tensor([1, 2]), torch.Size([2, 8]), torch.Size([2, 16]))
        """
        check_kind(targets, "targets")
        targets.validate(batch_size, self.num_classes)
        order = torch.argsort(targets.batch_idx, stable=True)
        order = order[int((targets.batch_idx < 0).sum()) :]
        kept = map_rows(targets, lambda x: x[order])._replace(pages=None, is_sorted=True, mask_tiles=None)
        size = mask_size(kept)
        pages, tiles = self._pages(kept), None if size is None else needed_tiles(kept.boxes, size)
        if padded:
            require(batch_size is not None, "batch_size", "the number of images, which the padded form needs", None)
            return self._padded(kept, whole_number("batch_size", batch_size), pages, tiles)
        room = {"pages": _empty_pages(self._room("pages", int(pages.sum())))}
        if tiles is not None:
            needed = int(tiles.sum())
            room["mask_tiles"] = _empty_pages(self._room("mask_tiles", needed, with_room(needed, tiles)))
        return pad_rows(kept._replace(**room), self._fitting("rows", len(order)), power_of_two=self.power_of_two)

    def _padded(self, rows: Targets, images: int, pages: Tensor, tiles: Tensor | None) -> PaddedTargets:
        """Sorted rows in slots, with as many pages as any image needs."""
        counts = torch.bincount(rows.batch_idx, minlength=images).tolist()
        most = max(counts)
        slots = self._fitting("slots", most) or rounded_rows(most, SLOT_STEP, self.power_of_two)
        of_images = [int(x.sum()) for x in pages.split(counts)]
        room = {"pages": _empty_pages(images, self._room("image_pages", max(of_images)))}
        if tiles is not None:
            needed = [(int(x.sum()), with_room(int(x.sum()), x)) for x in tiles.split(counts)]
            least, wished = (max(x) for x in zip(*needed, strict=True))
            room["mask_tiles"] = _empty_pages(images, self._room("image_mask_tiles", least, wished))
        return PaddedTargets.from_rows(rows, images, slots)._replace(**room)

    def _pages(self, targets: Targets, margin: float = 0.0) -> Tensor:
        """`[N]` pages that suffice for each row."""
        needed = needed_pages(targets, self.image_size, self.strides, margin, self.region)
        if margin and self.region is not None:  # a region may hold fewer anchors of a larger box
            needed = torch.maximum(needed, self._pages(targets))
        return needed

    def _bucket(self, count: int) -> int:
        """The smallest bucket that holds `count`: a power of two, or a multiple of a sixteenth of one."""
        power = next_power_of_two(max(count, _FEWEST))
        step = power if self.power_of_two else power // 16
        return max(-(-count // step) * step, _FEWEST)

    def _room(self, field: str, count: int, wished: int | None = None) -> int:
        """The number of pages: as planned, otherwise a bucket for `wished` if given, else for `count`."""
        planned = getattr(self, field)
        if planned is not None and count > planned:
            _warn_once(self, field, planned, count)
            planned = None
        return self._bucket(wished or count) if planned is None else planned

    def _fitting(self, field: str, count: int) -> int | None:
        """Rows or slots as planned, or doubled until they hold `count`; None without a plan."""
        planned = getattr(self, field)
        if planned is None:
            return None
        size = planned
        while size < count:
            size *= 2
        if size > planned:
            _warn_once(self, field, planned, count)
        return size


def _empty_pages(*sizes: int) -> Tensor:
    """A tensor used only for its size, which, unlike a number, a compiled graph can leave open."""
    return torch.zeros(sizes, dtype=torch.int8, device="cpu")


_warned: set[tuple[TargetPlan, str]] = set()


def _warn_once(plan: TargetPlan, field: str, planned: int, count: int) -> None:
    plan = replace(plan, region=None)  # a user's own region may not be hashable
    if (plan, field) in _warned:
        return
    warnings.warn(
        f"a batch needs {field}={count}, more than the {planned} of its TargetPlan. It gets a larger size, so no "
        "target is lost, but a compiled step may compile again for the new shape. Make a larger plan: "
        "TargetPlan.from_dataset(..., margin=0.5), or one from targets augmented as in training. "
        "This warning appears once.",
        stacklevel=4,
    )
    _warned.add((plan, field))
