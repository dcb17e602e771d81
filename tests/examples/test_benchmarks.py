"""What the benchmarks are made of: their batches, their comparison before the clock runs, their figures."""

import json
import math

import pytest
import torch
from batches import BATCH, CLASSES, MIXED, SMALL, TINY, add_fields, candidates, mosaic, rows_of, small_and_wide
from growth import OURS, REFERENCE, Point, exponent
from heads import HEADS, criteria, leaves_of, make_batch, make_preds, make_steps
from timing import cell, in_turn, print_table

from compiled_loss import Targets


@pytest.mark.parametrize("sides", [MIXED, SMALL, TINY])
def test_rows_are_sorted_inside_their_images_and_of_the_sides_asked_for(sides):
    rows = rows_of(500, sides).validate(BATCH, CLASSES)
    assert rows.is_sorted
    assert rows.batch_idx.unique().tolist() == list(range(BATCH))
    low, high = rows.boxes[:, 2:].aminmax(dim=0)
    assert all(sides[0] <= x < 1.1 * sides[0] for x in low.tolist())
    assert all(0.9 * sides[1] < x <= sides[1] for x in high.tolist())
    assert ((rows.boxes[:, :2] - 0.5).abs() + rows.boxes[:, 2:] / 2 < 0.5 + 1e-6).all()
    assert torch.equal(rows.boxes, rows_of(500, sides).boxes)


def test_one_box_in_each_image_fills_it_and_the_others_are_small():
    rows = small_and_wide(100).validate(BATCH, CLASSES)
    wide = rows.boxes[:, 2] == 1
    assert rows.batch_idx[wide].tolist() == list(range(BATCH))
    assert len(rows.labels) == 100 + BATCH
    assert (rows.boxes[~wide, 2:] <= SMALL[1]).all()


@pytest.fixture
def label_file(tmp_path):
    """Pictures of 200x100 pixels: i objects of 20x10 in picture i, and one crowd in each."""
    images = [{"id": i, "height": 100, "width": 200} for i in range(20)]
    annotations = [
        {"image_id": i, "category_id": 3 + j % 2, "bbox": [10 * j, 5 * j, 20, 10], "iscrowd": int(j == i)}
        for i in range(20)
        for j in range(i + 1)
    ]
    path = tmp_path / "labels.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    return path


def test_a_mosaic_holds_four_pictures_an_image_each_in_its_quarter(label_file):
    rows = mosaic([label_file]).validate(16, 2)
    assert 400 < len(rows.labels) < 500
    assert rows.batch_idx.unique().tolist() == list(range(16))
    torch.testing.assert_close(rows.boxes[:, 2:], torch.full((len(rows.labels), 2), 0.05))
    corners = (rows.boxes[:, :2] * 2).floor()
    first = rows.boxes[:, :2] - corners / 2
    steps = (first - 0.025) / 0.025  # object j of a picture lies j steps from its corner
    torch.testing.assert_close(steps, steps.round(), atol=1e-4, rtol=0)
    for image in range(16):
        assert len(corners[rows.batch_idx == image].unique(dim=0)) == 4


def test_candidates_are_the_anchors_inside_boxes_of_at_least_one_middle_stride():
    boxes = torch.tensor([[0.5, 0.5, 1.0, 1.0], [0.3, 0.6, 0.21, 0.4], [0.51, 0.03, 0.004, 0.5], [0.7, 0.7, 0.0, 0.0]])
    counted = 0
    for x, y, w, h in (boxes.double() * 640).tolist():
        w, h = max(w, 16) / 2, max(h, 16) / 2
        for stride in (8, 16, 32):
            axis = [(i + 0.5) * stride for i in range(640 // stride)]
            counted += sum(x - w < a < x + w for a in axis) * sum(y - h < a < y + h for a in axis)
    assert candidates(Targets(torch.zeros(4).long(), torch.zeros(4).long(), boxes)) == counted


def test_index_maps_put_smaller_objects_over_larger_ones():
    rows = Targets(
        torch.zeros(2).long(), torch.ones(2).long(), torch.tensor([[0.5, 0.5, 0.2, 0.2], [0.5, 0.5, 0.8, 0.8]])
    )
    index_map = add_fields(rows, "segment").index_map
    assert index_map is not None
    assert index_map[0, 80, 80] == 1
    assert index_map[0, 80, 40] == 2
    assert index_map[0, 1, 1] == 0


@pytest.mark.parametrize("name", HEADS)
def test_every_head_gives_its_loss_and_gradients_to_all_maps(name):
    head = HEADS[name]
    preds = make_preds(head, BATCH, "cpu")
    losses = criteria(head, preds, make_batch(add_fields(rows_of(12, MIXED), head.task)), with_reference=False)
    leaves = leaves_of(preds)
    steps = make_steps({"eager": losses["criterion, eager"]}, leaves)
    assert steps["eager"]() > 0
    assert len(leaves) == (4 if head.end_to_end else 2 + len(head.maps) + (head.task == "segment"))
    assert all(x.grad is not None and x.grad.any() for x in leaves)


def test_losses_that_differ_are_not_timed():
    leaf = torch.ones(3, requires_grad=True)
    with pytest.raises(AssertionError, match="other: "):
        make_steps({"one": lambda: leaf.sum(), "other": lambda: 1.01 * leaf.sum()}, [leaf])
    steps = make_steps({"one": lambda: leaf.sum(), "same": lambda: (2 * leaf).mean() * 1.5}, [leaf])
    steps["same"]()
    steps["one"]()
    assert leaf.grad is not None
    assert leaf.grad.tolist() == [1, 1, 1]


def test_the_exponent_is_that_of_the_time_beyond_an_empty_batch():
    counts = (0, 10, 1000, 4000, 20000)
    points = [Point(n, n, {OURS: 5 + 0.01 * n, REFERENCE: 3 + 1e-6 * n**2}) for n in counts]
    assert exponent(points, OURS) == pytest.approx(1)
    assert exponent(points, REFERENCE) == pytest.approx(2)
    assert math.isnan(exponent(points[:3], REFERENCE))


def test_a_cell_tells_the_ratio_where_there_is_a_reference():
    ms = {"reference": 100.0, "fast": 8.0, "slow": 250.0}
    cells = [cell(ms, name, "reference") for name in ("fast", "slow", "absent")]
    assert cells == ["8.0 (12.5x)", "250.0 (0.40x)", ""]
    assert cell({"fast": 8.0}, "fast", "reference") == "8.0"


def test_contenders_run_in_turn_and_the_second_of_two_calls_is_timed():
    calls = []
    ms = in_turn({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=2, warmup=1)
    assert "".join(calls) == "ab" + "aabb" * 2
    assert set(ms) == {"a", "b"}


def test_rows_of_a_table_are_printed_as_they_come(capsys):
    def rows():
        yield ["first", "1"]
        assert "first" in capsys.readouterr().out
        yield ["second", "2"]

    print_table(["name", "number"], rows())
    assert capsys.readouterr().out == "| second | 2 |\n"
