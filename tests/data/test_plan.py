"""Padding and planning: every row once, in order, in few shapes, with pages that always suffice."""

import dataclasses
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compiled_loss import DetectionLoss, OrientedLoss, Predictions, SimOTA
from compiled_loss.data.plan import TargetPlan
from compiled_loss.data.rows import join_images, pad_rows
from compiled_loss.data.targets import Targets
from compiled_loss.geometry.boxes import cxcywh_to_xyxy
from compiled_loss.pages import pages_of
from tests.assign.scenes import cells_of

SIZE, STRIDES = (64, 96), (8, 16, 32)
GRIDS = ((8, 12), (4, 6), (2, 3))
ANCHORS = 8 * 12 + 4 * 6 + 2 * 3


def room(targets: Targets) -> int:
    """Pages of candidates that there is room for."""
    assert isinstance(targets.pages, torch.Tensor)
    return len(targets.pages)


def cells_in(boxes: torch.Tensor) -> torch.Tensor:
    """Candidates of each of some boxes in pixels."""
    return cells_of(boxes, torch.ones(len(boxes), dtype=torch.bool), GRIDS, STRIDES).counts[:-1]


def rows_of(batch_idx, size=0.05, keypoints=None) -> Targets:
    """Rows told apart by their label, which is their place."""
    n = len(batch_idx)
    points = None if keypoints is None else torch.rand(n, keypoints, 3)
    boxes = torch.tensor([[0.5, 0.5, size, size]]).repeat(n, 1)
    boxes[:, 0] += torch.linspace(-0.3, 0.3, n) if n > 1 else 0
    return Targets(torch.tensor(batch_idx, dtype=torch.int64), torch.arange(n), boxes, points)


def image_of(count, size=0.05) -> Targets:
    return rows_of([0] * count, size)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(-1, 5), max_size=70), st.booleans(), st.integers(1, 40), st.sampled_from([None, 2]))
def test_padding_keeps_every_row_and_appends_nothing_else(batch_idx, power_of_two, multiple_of, keypoints):
    given_rows = rows_of(batch_idx, keypoints=keypoints)
    padded = pad_rows(given_rows, multiple_of=multiple_of, power_of_two=power_of_two)
    n, total = len(batch_idx), len(padded.batch_idx)
    assert total >= max(n, 2)
    assert total.bit_count() == 1 if power_of_two else total % multiple_of == 0 or total == 2
    for before, after in zip(given_rows[:4], padded[:4], strict=True):
        assert (before is None) == (after is None)
        if before is not None and after is not None:
            assert torch.equal(after[:n], before)
            assert len(after) == total
            assert (after[n:] == (-1 if after is padded.batch_idx else 0)).all()


@pytest.mark.parametrize(("n", "rows", "buckets"), [(0, 16, 16), (1, 16, 16), (16, 16, 16), (17, 32, 32), (33, 48, 64)])
def test_rows_come_in_multiples_of_sixteen_or_powers_of_two(n, rows, buckets):
    assert len(pad_rows(image_of(n)).labels) == rows
    assert len(pad_rows(image_of(n), power_of_two=True).labels) == buckets


def test_padding_keeps_the_promise_of_order_and_the_pages():
    t = rows_of([0, 0, 2])._replace(is_sorted=True, pages=64)
    padded = pad_rows(t, 5).validate()
    assert (padded.is_sorted, padded.pages) == (True, 64)
    assert not pad_rows(rows_of([2, 0])).is_sorted


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rows": 4}, "rows: expected at least 5 for 5 target rows, got 4"),
        ({"multiple_of": 0}, "multiple_of: expected an integer of at least 1, got 0"),
    ],
)
def test_padding_that_cannot_be_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        pad_rows(image_of(5), **arguments)
    with pytest.raises(ValueError, match="rows: expected at least 2 for 0 target rows, got 1"):
        pad_rows(image_of(0), 1)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(-1, 5), max_size=70), st.booleans(), st.sampled_from([None, 2]))
def test_a_plan_sorts_by_image_and_keeps_every_real_row_once_in_order(batch_idx, power_of_two, keypoints):
    t = rows_of(batch_idx, keypoints=keypoints)
    planned = TargetPlan(SIZE, STRIDES, power_of_two=power_of_two).apply(t).validate()
    expected = sorted((image, row) for row, image in enumerate(batch_idx) if image >= 0)
    n = len(expected)
    assert planned.is_sorted
    assert list(zip(planned.batch_idx[:n].tolist(), planned.labels[:n].tolist(), strict=True)) == expected
    assert (planned.batch_idx[n:] == -1).all()
    order = [row for _, row in expected]
    assert torch.equal(planned.boxes[:n], t.boxes[order])
    if keypoints:
        assert planned.keypoints is not None
        assert t.keypoints is not None
        assert torch.equal(planned.keypoints[:n], t.keypoints[order])


