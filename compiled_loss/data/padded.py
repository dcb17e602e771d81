"""PaddedTargets: the objects of each image in slots of its own, for code that slices, joins or scatters by image.

Letters: B images, M slots per image, N rows, K keypoints, G pages, H by W pixels of a mask.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from compiled_loss.checks import check_integer, check_shape, require, whole_number
from compiled_loss.data.rows import check_kind, rounded_rows
from compiled_loss.data.targets import CAPACITIES, IMAGE_FIELDS, ROW_FIELDS, Targets, check_structure
from compiled_loss.ragged import fill, positions

# Slots come in multiples of this: the fullest image sets the number for all.
SLOT_STEP = 8

_SLOT_FIELDS = ROW_FIELDS[1:]


class PaddedTargets(NamedTuple):
    """The labelled objects of a batch, in M slots per image: the first dimension of every field is the image.

    Code that slices, indexes, joins or scatters each tensor of a batch by image yields valid targets for those images.
    The losses accept it in place of `Targets`, with the same results. Work and memory follow the fullest image, with
    `N = B M` rows, so prefer flat rows if nothing splits the batch.

    A field that is not used is None or `[B, 0]`. `from_rows` produces the latter, since code that broadcasts and joins
    batches accepts only tensors.

    Args:
        counts: `[B]` integer, number of objects of each image, which fill its first slots; the others are padding.
        labels: `[B, M]` integer, class ids.
        boxes: `[B, M, 4]` float, (centre x, centre y, width, height), each divided by image width or height.
        keypoints: `[B, M, K, 2 or 3]`, as in `Targets`.
        pages: pages of 64 candidate anchors kept for each image: their number G, or a tensor `[B, G]` whose values are
            ignored and whose size a compiled graph can leave open. None as in `Targets`.
        angles: `[B, M]` rotation of each box, radians.
        masks: `[B, M, H, W]` mask of each slot.
        index_map: `[B, H, W]` integer, i + 1 on the image's i-th object.
        class_map: `[B, H, W]` integer class id of every pixel.
        mask_tiles: tiles of 64 mask pixels kept for each image, in the same way as `pages`.
        weights: `[B, M]` weight of each object's positives, as in `Targets`.
        ignore: `[B, M]` bool, slots of unlabelled regions, as in `Targets`.
        attributes: `[B, M, D]` further numbers of each object, as in `Targets`.

    Example:
        >>> import torch
        >>> rows = Targets(torch.tensor([1, 0, 1]), torch.tensor([2, 0, 1]), torch.full((3, 4), 0.5))
        >>> padded = PaddedTargets.from_rows(rows, batch_size=2, slots=3)
        >>> padded.counts, padded.labels
        (tensor([1, 2]), tensor([[0, 0, 0],
                [2, 1, 0]]))
        >>> padded.flat().batch_idx
        tensor([ 0, -1, -1,  1,  1, -1])
    """

    counts: Tensor
    labels: Tensor
    boxes: Tensor
    keypoints: Tensor | None = None
    pages: Tensor | int | None = None
    angles: Tensor | None = None
    masks: Tensor | None = None
    index_map: Tensor | None = None
    class_map: Tensor | None = None
    mask_tiles: Tensor | int | None = None
    weights: Tensor | None = None
    ignore: Tensor | None = None
    attributes: Tensor | None = None

    @classmethod
    def from_rows(cls, targets: Targets, batch_size: int, slots: int | None = None) -> "PaddedTargets":
        """Put flat rows into slots in their order, with images in any order. Can be traced.

        Pages planned for all rows together become pages of each image, as one image may need them all;
        `TargetPlan.apply(..., padded=True)` counts them per image.

        Args:
            targets: N rows; padding is left out.
            batch_size: B.
            slots: M, at least 1; None takes the smallest multiple of 8 that holds the fullest image, on the host only.

        Returns:
            `PaddedTargets` without a None. In traced code and on a device, whose values are not read, objects beyond M
            get no slot; they are still counted in `counts` and in `LossOutput.overflow`.

        Raises:
            ValueError: if an image has more objects than slots, or there are more images than B, as far as the host can
                tell; or if rows have wrong shapes.

        Example:
            >>> import torch
            >>> rows = Targets(torch.tensor([0, 0]), torch.tensor([2, 0]), torch.full((2, 4), 0.5))
            >>> PaddedTargets.from_rows(rows, batch_size=1, slots=1)
            Traceback (most recent call last):
            ValueError: slots: expected at least 2, the objects of image 0, got 1
        """
        check_kind(targets, "targets")
        check_structure(targets, "targets")
        batch_size = whole_number("batch_size", batch_size)
        for name in IMAGE_FIELDS:
            if (x := getattr(targets, name)) is not None:
                check_shape(f"targets.{name}", x, [batch_size, "H", "W"])
        batch_idx, in_order = targets.batch_idx, targets.is_sorted
        counts = positions(batch_idx, batch_size, is_sorted=in_order)[1]
        if batch_idx.device.type == "cpu" and not torch.compiler.is_compiling():
            slots = _enough_slots(batch_idx, counts, slots)
        require(slots is not None and slots >= 1, "slots", "at least 1, since the counts cannot be read here", slots)
        assert slots is not None
        fields: Any = {name: getattr(targets, name) for name in (*_SLOT_FIELDS, *IMAGE_FIELDS)}
        for name in _SLOT_FIELDS:
            if fields[name] is not None:
                fields[name] = fill(fields[name], batch_idx, batch_size, slots, is_sorted=in_order).values
        for name in CAPACITIES:
            size = getattr(targets, name)
            if size is not None:
                pages = size.shape[0] if isinstance(size, Tensor) else size
                fields[name] = torch.zeros(batch_size, pages, dtype=torch.int8, device=batch_idx.device)
        # A tensor like the labels: code that joins batches needs one for each field.
        nothing = counts.new_zeros(batch_size, 0)
        names = (*fields, *(name for name in CAPACITIES if name not in fields))
        return cls(counts, **{name: nothing if fields.get(name) is None else fields[name] for name in names})

    def flat(self) -> Targets:
        """The same objects as flat rows, `N = B M`: slot m of image b is row `b M + m`. Can be traced.

        Raises:
            ValueError: if the first sizes of a field are not B and M.
        """
        self._check_shapes()
        images, slots = self.labels.shape
        image = torch.arange(images, device=self.counts.device)[:, None]
        taken = torch.arange(slots, device=self.counts.device) < self.counts[:, None]
        fields: Any = {name: _given(getattr(self, name)) for name in (*_SLOT_FIELDS, *IMAGE_FIELDS, *CAPACITIES)}
        for name in (*_SLOT_FIELDS, *CAPACITIES):
            if isinstance(fields[name], Tensor):
                fields[name] = fields[name].flatten(0, 1)
            elif fields[name] is not None:
                fields[name] = fields[name] * images
        return Targets(torch.where(taken, image, -1).flatten(), **fields)

    def dropped(self) -> Tensor:
        """`[B]` number of objects of each image for which there was no slot."""
        return (self.counts - self.labels.shape[1]).clamp(min=0)

    def to(self, device: torch.device | str | int, *, non_blocking: bool = False) -> "PaddedTargets":
        """Move every tensor to a device; dtypes are kept."""
        return self._map(lambda x: x.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "PaddedTargets":
        """Copy every tensor into page-locked memory, as `Tensor.pin_memory` does."""
        return self._map(lambda x: x.pin_memory())

    def validate(self, batch_size: int | None = None, num_classes: int | None = None) -> "PaddedTargets":
        """Check shapes, types and values on the host, as `Targets.validate` does: slot m of image b is row `b M + m`.

        Args:
            batch_size: B, the number of images; None takes it from `counts`.
            num_classes: C; None sets no upper bound for `labels`.

        Returns:
            These targets, unchanged.

        Raises:
            ValueError: for a count below 0 or above M, or if `Targets.validate` finds a fault.

        Example:
            >>> import torch
            >>> PaddedTargets(torch.tensor([1, 3]), torch.zeros(2, 2).long(), torch.full((2, 2, 4), 0.5)).validate()
            Traceback (most recent call last):
            ValueError: PaddedTargets.counts: expected from 0 to the 2 slots of an image, got [1, 3]
        """
        rows = self.flat()
        images, slots = self.labels.shape
        if batch_size is not None:
            check_shape("PaddedTargets.counts", self.counts, [batch_size])
        fits = bool(((self.counts >= 0) & (self.counts <= slots)).all())
        expected = f"from 0 to the {slots} slots of an image"
        require(fits, "PaddedTargets.counts", expected, self.counts.tolist())
        rows.validate(images, num_classes)
        return self

    def mark_dynamic(self) -> "PaddedTargets":
        """Tell `torch.compile` that the numbers of slots and pages vary, so that one graph serves every batch.

        Call it on the tensors that enter the compiled function, after `.to(device)`: a copy loses the mark.
        """
        import torch._dynamo  # noqa: PLC0415  (slow to import, and only compiling users need it)

        for name in (*_SLOT_FIELDS, *CAPACITIES):
            x = _given(getattr(self, name))
            if isinstance(x, Tensor):
                torch._dynamo.mark_dynamic(x, 1)
        return self

    def _map(self, function: Any) -> "PaddedTargets":
        fields: list[Any] = [function(x) if isinstance(x, Tensor) else x for x in self]
        return PaddedTargets(*fields)

    def _check_shapes(self) -> None:
        """Check the sizes that flat rows would hide; other sizes are checked where the rows are read."""
        check_shape("PaddedTargets.counts", self.counts, ["B"])
        check_integer("PaddedTargets.counts", self.counts)
        images = self.counts.shape[0]
        check_shape("PaddedTargets.labels", self.labels, [images, "M"])
        slots = self.labels.shape[1]
        require(slots >= 1, "PaddedTargets.labels", "at least one slot", slots)
        rest = {
            "boxes": [4],
            "keypoints": ["K >= 1", "2 or 3"],
            "angles": [],
            "masks": ["H", "W"],
            "weights": [],
            "ignore": [],
            "attributes": ["D"],
        }
        for name, sizes in rest.items():
            if (x := _given(getattr(self, name))) is not None:
                check_shape(f"PaddedTargets.{name}", x, [images, slots, *sizes])
        for name in IMAGE_FIELDS:
            if (x := _given(getattr(self, name))) is not None:
                check_shape(f"PaddedTargets.{name}", x, [images, "H", "W"])
        for name in CAPACITIES:
            if isinstance(x := _given(getattr(self, name)), Tensor):
                check_shape(f"PaddedTargets.{name}", x, [images, "pages"])


def _given(x: Any) -> Any:
    """A field, or None if it is not used."""
    return None if isinstance(x, Tensor) and x.dim() == 2 and x.shape[1] == 0 else x


def _enough_slots(batch_idx: Tensor, counts: Tensor, slots: int | None) -> int:
    """M, if the host can read the counts, so that every row has a slot."""
    beyond = int(batch_idx.max()) if len(batch_idx) else -1
    require(beyond < len(counts), "batch_size", f"at least {beyond + 1}, the images of targets.batch_idx", len(counts))
    most = int(counts.max())
    if slots is None:
        return rounded_rows(most, SLOT_STEP, power_of_two=False)
    slots = whole_number("slots", slots)
    require(slots >= most, "slots", f"at least {most}, the objects of image {int(counts.argmax())}", slots)
    return slots
