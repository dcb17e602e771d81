"""Targets in slots of each image: against loops, back to rows, planned, and cut by image as frameworks do it."""

import copy
import functools
import re
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._pytree import tree_map_only
from torch.utils.data import DataLoader

from compiled_loss import PaddedTargets, TargetPlan, Targets, collate, pad_rows, sources
from tests.data.test_target_fields import index_map, rows_of
from tests.labels import yolo_batch

SIZE = (64, 96)
by_tensor = functools.partial(tree_map_only, Tensor)


def raises(*parts: str):
    return pytest.raises(ValueError, match=".*".join(re.escape(part) for part in parts))


def tensors_of(padded: PaddedTargets) -> list[Tensor]:
    """Every field, none of which may be anything else."""
    assert all(isinstance(x, Tensor) for x in padded)
    return [x for x in padded if isinstance(x, Tensor)]


def full(batch_idx: list[int]) -> Targets:
    """Rows with every field that a row can have, told apart by their label, which is their place."""
    return rows_of(batch_idx, keypoints=torch.rand(len(batch_idx), 5, 3))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(-1, 3), min_size=1, max_size=30), st.integers(0, 3), st.booleans())
def test_every_row_comes_into_its_images_slots_in_order_and_back(batch_idx, spare, in_order):
    batch_idx = sorted(batch_idx, key=lambda i: i if i >= 0 else 9) if in_order else batch_idx
    rows = full(batch_idx)._replace(is_sorted=in_order)
    wanted = [[n for n, image in enumerate(batch_idx) if image == b] for b in range(4)]
    slots = max(1, *map(len, wanted)) + spare
    padded = PaddedTargets.from_rows(rows, 4, slots)
    assert padded.counts.tolist() == [len(image) for image in wanted]
    for name in ("labels", "boxes", "keypoints", "angles", "masks", "weights", "ignore"):
        got, given_rows = getattr(padded, name), getattr(rows, name)
        assert got.shape == (4, slots, *given_rows.shape[1:])
        for b, image in enumerate(wanted):
            assert torch.equal(got[b, : len(image)], given_rows[image])
            assert not got[b, len(image) :].any()
    flat = padded.flat()
    real = flat.batch_idx >= 0
    order = [n for image in wanted for n in image]
    assert flat.batch_idx[real].tolist() == [batch_idx[n] for n in order]
    for name in ("labels", "boxes", "keypoints", "angles", "masks", "weights", "ignore"):
        assert torch.equal(getattr(flat, name)[real], getattr(rows, name)[order])
    assert real.view(4, slots).sum(1).tolist() == padded.counts.tolist()
    assert not padded.dropped().any()
    assert padded.validate(4) is padded


def test_without_a_number_of_slots_the_fullest_image_decides():
    sizes = {n: PaddedTargets.from_rows(rows_of([1] * n or [-1]), 2).labels.shape for n in (0, 1, 8, 9)}
    assert sizes == {0: (2, 8), 1: (2, 8), 8: (2, 8), 9: (2, 16)}


def test_fields_that_are_not_used_are_tensors_without_entries_and_none_again():
    rows = Targets(torch.tensor([0, 2]), torch.tensor([1, 2]), torch.full((2, 4), 0.5))
    padded = PaddedTargets.from_rows(rows, 3, 2)
    assert all(isinstance(x, Tensor) and len(x) == 3 for x in padded)
    assert [name for name, x in padded._asdict().items() if x.numel() == 0] == list(padded._fields[3:])
    assert all(
        x is None for name, x in padded.flat()._asdict().items() if name not in {*Targets._fields[:3], "is_sorted"}
    )
    by_hand = PaddedTargets(padded.counts, padded.labels, padded.boxes)
    assert all(torch.equal(a, b) for a, b in zip(by_hand.flat()[:3], padded.flat()[:3], strict=True))


