"""Angles, masks, weights and ignore marks of rows: checked, padded, planned and joined like the rows they belong to."""

import re

import pytest
import torch

from compiled_loss.data.plan import TargetPlan
from compiled_loss.data.rows import join_images, pad_rows
from compiled_loss.data.targets import Targets


def rows_of(batch_idx, **fields) -> Targets:
    """Rows told apart by their label, which is their place; masks, angles and weights say the same."""
    n = len(batch_idx)
    place = torch.arange(n)
    boxes = torch.full((n, 4), 0.25)
    masks = (place[:, None, None] == torch.arange(4).expand(6, 4)).float()  # [N, 6, 4]
    given = {"angles": place / 10, "masks": masks, "weights": place / 4, "ignore": place % 2 == 1, **fields}
    return Targets(torch.tensor(batch_idx), place, boxes, **given)


def index_map(images: int) -> torch.Tensor:
    return torch.arange(images * 24).view(images, 6, 4)


def test_planning_moves_fields_with_their_rows_and_pads_them_with_zeros():
    planned = TargetPlan((64, 64), rows=8).apply(rows_of([1, -1, 0, 1, 0]), 2)
    order = planned.labels[:4].tolist()
    assert order == [2, 4, 0, 3]
    same = rows_of([0] * 5)
    for field in ("angles", "masks", "weights", "ignore"):
        got, given = getattr(planned, field), getattr(same, field)
        assert torch.equal(got[:4], given[order])
        assert len(got) == 8
        assert not got[4:].any()


def test_padding_and_planning_leave_maps_of_whole_images_alone():
    t = rows_of([1, 0, 1], masks=None, index_map=index_map(2), class_map=index_map(2))
    for changed in (pad_rows(t), TargetPlan((64, 64)).apply(t, 2)):
        assert len(changed.labels) == 16
        assert changed.index_map is t.index_map
        assert changed.class_map is t.class_map


def test_boolean_masks_stay_boolean_under_padding():
    t = rows_of([0, 0])
    assert t.masks is not None
    padded = pad_rows(t._replace(masks=t.masks.bool())).masks
    assert padded is not None
    assert (padded.dtype, padded.shape) == (torch.bool, (16, 6, 4))