def test_applying_a_plan_twice_changes_nothing():
    plan = TargetPlan(SIZE, STRIDES)
    once = plan.apply(rows_of([1, 0, -1, 1, 0]))
    for a, b in zip(once, plan.apply(once), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


# Sides on quarters of a pixel: anchors of these strides lie on them all the time.
quarters = st.tuples(st.integers(-80, 464), st.integers(-80, 336), st.integers(0, 464), st.integers(0, 336))


@settings(deadline=None, max_examples=120)
@given(st.lists(quarters, min_size=1, max_size=8))
def test_the_planned_pages_hold_what_any_rounding_of_the_box_would_find(boxes):
    exact = torch.tensor(
        [[(x + w / 2) / 384, (y + h / 2) / 256, w / 384, h / 256] for x, y, w, h in boxes], dtype=torch.float64
    )
    t = Targets(torch.zeros(len(boxes)).long(), torch.zeros(len(boxes)).long(), exact.float())
    plan = TargetPlan(SIZE, STRIDES)
    bound = plan._pages(t)
    assert bound.sum() <= room(plan.apply(t))
    pixels = cxcywh_to_xyxy(t.boxes * torch.tensor([96.0, 64.0, 96.0, 64.0]))
    unrounded = cxcywh_to_xyxy(t.boxes.double() * torch.tensor([96.0, 64.0, 96.0, 64.0]).double()).float()
    outwards = pixels + torch.tensor([-1.0, -1.0, 1.0, 1.0]) * 2e-4
    for found in (pixels, unrounded, outwards):
        assert (pages_of(cells_in(found)) <= bound).all()


def test_an_anchor_on_the_side_of_an_enlarged_box_is_planned_for(monkeypatch):
    # A point box at (20, 20) becomes 16 wide, from 12 to 28: eight anchors of stride 8 lie on its sides.
    t = Targets(torch.zeros(1).long(), torch.zeros(1).long(), torch.tensor([[20 / 96, 20 / 64, 0.0, 0.0]]))
    assert cells_in(torch.tensor([[20.0, 20.0, 20.0, 20.0]])).item() == 1 + 1 + 1
    seen = []

    def spy(counts: torch.Tensor) -> torch.Tensor:
        seen.append(counts)
        return pages_of(counts)

    monkeypatch.setattr("compiled_loss.data.needs.pages_of", spy)
    TargetPlan(SIZE, STRIDES).apply(t)
    assert seen[0].tolist() == [9 + 4 + 1]


@pytest.mark.parametrize(
    ("count", "size", "pages"), [(1, 0.01, 16), (16, 0.2, 16), (17, 0.2, 18), (17, 3.0, 36), (100, 3.0, 208)]
)
def test_pages_come_in_steps_of_a_sixteenth(count, size, pages):
    assert room(TargetPlan(SIZE, STRIDES).apply(image_of(count, size))) == pages


@pytest.mark.parametrize(("count", "pages"), [(1, 16), (17, 32), (100, 128)])
def test_pages_come_in_powers_of_two_for_static_shapes(count, pages):
    assert room(TargetPlan(SIZE, STRIDES, power_of_two=True).apply(image_of(count, 0.2))) == pages


def test_no_batch_of_a_data_set_exceeds_its_plan():
    images = [
        image_of(count, size) for count, size in zip([0, 3, 40, 1, 17, 9], [0.1, 0.5, 0.1, 0.7, 0.2, 0.05], strict=True)
    ]
    plan = TargetPlan.from_dataset(iter(images), batch_size=2, image_size=SIZE, strides=STRIDES)
    assert plan.rows == 64
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for i, a in enumerate(images):
            for b in images[:i]:
                planned = plan.apply(join_images([a, b], "images"))
                assert (len(planned.labels), room(planned)) == (plan.rows, plan.pages)


def test_margin_and_buckets_widen_a_plan():
    images = [image_of(20, 0.4)] * 3

    def plan(**arguments):
        return TargetPlan.from_dataset(images, batch_size=2, image_size=SIZE, strides=STRIDES, **arguments)

    assert (plan().rows, plan().pages) == (48, 40)
    assert (plan(margin=1).rows, plan(margin=1).pages) == (80, 160)  # a side of 0.8 needs two pages
    assert (plan(power_of_two=True).rows, plan(power_of_two=True).pages) == (64, 64)


def test_a_batch_beyond_its_plan_loses_nothing_and_says_so_once(monkeypatch):
    monkeypatch.setattr("compiled_loss.data.plan._warned", set())
    plan = TargetPlan(SIZE, STRIDES, rows=16, pages=16)
    big = rows_of([0] * 40, size=0.95)
    with pytest.warns(UserWarning, match="TargetPlan") as caught:
        planned = plan.apply(big)
    text = sorted(str(w.message) for w in caught)
    assert len(text) == 2
    assert "rows=40, more than the 16 of its TargetPlan" in text[1]
    assert "pages=80, more than the 16" in text[0]
    assert "margin=" in text[1]
    assert (len(planned.labels), room(planned)) == (64, 80)
    assert planned.labels[:40].tolist() == list(range(40))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = plan.apply(big)
        small = plan.apply(image_of(3))
    assert (len(again.labels), room(again)) == (64, 80)
    assert (len(small.labels), room(small)) == (16, 16)


def test_a_plan_moves_to_another_image_size():
    plan = dataclasses.replace(TargetPlan(SIZE, STRIDES, rows=32), image_size=(128, 128))
    assert room(plan.apply(image_of(20, 3.0))) == 20 * 6  # 336 anchors each


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_size": (64, 100)}, r"image_size: expected .*multiples of the finest stride 8, got \(64, 100\)"),
        ({"image_size": (64,)}, r"image_size: expected \(height, width\)"),
        ({"image_size": (0, 64)}, "image_size: expected"),
        ({"strides": ()}, "strides: expected"),
        ({"strides": (8, 0)}, "strides: expected"),
        ({"rows": 1}, "rows: expected an integer of at least 2, got 1"),
        ({"pages": 0}, "pages: expected an integer of at least 1, got 0"),
        ({"pages": 200.5}, "pages: expected an integer of at least 1, got 200.5"),
        ({"image_size": (64.0, 64)}, "image_size: expected an integer of at least 1, got 64.0"),
        ({"image_size": 64}, r"image_size: expected \(height, width\).*, got 64"),
        ({"strides": (32, 16, 8)}, "strides: expected .*finest level first, got"),
        ({"strides": (8, 8)}, "strides: expected .*finest level first, got"),
        ({"strides": 8}, "strides: expected .*finest level first, got 8"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        TargetPlan(**({"image_size": (64, 64)} | arguments))


@pytest.mark.parametrize(
    ("images", "arguments", "message"),
    [
        ([], {}, "targets: expected at least one image"),
        ([image_of(1)], {"batch_size": 0}, "batch_size: expected an integer of at least 1, got 0"),
        ([image_of(1)], {"batch_size": 1.5}, "batch_size: expected an integer of at least 1, got 1.5"),
        ([image_of(1)], {"margin": float("inf")}, "margin: expected a finite number of 0 or more, got inf"),
        ([(None, image_of(1))], {}, r"targets\[0\]: expected Targets, got tuple"),
        ([image_of(1)], {"margin": -0.5}, "margin: expected a finite number of 0 or more"),
        ([image_of(1), "nothing"], {}, r"targets\[1\]: expected Targets, got str"),
        ([rows_of([0, 1])], {}, r"targets\[0\]: expected rows of one image .*got \[0, 1\]"),
        ([image_of(1), pad_rows(image_of(1))], {}, r"targets\[1\]: expected rows of one image .*without padding"),
        ([image_of(1), rows_of([0], keypoints=5)], {}, r"targets\[1\].keypoints: expected None .* got \[N, 5, 3\]"),
        ([image_of(1), image_of(2, float("nan"))], {}, r"Targets.boxes: expected finite .*row 1 \(image 1\)"),
    ],
)
def test_a_data_set_that_cannot_be_planned_is_refused(images, arguments, message):
    with pytest.raises(ValueError, match=message):
        TargetPlan.from_dataset(images, **({"batch_size": 2, "image_size": SIZE} | arguments))


def test_a_plan_refuses_a_batch_with_bad_values():
    with pytest.raises(ValueError, match=r"Targets\.boxes: expected fractions .*pixels"):
        TargetPlan(SIZE).apply(image_of(2, 300.0))


@pytest.mark.parametrize("criterion", [DetectionLoss(1), DetectionLoss(1, assigner=SimOTA()), OrientedLoss(1)])
@pytest.mark.parametrize("asked", [False, True])
def test_a_plan_for_rows_with_angles_holds_upright_and_turned_boxes(criterion, asked):
    # Turned by a quarter, a box as wide as the image has few anchors on it.
    boxes = torch.tensor([[0.5, 0.5, 1.0, 0.9]]).repeat(16, 1)
    rows = Targets(torch.zeros(16).long(), torch.zeros(16).long(), boxes, angles=torch.full((16,), torch.pi / 2))
    plan = TargetPlan((64, 640), region=criterion.region if asked else None)
    head = Predictions(
        torch.zeros(1, 64, 840), torch.zeros(1, 1, 840), ((8, 80), (4, 40), (2, 20)), angles=torch.zeros(1, 1, 840)
    )
    assert criterion(head, plan.apply(rows)).overflow == 0


def test_a_region_without_a_hash_may_need_more_than_planned(monkeypatch):
    monkeypatch.setattr("compiled_loss.data.plan._warned", set())

    @dataclasses.dataclass
    class Whole:
        """A region with `==` and no hash, as dataclasses are by default."""

        def reach(self, boxes, strides, grid_sizes):
            return boxes

    rows = rows_of([0] * 4, size=1.0)
    with pytest.warns(UserWarning, match="needs pages=8, more than the 1"):
        planned = TargetPlan(SIZE, STRIDES, pages=1, region=Whole()).apply(rows)  # type: ignore[arg-type]
    assert room(planned) >= 8