def test_maps_of_whole_images_stay_as_they_are():
    rows = rows_of([1, 0, 1], masks=None, index_map=index_map(2), class_map=index_map(2))
    padded = PaddedTargets.from_rows(rows, 2)
    assert padded.index_map is rows.index_map
    assert padded.flat().class_map is rows.class_map
    with raises("targets.index_map: expected shape [3, H, W], got (2, 6, 4)"):
        PaddedTargets.from_rows(rows, 3)


@pytest.mark.parametrize("planned", [7, torch.zeros(7)], ids=["number", "length"])
def test_pages_of_all_rows_are_enough_for_each_image(planned):
    padded = PaddedTargets.from_rows(rows_of([1, 0])._replace(pages=planned, mask_tiles=planned), 3, 2)
    assert isinstance(padded.pages, Tensor)
    assert isinstance(padded.mask_tiles, Tensor)
    assert padded.pages.shape == padded.mask_tiles.shape == (3, 7)
    assert padded.flat().pages.shape == (21,)  # type: ignore[union-attr]
    assert padded._replace(pages=5).flat().pages == 15


def test_nothing_is_cut_in_silence_on_the_host():
    with raises("slots: expected at least 3, the objects of image 1, got 2"):
        PaddedTargets.from_rows(rows_of([1, 0, 1, 1]), 2, 2)
    with raises("batch_size: expected at least 3, the images of targets.batch_idx, got 2"):
        PaddedTargets.from_rows(rows_of([0, 2]), 2)
    with raises("slots: expected an integer of at least 1, got 0"):
        PaddedTargets.from_rows(rows_of([-1]), 1, 0)
    with raises("slots: expected at least 1, since the counts cannot be read here, got None"):
        PaddedTargets.from_rows(rows_of([0]).to("meta"), 1)