def test_joined_images_stack_their_maps_and_masks():
    maps = [index_map(2)[i : i + 1] for i in range(2)]
    joined = join_images(
        [rows_of([0] * n, masks=None, index_map=m, class_map=m) for n, m in zip((2, 1), maps, strict=True)], "x"
    )
    assert torch.equal(joined.index_map, index_map(2))  # type: ignore[arg-type]
    assert joined.batch_idx.tolist() == [0, 0, 1]
    stacked = join_images([rows_of([0, 0]), rows_of([0])], "x")
    assert stacked.masks is not None
    assert stacked.masks.shape == (3, 6, 4)
    assert stacked.weights is not None
    assert stacked.ignore is not None
    assert (stacked.weights.tolist(), stacked.ignore.tolist()) == ([0, 0.25, 0], [False, True, False])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"angles": None},
            r"images[1].angles: expected [N] as in the first (also for images without objects), got None",
        ),
        ({"weights": None}, "images[1].weights: expected [N] as in the first"),
        ({"ignore": None}, "images[1].ignore: expected [N] as in the first"),
        ({"masks": torch.zeros(2, 3, 3)}, "images[1].masks: expected [N, 6, 4] as in the first"),
        ({"masks": None, "index_map": index_map(1)}, "images[1].masks: expected [N, 6, 4] as in the first"),
    ],
)
def test_an_image_with_other_fields_is_named(fields, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        join_images([rows_of([0]), rows_of([0, 0], **fields)], "images")


def test_a_single_images_map_is_one_map():
    two = rows_of([0], masks=None, index_map=index_map(2))
    with pytest.raises(ValueError, match=re.escape("images[0].index_map: expected shape [1, H, W], got (2, 6, 4)")):
        join_images([two], "images")


def test_a_whole_data_set_is_planned_without_its_masks():
    one = rows_of([0] * 3)
    assert one.masks is not None
    huge = one._replace(masks=one.masks[:1].expand(3, 6, 4))
    assert TargetPlan.from_dataset([huge] * 4, batch_size=2, image_size=(64, 64)).rows == 16


MAP = index_map(2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"angles": torch.zeros(3, 1)}, "Targets.angles: expected shape [3], got (3, 1)"),
        ({"angles": torch.zeros(3).long()}, "Targets.angles: expected a floating-point dtype, got torch.int64"),
        (
            {"angles": torch.tensor([0, float("nan"), 0])},
            "Targets.angles: expected finite numbers, radians, got nan in",
        ),
        ({"masks": torch.zeros(2, 6, 4)}, "Targets.masks: expected shape [3, H, W], got (2, 6, 4)"),
        ({"masks": torch.zeros(3, 6, 4).long()}, "Targets.masks: expected bool, uint8 or a floating-point dtype"),
        ({"masks": torch.full((3, 6, 4), 255, dtype=torch.uint8)}, "Targets.masks: expected values from 0 to 1, got ["),
        ({"index_map": MAP}, "Targets.index_map: expected None if masks are given, got a tensor"),
        (
            {"masks": None, "index_map": MAP.float()},
            "Targets.index_map: expected an integer dtype, uint8 or signed, got torch.float32",
        ),
        ({"masks": None, "index_map": MAP[0]}, "Targets.index_map: expected shape [B, H, W], got (6, 4)"),
        ({"masks": None, "index_map": MAP[:1]}, "Targets.index_map: expected shape [2, H, W], got (1, 6, 4)"),
        ({"masks": None, "index_map": MAP - 1}, "Targets.index_map: expected ids of 0 (no object) or more"),
        ({"masks": None, "class_map": MAP}, "Targets.class_map: expected None if neither masks nor index_map is given"),
        (
            {"class_map": MAP[:, :3]},
            "Targets.class_map: expected the same images and pixels as the masks, got (2, 3, 4)",
        ),
        ({"class_map": MAP.to("meta")}, "Targets.class_map: expected device cpu"),
        ({"weights": torch.ones(2)}, "Targets.weights: expected shape [3], got (2,)"),
        ({"weights": torch.ones(3).int()}, "Targets.weights: expected a floating-point dtype, got torch.int32"),
        (
            {"weights": torch.tensor([1, 1, -0.5])},
            "Targets.weights: expected finite numbers of 0 or more, got -0.5 in row 2 (image 1)",
        ),
        (
            {"weights": torch.tensor([1, float("nan"), 1])},
            "Targets.weights: expected finite numbers of 0 or more, got nan",
        ),
        (
            {"weights": torch.tensor([float("inf"), 1, 1])},
            "Targets.weights: expected finite numbers of 0 or more, got inf",
        ),
        ({"ignore": torch.zeros(3, 1).bool()}, "Targets.ignore: expected shape [3], got (3, 1)"),
        ({"ignore": torch.zeros(3)}, "Targets.ignore: expected torch.bool, got torch.float32"),
        ({"weights": torch.ones(3, device="meta")}, "Targets.weights: expected device cpu"),
    ],
)
def test_a_wrong_field_is_named_with_what_came(fields, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        rows_of([0, 0, 1], **fields).validate(batch_size=2)


def test_an_ignore_row_needs_no_class_but_a_place():
    t = rows_of([0, 0, 1])._replace(labels=torch.tensor([0, 255, 1]))
    t.validate(2, 2)
    with pytest.raises(ValueError, match="a class id in"):
        t._replace(ignore=torch.zeros(3).bool()).validate(2, 2)
    with pytest.raises(ValueError, match=r"^Targets.boxes: expected finite numbers"):
        t._replace(boxes=torch.full((3, 4), float("nan"))).validate(2, 2)


def test_sound_fields_pass_and_move_together():
    t = rows_of([0, 0, 1], class_map=MAP).validate(2)
    assert all(x is None or not isinstance(x, torch.Tensor) or x.is_meta for x in t.to("meta"))
    rows_of([0, 0, 1], masks=None, index_map=MAP, class_map=-MAP).validate(2)
    no_rows = rows_of([], masks=torch.zeros(0, 6, 4))
    no_rows._replace(batch_idx=torch.zeros(0).long()).validate(2)


def test_only_fields_with_rows_are_marked_as_varying():
    t = pad_rows(rows_of([0, 0, 1], masks=None, index_map=MAP.clone())).mark_dynamic()
    for x in (t.angles, t.weights, t.ignore):
        assert hasattr(x, "_dynamo_dynamic_indices")
    assert not hasattr(t.index_map, "_dynamo_dynamic_indices")
