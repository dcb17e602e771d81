"""The forms in which rows come to a loss. A further form is one more function in `LAYOUTS`."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from compiled_loss import PaddedTargets, TargetPlan, Targets
from compiled_loss.data.rows import map_rows, pad_rows
from tests.fuzz.setups import Setup
from tests.reference.dense_match import Rows

# Targets, and of each of their rows (or slots, image after image) which one it was: -1 of padding.
Flat = tuple[Targets, np.ndarray]
Laid = Flat | tuple[PaddedTargets, np.ndarray]


def plain(setup: Setup, rows: Rows, rng: np.random.Generator) -> Flat:
    """The rows as they are."""
    fields: dict[str, Tensor | None] = {"keypoints": rows.keypoints, "class_map": rows.class_map}
    if rows.boxes.shape[1] == 5:
        fields["angles"] = rows.boxes[:, 4]
    if rows.masks is not None:
        fields["masks" if setup.stacked else "index_map"] = rows.masks
    if not setup.semantic:
        fields["class_map"] = None
    boxes = rows.boxes[:, :4].contiguous()
    return Targets(rows.image, rows.labels, boxes, pages=setup.pages, **fields), np.arange(len(rows.image))  # type: ignore[arg-type]


def narrow(setup: Setup, rows: Rows, rng: np.random.Generator) -> Flat:
    """Integers of 32 bits, boxes of 64."""
    targets, origin = plain(setup, rows, rng)
    return targets._replace(
        batch_idx=targets.batch_idx.int(), labels=targets.labels.int(), boxes=targets.boxes.double()
    ), origin


def in_order(setup: Setup, rows: Rows, rng: np.random.Generator) -> Flat:
    """Sorted by image, told so, padding last."""
    targets, _ = plain(setup, rows, rng)
    origin = np.argsort(rows.image.numpy(), kind="stable")
    targets = map_rows(targets, lambda x: x[torch.from_numpy(origin)])._replace(is_sorted=True)
    targets = pad_rows(targets, multiple_of=4)
    return targets, _with_padding(origin, targets)


def padded(setup: Setup, rows: Rows, rng: np.random.Generator) -> Flat:
    """Padding anywhere among the rows, which holds anything finite, at -1 or beyond the last image."""
    targets, origin = plain(setup, rows, rng)
    count = max(len(origin), 2)
    count += int(rng.integers(1, 9)) if len(origin) >= 2 else 4
    place = np.sort(rng.choice(count, len(origin), replace=False))
    spread = np.full(count, -1)
    spread[place] = origin
    at = torch.from_numpy(place)

    def scatter(x: Tensor) -> Tensor:
        return x.new_ones(count, *x.shape[1:]).index_copy(0, at, x)

    outside = torch.from_numpy(rng.choice((-1, -1, setup.batch_size, setup.batch_size + 7), count))
    batch_idx = outside.index_copy(0, at, targets.batch_idx)
    return map_rows(targets, scatter)._replace(batch_idx=batch_idx), spread


def planned(setup: Setup, rows: Rows, rng: np.random.Generator) -> Flat:
    """By a plan."""
    targets, _ = plain(setup, rows, rng)
    plan = TargetPlan(setup.size, setup.strides, num_classes=setup.num_classes)
    origin = np.argsort(rows.image.numpy(), kind="stable")
    targets = plan.apply(targets, setup.batch_size)
    return targets, _with_padding(origin, targets)


def pages(setup: Setup, rows: Rows, rng: np.random.Generator) -> Flat:
    """Padded, with any number of pages, few of them included, as a tensor or a number."""
    targets, origin = padded(setup, rows, rng)
    number = int(rng.choice((2, 3, 4, 16)))
    if setup.kind == "obb":
        number = 64  # which anchors are looked at around a turned box is not told
    as_number = setup.layout == "" and rng.random() < 0.5
    return targets._replace(pages=number if as_number else torch.zeros(number, dtype=torch.int8)), origin


def tiles(setup: Setup, rows: Rows, rng: np.random.Generator) -> Flat:
    """Padded, with any number of mask tiles."""
    targets, origin = padded(setup, rows, rng)
    return targets._replace(mask_tiles=int(rng.choice((1, 4, 64)))), origin


def slots(setup: Setup, rows: Rows, rng: np.random.Generator) -> Laid:
    """In slots of each image, the fullest of which may have some to spare."""
    targets, _ = plain(setup, rows, rng)
    fullest = np.bincount(rows.image.numpy(), minlength=setup.batch_size).max(initial=1)
    count = int(fullest + rng.integers(0, 3))
    return _slotted(PaddedTargets.from_rows(targets, setup.batch_size, count), rows)


def planned_slots(setup: Setup, rows: Rows, rng: np.random.Generator) -> Laid:
    """In slots of each image, by a plan."""
    targets, _ = plain(setup, rows, rng)
    plan = TargetPlan(setup.size, setup.strides, num_classes=setup.num_classes)
    return _slotted(plan.apply(targets, setup.batch_size, padded=True), rows)


def _slotted(targets: PaddedTargets, rows: Rows) -> Laid:
    origin = np.full(targets.labels.shape, -1)
    for b, slots in enumerate(origin):
        own = np.flatnonzero(rows.image.numpy() == b)
        slots[: len(own)] = own
    return targets, origin.flatten()


def _with_padding(origin: np.ndarray, targets: Targets) -> np.ndarray:
    return np.concatenate([origin, np.full(len(targets.batch_idx) - len(origin), -1)])


LAYOUTS: dict[str, Callable[[Setup, Rows, np.random.Generator], Laid]] = {
    "plain": plain,
    "narrow": narrow,
    "in_order": in_order,
    "padded": padded,
    "planned": planned,
    "pages": pages,
    "tiles": tiles,
    "slots": slots,
    "planned_slots": planned_slots,
}


def lay_out(setup: Setup, rows: Rows, rng: np.random.Generator) -> tuple[str, Laid]:
    """In the setup's form, or in any."""
    name = setup.layout or str(rng.choice(list(LAYOUTS)))
    return name, LAYOUTS[name](setup, rows, rng)