PADDED = PaddedTargets.from_rows(full([0, 0, 1]), 2, 3)
MAP = index_map(2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"counts": torch.tensor(2)}, "PaddedTargets.counts: expected shape [B], got ()"),
        ({"counts": torch.ones(2)}, "PaddedTargets.counts: expected an integer dtype"),
        ({"counts": torch.tensor([4, 0])}, "counts: expected from 0 to the 3 slots of an image, got [4, 0]"),
        ({"counts": torch.tensor([-1, 0])}, "counts: expected from 0 to the 3 slots of an image, got [-1, 0]"),
        ({"labels": torch.zeros(2).long()}, "PaddedTargets.labels: expected shape [2, M], got (2,)"),
        ({"labels": torch.zeros(2, 0).long()}, "PaddedTargets.labels: expected at least one slot, got 0"),
        ({"boxes": torch.zeros(3, 2, 4)}, "PaddedTargets.boxes: expected shape [2, 3, 4], got (3, 2, 4)"),
        ({"keypoints": torch.zeros(3, 2, 5, 3)}, "PaddedTargets.keypoints: expected shape [2, 3, K >= 1, 2 or 3]"),
        ({"keypoints": torch.zeros(2, 3, 5, 4)}, "Targets.keypoints: expected shape [6, K >= 1, 2 or 3]"),
        ({"angles": torch.zeros(2, 3, 1)}, "PaddedTargets.angles: expected shape [2, 3], got (2, 3, 1)"),
        ({"masks": torch.zeros(6, 6, 4)}, "PaddedTargets.masks: expected shape [2, 3, H, W], got (6, 6, 4)"),
        ({"masks": None, "index_map": MAP[:1]}, "PaddedTargets.index_map: expected shape [2, H, W], got (1, 6, 4)"),
        ({"pages": torch.zeros(7)}, "PaddedTargets.pages: expected shape [2, pages], got (7,)"),
        ({"labels": torch.full((2, 3), -7)}, "Targets.labels: expected a class id in [0, 9), got -7 in row 0"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named_with_what_came(fields, message):
    with raises(message):
        PADDED._replace(**fields).validate(num_classes=9)


def test_sound_fields_pass_move_and_are_marked():
    assert PADDED.validate(2, 3) is PADDED
    with raises("PaddedTargets.counts: expected shape [3], got (2,)"):
        PADDED.validate(3)
    assert all(x.is_meta for x in tensors_of(PADDED.to("meta")))
    marked = copy.deepcopy(PADDED).mark_dynamic()
    varying = [name for name, x in marked._asdict().items() if hasattr(x, "_dynamo_dynamic_indices")]
    assert varying == ["labels", "boxes", "keypoints", "angles", "masks", "weights", "ignore"]


def crowd(large: int, small: int) -> Targets:
    """Boxes as large as the image, 2 pages of its 126 anchors and 6 tiles of its 16 x 24 mask pixels, and tiny ones."""
    sides = torch.tensor([1.0] * large + [0.1] * small)[:, None].expand(-1, 4)
    boxes = torch.cat([torch.full((large + small, 2), 0.5), sides[:, 2:]], 1)
    image = torch.zeros(large + small).long()
    return Targets(image, torch.arange(large + small), boxes, masks=torch.ones(large + small, 16, 24))


def test_a_plan_counts_slots_pages_and_tiles_of_the_image_that_needs_most():
    first, last = crowd(0, 12), crowd(10, 0)
    batch_idx = torch.cat([last.batch_idx + 2, first.batch_idx])
    labels, boxes = torch.cat([last.labels, first.labels]), torch.cat([last.boxes, first.boxes])
    both = Targets(batch_idx, labels, boxes, masks=torch.ones(22, 16, 24))
    padded = TargetPlan(SIZE).apply(both, 3, padded=True)
    assert padded.counts.tolist() == [12, 0, 10]
    assert torch.equal(padded.boxes[2, :10], last.boxes)
    shapes = padded.labels.shape, padded.pages.shape, padded.mask_tiles.shape  # type: ignore[union-attr]
    # 60 tiles, and a quarter more for positives that other rows lose: 75, in steps of 8.
    assert shapes == ((3, 16), (3, 20), (3, 80))
    assert TargetPlan(SIZE, power_of_two=True).apply(both, 3, padded=True).pages.shape == (3, 32)  # type: ignore[union-attr]
    with raises("batch_size: expected the number of images, which the padded form needs, got None"):
        TargetPlan(SIZE).apply(both, padded=True)  # type: ignore[call-overload]


def test_a_plan_of_a_data_set_gives_every_batch_one_shape():
    images = [crowd(0, 12), crowd(10, 0), crowd(0, 0), crowd(3, 2)]
    plan = TargetPlan.from_dataset(images, batch_size=2, image_size=SIZE)
    assert (plan.slots, plan.image_pages, plan.image_mask_tiles) == (16, 20, 80)
    for chosen in ([0, 1], [2, 2], [3, 2]):
        samples = [(torch.zeros(3, *SIZE), images[i]) for i in chosen]
        _, padded = collate(samples, plan, padded=True)
        assert isinstance(padded, PaddedTargets)
        assert padded.counts.tolist() == [len(images[i].labels) for i in chosen]
        shapes = [x.shape[:2] for x in tensors_of(padded) if x.dim() > 1 and x.numel()]
        assert shapes == [(2, 16), (2, 16), (2, 20), (2, 16), (2, 80)]


@pytest.mark.parametrize(
    ("field", "planned", "count", "size"),
    [("slots", 8, 11, 16), ("image_pages", 20, 22, 22), ("image_mask_tiles", 60, 66, 88)],
)
def test_an_image_beyond_its_plan_loses_nothing_and_a_warning_says_so_once(field, planned, count, size, monkeypatch):
    monkeypatch.setattr("compiled_loss.data.plan._warned", set())
    plan = TargetPlan(SIZE, **{field: planned})
    with pytest.warns(UserWarning, match=f"a batch needs {field}={count}, more than the {planned} of its TargetPlan"):
        padded = plan.apply(crowd(11, 0), 2, padded=True)
    plan.apply(crowd(11, 0), 2, padded=True)
    assert padded.counts.tolist() == [11, 0]
    field = {"slots": "labels", "image_pages": "pages", "image_mask_tiles": "mask_tiles"}[field]
    assert getattr(padded, field).shape == (2, size)


class Samples(torch.utils.data.Dataset):
    """Image i is filled with i and has i % 4 objects of class i."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, i: int) -> tuple[Tensor, Targets]:
        n = i % 4
        return torch.full((3, *SIZE), float(i)), Targets(*crowd(n, 0)[:3])._replace(labels=torch.full((n,), i))


def check(images: Tensor, targets: PaddedTargets) -> None:
    ids = images[:, 0, 0, 0].int().tolist()
    targets.validate(len(ids), 8)
    assert targets.counts.tolist() == [i % 4 for i in ids]
    flat = targets.flat()
    real = flat.batch_idx >= 0
    assert flat.labels[real].tolist() == [i for i in ids for _ in range(i % 4)]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_loader_makes_batches_that_can_be_cut_by_image(workers):
    join = functools.partial(collate, plan=TargetPlan(SIZE, slots=8, image_pages=16), padded=True)
    batches = list(DataLoader(Samples(), batch_size=4, num_workers=workers, collate_fn=join))
    for batch in batches:
        check(*batch)
        # As accelerate gives each process its part, as DataParallel scatters, and as samples are picked.
        check(*by_tensor(lambda x: x[1:3], batch))
        check(*by_tensor(lambda x: x.chunk(2)[1], batch))
        check(*by_tensor(lambda x: x[torch.tensor([3, 0])], batch))
    # As accelerate joins the batches of processes before it cuts them.
    fields: Any = zip(*(targets for _, targets in batches), strict=True)
    check(torch.cat([images for images, _ in batches]), PaddedTargets(*map(torch.cat, fields)))


@pytest.mark.parametrize("cut", [lambda x: x[:4], lambda x: x.chunk(2)[0]], ids=["slice", "chunk"])
def test_flat_rows_fail_where_every_tensor_is_cut_by_image(cut):
    _, targets = collate([Samples()[i] for i in range(4)], TargetPlan(SIZE))
    with pytest.raises((IndexError, RuntimeError), match=r"0-dim|at least a 1-dim"):
        by_tensor(cut, targets)
    # Whoever passes scalars on is found out where values are looked at.
    short = by_tensor(lambda x: x[:4] if x.dim() else x, targets)
    with raises("Targets.batch_idx: expected the 16 rows that the batch was made with", "padded=True", "got 4"):
        short.validate()
    with raises("Targets.batch_idx: expected the 16 rows"):
        TargetPlan(SIZE).apply(short)


def test_how_many_rows_there_are_is_kept_with_them():
    padded = pad_rows(rows_of([0, 1]), 5)
    assert padded.rows is not None
    assert (padded.rows.shape, int(padded.rows)) == ((), 5)
    assert int(TargetPlan(SIZE).apply(padded).rows) == 16  # type: ignore[arg-type]
    with raises("Targets.rows: expected shape [], got (1,)"):
        padded._replace(rows=torch.tensor([5])).validate()
    with raises("Targets.rows: expected an integer dtype"):
        padded._replace(rows=torch.tensor(5.0)).validate()


def test_sources_keep_it_for_a_batch_and_not_for_a_sample_that_may_be_filtered():
    one = {"bbox": [8, 16, 32, 16], "category_id": 1}
    batch = sources.from_coco([[one, one], [one]], SIZE)
    assert int(batch.rows) == 3  # type: ignore[arg-type]
    assert int(sources.from_yolo(yolo_batch()).rows) == 3  # type: ignore[arg-type]
    assert sources.from_coco([[one, one]], SIZE).rows is None
    with pytest.raises(IndexError, match="0-dim"):
        by_tensor(lambda x: x[:2], batch)
    some = batch._replace(batch_idx=batch.batch_idx[:2], labels=batch.labels[:2], boxes=batch.boxes[:2])
    with raises("Targets.batch_idx: expected the 3 rows that the batch was made with", "got 2"):
        TargetPlan(SIZE).apply(some)
    assert TargetPlan(SIZE).apply(some._replace(rows=None)).labels[:3].tolist() == [1, 1, 0]
