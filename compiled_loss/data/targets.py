"""Targets: every object of a batch as one flat table of rows.

Letters: B images, N rows, C classes, K keypoints, H by W pixels of a mask, whatever the image's own size.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from compiled_loss.checks import check_floating, check_integer, check_same_device, check_shape, require, whole_number

# How many image sizes a box may reach beyond the image: crops and shifts that were not clipped stay well below,
# coordinates in pixels lie far above.
_REACH = 4.0
_IN_REACH = (
    f"fractions of the image's width and height, at most {_REACH:g} image sizes outside the image "
    "(are these pixels? divide x by the width and y by the height)"
)
# Largest angle in radians, with room for rounding.
_FULL_TURN = 2 * math.pi + 1e-3


class Targets(NamedTuple):
    """The labelled objects of a batch, one row each, all images together.

    A NamedTuple, so it passes unchanged through `torch.compile`, `torch.export` and a `DataLoader`
    with `pin_memory=True`. Coordinates are fractions of the image's width and height.

    Args:
        batch_idx: `[N]` integer, image of each row. -1 is padding; where values are not checked (in graphs and on
            devices), so is everything else outside `[0, B)`.
        labels: `[N]` integer, class id of each row, in `[0, C)`.
        boxes: `[N, 4]` float, (centre x, centre y, width, height), each divided by image width or height.
        keypoints: `[N, K, 2]` normalised (x, y), or `[N, K, 3]` with a visibility flag (0: not labelled); or None.
        pages: pages of 64 candidate anchors kept for all rows together, planned by the host: their number, or a tensor
            of that length whose values are ignored and whose size a compiled graph can leave open. None makes room for
            as many as needed; in a compiled graph and on a device, whose values are not read, for all anchors per row.
        is_sorted: promise that real rows come in image order with the padding last; lets `fill` skip a sort.
        angles: `[N]` rotation of each box about its centre, radians, x towards y; None if boxes are upright.
        masks: `[N, H, W]` mask of each row: bool, uint8 or float, from 0 to 1; or None.
        index_map: `[B, H, W]` integer, all masks of an image in one: 0 where there is none, i + 1 on the image's i-th
            row; or None. Use it instead of `masks` if masks do not overlap.
        class_map: `[B, H, W]` integer class id of every pixel, of the masks' size; or None.
        mask_tiles: tiles of 64 mask pixels kept for all rows' boxes together, in the same way as `pages`.
        rows: scalar integer, N when the batch was made (`sources`, `pad_rows`, a plan, `collate`); None if unknown, for
            instance after removing rows on purpose. It is a safeguard: a framework that slices every tensor of a batch
            by image would lose rows, but fails on a scalar. `PaddedTargets` can be sliced that way.
        weights: `[N]` float, 0 or more, weight of each row's positives in every term, including their class loss; the
            sum of target scores by which terms are divided does not change. They get no gradient. None means 1.
        ignore: `[N]` bool, True for rows that are not objects but unlabelled regions, such as crowds. Anchors that an
            object with this box might get, and that no other row has, are left out of the class term. None means none.
        attributes: `[N, D]` float, further numbers of each row, such as a depth, for terms of your own (`extras=`).

    Example:
        >>> import torch
        >>> t = Targets(torch.tensor([0, 0, 1]), torch.tensor([2, 0, 1]), torch.rand(3, 4))
        >>> t.to("cpu").boxes.shape
        torch.Size([3, 4])
    """

    batch_idx: Tensor
    labels: Tensor
    boxes: Tensor
    keypoints: Tensor | None = None
    pages: Tensor | int | None = None
    is_sorted: bool = False
    angles: Tensor | None = None
    masks: Tensor | None = None
    index_map: Tensor | None = None
    class_map: Tensor | None = None
    mask_tiles: Tensor | int | None = None
    rows: Tensor | None = None
    weights: Tensor | None = None
    ignore: Tensor | None = None
    attributes: Tensor | None = None

    def to(self, device: torch.device | str | int, *, non_blocking: bool = False) -> "Targets":
        """Move every tensor to a device; dtypes are kept."""
        return self._map(lambda x: x.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "Targets":
        """Copy every tensor into page-locked memory, as `Tensor.pin_memory` does."""
        return self._map(lambda x: x.pin_memory())

    def validate(self, batch_size: int | None = None, num_classes: int | None = None) -> "Targets":
        """Check shapes, types and values on the host, and report the first faulty row.

        For data loading and debugging: it reads values, so it waits for the device and cannot be traced. It checks
        ranks, dtypes, row counts and devices; that `batch_idx` is in `[-1, B)`; the order that `is_sorted` promises;
        that boxes, keypoints, angles, attributes and weights are finite, and weights not negative; and for real rows
        (`batch_idx >= 0`) that labels are in `[0, C)`, except for ignore rows, that widths, heights and visibility
        flags are not negative, and that coordinates are fractions and not pixels. Boxes may have size zero and may
        extend beyond the image. Padding rows may hold any finite values (a weight of 0 times NaN is NaN). Masks must
        lie in [0, 1], and index maps must not hold negative ids.

        Args:
            batch_size: B, the number of images; None sets no upper bound for `batch_idx`.
            num_classes: C; None sets no upper bound for `labels`.

        Returns:
            These targets, unchanged.

        Raises:
            ValueError: naming the field, what was expected and found, the first bad row and the number of bad rows; or
                if `batch_size` or `num_classes` is not a positive integer.

        Example:
            >>> import torch
            >>> t = Targets(torch.tensor([0, 1]), torch.tensor([0, 7]), torch.full((2, 4), 0.5))
            >>> t.validate(batch_size=2, num_classes=8).labels
            tensor([0, 7])
            >>> t.validate(num_classes=5)
            Traceback (most recent call last):
            ValueError: Targets.labels: expected a class id in [0, 5), got 7 in row 1 (image 1); bad rows: 1 of 2
        """
        for name, count in (("batch_size", batch_size), ("num_classes", num_classes)):
            if count is not None:
                whole_number(name, count)
        check_structure(self, "Targets")
        _check_values(self, batch_size, num_classes)
        return self

    def mark_dynamic(self) -> "Targets":
        """Tell `torch.compile` that the numbers of rows and pages vary, so that one graph serves every batch.

        Call it on the tensors that enter the compiled function, after `.to(device)`: a copy loses the mark.
        Rows must be padded (`pad_rows`, `collate`), since torch compiles separate graphs for the sizes 0 and 1.
        """
        import torch._dynamo  # noqa: PLC0415  (slow to import, and only compiling users need it)

        for name in (*ROW_FIELDS, *CAPACITIES):
            x = getattr(self, name)
            if isinstance(x, Tensor):
                torch._dynamo.mark_dynamic(x, 0)
        return self

    def _map(self, function: Any) -> "Targets":
        fields: list[Any] = [function(x) if isinstance(x, Tensor) else x for x in self]
        return Targets(*fields)


# Fields with one entry per row, those with one per image, and those whose length is a number of pages.
ROW_FIELDS = ("batch_idx", "labels", "boxes", "keypoints", "angles", "masks", "weights", "ignore", "attributes")
IMAGE_FIELDS = ("index_map", "class_map")
CAPACITIES = ("pages", "mask_tiles")


def out_of_order(batch_idx: Tensor) -> Tensor:
    """Rows of `batch_idx` `[N]` int64 that come after a row of a later image, or after padding: `[N]` bool."""
    key = torch.where(batch_idx >= 0, batch_idx, torch.iinfo(torch.int64).max)
    return key < torch.cat([key[:1], key[:-1]])


def check_structure(targets: "Targets", argument: str) -> None:
    """Check ranks, dtypes, row counts and devices, the part of `Targets.validate` that reads no values.

    Raises:
        ValueError: naming the field as `argument.field`.
    """
    batch_idx, labels, boxes, keypoints = targets[:4]
    check_shape(f"{argument}.batch_idx", batch_idx, ["N"])
    rows = batch_idx.shape[0]
    check_shape(f"{argument}.labels", labels, [rows])
    check_shape(f"{argument}.boxes", boxes, [rows, 4])
    check_integer(f"{argument}.batch_idx", batch_idx)
    check_integer(f"{argument}.labels", labels)
    check_floating(f"{argument}.boxes", boxes)
    if keypoints is not None:
        check_shape(f"{argument}.keypoints", keypoints, [rows, "K >= 1", "2 or 3"])
        fits = keypoints.shape[1] > 0 and keypoints.shape[2] in (2, 3)
        require(fits, f"{argument}.keypoints", [rows, "K >= 1", "2 or 3"], tuple(keypoints.shape))
        check_floating(f"{argument}.keypoints", keypoints)
    if targets.angles is not None:
        check_shape(f"{argument}.angles", targets.angles, [rows])
        check_floating(f"{argument}.angles", targets.angles)
    if targets.weights is not None:
        check_shape(f"{argument}.weights", targets.weights, [rows])
        check_floating(f"{argument}.weights", targets.weights)
    if targets.ignore is not None:
        check_shape(f"{argument}.ignore", targets.ignore, [rows])
        require(targets.ignore.dtype == torch.bool, f"{argument}.ignore", "torch.bool", targets.ignore.dtype)
    if targets.attributes is not None:
        check_shape(f"{argument}.attributes", targets.attributes, [rows, "D"])
        check_floating(f"{argument}.attributes", targets.attributes)
    if targets.rows is not None:
        check_shape(f"{argument}.rows", targets.rows, [])
        check_integer(f"{argument}.rows", targets.rows)
    _check_masks(targets, argument)
    check_same_device(**{f"{argument}.{name}": getattr(targets, name) for name in (*ROW_FIELDS, *IMAGE_FIELDS)})
    for name in CAPACITIES:
        size = getattr(targets, name)
        if isinstance(size, Tensor):
            check_shape(f"{argument}.{name}", size, ["pages"])
            require(size.shape[0] >= 1, f"{argument}.{name}", "at least one page", 0)
        else:
            whole = isinstance(size, int) and not isinstance(size, bool) and size >= 1
            require(size is None or whole, f"{argument}.{name}", "None, a positive integer or a tensor [pages]", size)


def _check_masks(targets: "Targets", argument: str) -> None:
    masks, index_map, class_map = targets.masks, targets.index_map, targets.class_map
    if masks is not None:
        require(index_map is None, f"{argument}.index_map", "None if masks are given", "a tensor")
        check_shape(f"{argument}.masks", masks, [targets.batch_idx.shape[0], "H", "W"])
        fits = masks.is_floating_point() or masks.dtype in (torch.bool, torch.uint8)
        require(fits, f"{argument}.masks", "bool, uint8 or a floating-point dtype", masks.dtype)
    given = {"index_map": index_map, "class_map": class_map}
    for name, x in given.items():
        if x is not None:
            check_shape(f"{argument}.{name}", x, ["B", "H", "W"])
            kinds = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
            require(x.dtype in kinds, f"{argument}.{name}", "an integer dtype, uint8 or signed", x.dtype)
    if class_map is not None:
        size = masks if index_map is None else index_map
        require(size is not None, f"{argument}.class_map", "None if neither masks nor index_map is given", "a tensor")
        assert size is not None
        fits = class_map.shape[1:] == size.shape[1:] and (index_map is None or class_map.shape[0] == index_map.shape[0])
        require(fits, f"{argument}.class_map", "the same images and pixels as the masks", tuple(class_map.shape))


def _check_values(targets: "Targets", batch_size: int | None, num_classes: int | None) -> None:
    boxes, keypoints, is_sorted = targets.boxes, targets.keypoints, targets.is_sorted
    batch_idx, labels = targets.batch_idx.long(), targets.labels.long()  # an unsigned dtype has no -1 to compare with
    real = batch_idx >= 0
    made = len(batch_idx) if targets.rows is None else int(targets.rows)
    expected = (
        f"the {made} rows that the batch was made with (was it sliced by image? use collate(..., padded=True) for that)"
    )
    require(made == len(batch_idx), "Targets.batch_idx", expected, len(batch_idx))

    def check(name: str, values: Tensor, bad: Tensor, expected: str) -> None:
        _raise_for_first(name, values, bad, batch_idx, expected)

    end = "" if batch_size is None else f" below the batch size {batch_size}"
    bad = batch_idx < -1 if batch_size is None else (batch_idx < -1) | (batch_idx >= batch_size)
    check("batch_idx", batch_idx, bad, f"-1 (padding) or an image index{end}")
    if is_sorted:
        expected = "rows in image order with the padding last, as is_sorted=True promises"
        check("batch_idx", batch_idx, out_of_order(batch_idx), expected)

    bad = labels < 0 if num_classes is None else (labels < 0) | (labels >= num_classes)
    # Regions that nobody labelled need no class.
    classed = real if targets.ignore is None else real & ~targets.ignore
    check("labels", labels, bad & classed, f"a class id in [0, {'C' if num_classes is None else num_classes})")

    check("boxes", boxes, ~boxes.isfinite().all(1), "finite numbers")
    check("boxes", boxes, (boxes[:, 2:] < 0).any(1) & real, "(centre x, centre y, width, height) with no negative size")
    reach = (boxes[:, :2] - 0.5).abs() + boxes[:, 2:] / 2
    check("boxes", boxes, (reach > 0.5 + _REACH).any(1) & real, _IN_REACH)

    if targets.weights is not None:
        bad = ~(targets.weights.isfinite() & (targets.weights >= 0))
        check("weights", targets.weights, bad, "finite numbers of 0 or more")
    if targets.attributes is not None:
        check("attributes", targets.attributes, ~targets.attributes.isfinite().all(1), "finite numbers")
    if targets.angles is not None:
        check("angles", targets.angles, ~targets.angles.isfinite(), "finite numbers, radians")
        far = (targets.angles.abs() > _FULL_TURN) & real
        check("angles", targets.angles, far, "radians, at most a full turn (are these degrees? multiply by pi / 180)")
    if targets.masks is not None and targets.masks.numel() > 0:
        extremes = torch.stack(targets.masks.float().flatten(1).aminmax(dim=1), 1)  # [N, 2]
        check("masks", extremes, ~((extremes >= 0) & (extremes <= 1)).all(1), "values from 0 to 1")
    index_map = targets.index_map
    if index_map is not None:
        images = len(index_map) if batch_size is None else batch_size
        require(len(index_map) == images, "Targets.index_map", [images, "H", "W"], tuple(index_map.shape))
        require(not (index_map < 0).any(), "Targets.index_map", "ids of 0 (no object) or more", "a negative id")
    if keypoints is None:
        return
    check("keypoints", keypoints, ~keypoints.isfinite().all(2), "finite numbers (also where the flag is 0)")
    labelled = real[:, None].expand(keypoints.shape[:2])
    if keypoints.shape[2] == 3:
        check(
            "keypoints", keypoints, (keypoints[..., 2] < 0) & labelled, "(x, y, flag) with a flag that is not negative"
        )
        labelled = labelled & (keypoints[..., 2] > 0)
    reach = (keypoints[..., :2] - 0.5).abs().amax(2)
    check("keypoints", keypoints, (reach > 0.5 + _REACH) & labelled, _IN_REACH)


def _raise_for_first(name: str, values: Tensor, bad: Tensor, batch_idx: Tensor, expected: str) -> None:
    """Raise if `bad` (`[N]` rows or `[N, K]` keypoints) holds a True, telling the first one's place and value."""
    if not bad.any():
        return
    row, *keypoint = index = bad.nonzero()[0].tolist()
    got = values[tuple(index)].tolist()
    if isinstance(got, list):
        got = [float(f"{x:.6g}") for x in got]
    place = f"row {row} (image {int(batch_idx[row])})" + "".join(f", keypoint {k}" for k in keypoint)
    count = int(bad.reshape(len(bad), -1).any(1).sum())
    raise ValueError(f"Targets.{name}: expected {expected}, got {got} in {place}; bad rows: {count} of {len(bad)}")
