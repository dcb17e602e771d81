"""Targets: what passes, and what `validate` says about everything that does not."""

import re

import pytest
import torch
from torch.utils._pytree import tree_flatten, tree_unflatten
from torch.utils.data import default_convert

from compiled_loss.data.targets import Targets


def make(batch_idx=(0, 0, 1), labels=(2, 0, 1), keypoints=None, pages=None, is_sorted=False) -> Targets:
    rows = len(batch_idx)
    boxes = torch.tensor([[0.5, 0.5, 0.2, 0.1]]).repeat(rows, 1)
    return Targets(torch.tensor(batch_idx), torch.tensor(labels), boxes, keypoints, pages, is_sorted)


def with_row(targets: Targets, field: str, row, value) -> Targets:
    changed = getattr(targets, field).clone()
    changed[row] = torch.as_tensor(value, dtype=changed.dtype)
    return targets._replace(**{field: changed})


def raises(*parts: str):
    return pytest.raises(ValueError, match=".*".join(re.escape(part) for part in parts))


def test_good_targets_come_back_unchanged():
    t = make(keypoints=torch.rand(3, 5, 3), is_sorted=True, pages=64)
    assert t.validate(batch_size=2, num_classes=3) is t


def test_no_rows_are_valid():
    empty = Targets(
        torch.zeros(0).long(), torch.zeros(0).long(), torch.zeros(0, 4), torch.zeros(0, 5, 2), is_sorted=True
    )
    assert empty.validate(batch_size=4, num_classes=1) is empty


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_both_integer_dtypes_are_accepted(dtype):
    t = make()
    t._replace(batch_idx=t.batch_idx.to(dtype), labels=t.labels.to(dtype), is_sorted=True).validate(2, 3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_floating_dtype_is_accepted(dtype):
    t = make(keypoints=torch.rand(3, 5, 3))
    t._replace(boxes=t.boxes.to(dtype), keypoints=torch.rand(3, 5, 3).to(dtype)).validate(2, 3)


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        ({"batch_idx": [0, 0, 1]}, ["Targets.batch_idx", "[N]", "list"]),
        ({"batch_idx": torch.zeros(3, 1).long()}, ["Targets.batch_idx", "[N]", "(3, 1)"]),
        ({"batch_idx": torch.zeros(3)}, ["Targets.batch_idx", "integer", "torch.float32"]),
        ({"labels": torch.zeros(3, 1).long()}, ["Targets.labels", "[3]", "(3, 1)"]),
        ({"labels": torch.zeros(3)}, ["Targets.labels", "integer", "torch.float32"]),
        ({"labels": torch.zeros(3).bool()}, ["Targets.labels", "integer", "torch.bool"]),
        ({"labels": torch.zeros(2).long()}, ["Targets.labels", "[3]", "(2,)"]),
        ({"boxes": torch.zeros(3, 5)}, ["Targets.boxes", "[3, 4]", "(3, 5)"]),
        ({"boxes": torch.zeros(4)}, ["Targets.boxes", "[3, 4]", "(4,)"]),
        ({"boxes": torch.zeros(3, 4).int()}, ["Targets.boxes", "floating", "torch.int32"]),
        ({"boxes": torch.zeros(4, 4)}, ["Targets.boxes", "[3, 4]", "(4, 4)"]),
        ({"boxes": torch.zeros(3, 4, device="meta")}, ["Targets.boxes", "device cpu", "meta"]),
        ({"keypoints": torch.zeros(3, 10)}, ["Targets.keypoints", "[3, K >= 1, 2 or 3]", "(3, 10)"]),
        ({"keypoints": torch.zeros(3, 5, 4)}, ["Targets.keypoints", "[3, K >= 1, 2 or 3]", "(3, 5, 4)"]),
        ({"keypoints": torch.zeros(3, 0, 3)}, ["Targets.keypoints", "[3, K >= 1, 2 or 3]", "(3, 0, 3)"]),
        ({"keypoints": torch.zeros(2, 5, 3)}, ["Targets.keypoints", "[3, K >= 1, 2 or 3]", "(2, 5, 3)"]),
        ({"keypoints": torch.zeros(3, 5, 3, device="meta")}, ["Targets.keypoints", "device cpu", "meta"]),
        ({"pages": 0}, ["Targets.pages", "positive integer", "0"]),
        ({"pages": 2.5}, ["Targets.pages", "positive integer", "2.5"]),
        ({"pages": torch.zeros(0)}, ["Targets.pages", "at least one page", "0"]),
        ({"pages": torch.zeros(3, 2)}, ["Targets.pages", "[pages]", "(3, 2)"]),
    ],
)
def test_a_wrong_structure_is_named_with_what_came(fields, parts):
    with raises(*parts):
        make()._replace(**fields).validate()


@pytest.mark.parametrize(
    ("field", "row", "value", "parts"),
    [
        ("batch_idx", 1, -2, ["batch_idx", "-1 (padding)", "got -2", "row 1"]),
        ("batch_idx", 2, 2, ["batch_idx", "below the batch size 2", "got 2", "row 2"]),
        ("labels", 0, 3, ["labels", "class id in [0, 3)", "got 3", "row 0 (image 0)", "bad rows: 1 of 3"]),
        ("labels", 2, -1, ["labels", "class id in [0, 3)", "got -1", "row 2 (image 1)"]),
        ("boxes", 1, [0.5, float("nan"), 0.1, 0.1], ["boxes", "finite", "nan", "row 1"]),
        ("boxes", 1, [0.5, 0.5, float("inf"), 0.1], ["boxes", "finite", "inf", "row 1"]),
        ("boxes", 2, [0.5, 0.5, 0.1, -0.25], ["boxes", "no negative size", "-0.25", "row 2"]),
        (
            "boxes",
            1,
            [320.0, 240.0, 100.0, 50.0],
            ["boxes", "fractions", "pixels", "[320.0, 240.0, 100.0, 50.0]", "row 1"],
        ),
        ("boxes", 1, [-5.0, 0.5, 0.1, 0.1], ["boxes", "fractions", "row 1"]),
        ("keypoints", (2, 4, 0), float("nan"), ["keypoints", "finite", "nan", "row 2 (image 1), keypoint 4"]),
        (
            "keypoints",
            (1, 3),
            [0.5, 0.5, -1],
            ["keypoints", "flag that is not negative", "-1.0", "row 1", "keypoint 3"],
        ),
        ("keypoints", (1, 0), [200.0, 100.0, 2], ["keypoints", "pixels", "[200.0, 100.0, 2.0]", "row 1", "keypoint 0"]),
    ],
)
def test_a_bad_value_is_named_with_its_row(field, row, value, parts):
    t = with_row(make(keypoints=torch.full((3, 5, 3), 0.5)), field, row, value)
    with raises(f"Targets.{parts[0]}", *parts[1:]):
        t.validate(batch_size=2, num_classes=3)


def test_the_first_bad_row_is_named_and_all_are_counted():
    with raises("got 9", "row 1 (image 0)", "bad rows: 2 of 4"):
        make([0, 0, 1, 1], [0, 9, 0, 8]).validate(num_classes=5)


def test_without_bounds_only_negative_ids_are_wrong():
    make([0, 70, 3], [9000, 0, 1]).validate()
    with raises("class id in [0, C)", "got -1"):
        make(labels=[0, -1, 0]).validate()


def test_boxes_may_have_no_size_and_reach_outside_the_image():
    t = with_row(with_row(make(), "boxes", 0, [0.5, 0.5, 0.0, 0.0]), "boxes", 1, [-0.2, 1.1, 3.0, 1.5])
    t.validate(2, 3)


def test_keypoints_without_a_label_may_lie_anywhere_finite():
    points = torch.full((3, 5, 3), 0.5)
    points[1, 2] = torch.tensor([-900.0, 900.0, 0.0])
    make(keypoints=points).validate()
    with raises("keypoints", "pixels", "row 1 (image 0), keypoint 2"):
        make(keypoints=points[..., :2]).validate()


def test_padding_rows_may_hold_anything_finite():
    t = with_row(make([-1, 0, 1], [-100, 0, 1], torch.full((3, 5, 3), 0.5)), "boxes", 0, [900.0, 0.0, -1.0, 3.0])
    t = with_row(t, "keypoints", (0, 0), [900.0, 900.0, -1.0])
    t.validate(batch_size=2, num_classes=2)
    with raises("boxes", "finite", "row 0 (image -1)"):
        with_row(t, "boxes", 0, [float("nan")] * 4).validate()


@pytest.mark.parametrize("batch_idx", [[0, 0, 1], [0, 2, -1], [-1, -1, -1], [5, 5, 5]])
def test_a_kept_promise_of_order_passes(batch_idx):
    make(batch_idx, is_sorted=True).validate()


@pytest.mark.parametrize(("batch_idx", "row"), [([1, 0, 1], 1), ([0, -1, 1], 2), ([-1, 0, 0], 1), ([2, 3, 1], 2)])
def test_a_broken_promise_of_order_is_named_with_its_row(batch_idx, row):
    make(batch_idx).validate()
    with raises("Targets.batch_idx", "image order with the padding last", f"row {row}"):
        make(batch_idx, is_sorted=True).validate()


def test_moving_keeps_values_and_dtypes():
    t = make(keypoints=torch.rand(3, 5, 2), pages=32, is_sorted=True).to("cpu", non_blocking=True)
    assert (t.labels.dtype, t.pages, t.is_sorted) == (torch.int64, 32, True)
    assert t.to("meta").keypoints.device.type == "meta"  # type: ignore[union-attr]


def test_targets_are_a_plain_tuple_to_torch():
    leaves, spec = tree_flatten(make(pages=32))
    assert isinstance(tree_unflatten(leaves, spec), Targets)
    assert isinstance(default_convert(make(pages=32)), Targets)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="page-locked memory needs CUDA")
def test_pinning_reaches_every_tensor():
    pinned = make(keypoints=torch.rand(3, 5, 2)).pin_memory()
    assert all(x.is_pinned() for x in pinned if isinstance(x, torch.Tensor))
