"""Task-aligned assignment in which no row goes without an anchor, against float64 loops and by hand."""

import pytest
import torch

from compiled_loss import DetectionLoss, InBox, Predictions, Targets, TaskAligned
from tests.assign.scenes import Scene, assert_same_scores, assign, make_scene, readable
from tests.assign.test_other_assigners import given_of
from tests.reference import other_assigners as reference
from tests.reference.batches import KINDS, LAYOUTS


def yolov9(farthest: float = 14.99, top_k: int = 10) -> TaskAligned:
    return TaskAligned(top_k, at_least_one=True, region=InBox(farthest=farthest, grown=False))


def check(scene: Scene, farthest: float = 14.99, top_k: int = 10) -> int:
    got = readable(assign(*scene, assigner=yolov9(farthest, top_k)))
    assert_same_scores(got, reference.aligned(given_of(scene), farthest=farthest, top_k=top_k))
    return len({row for _, _, row in got})


@pytest.mark.parametrize("farthest", [14.99, 2.99])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_positives_and_scores_equal_the_loops(layout, farthest):
    for seed, kind in enumerate(KINDS):
        check(make_scene(10 * seed, layout=layout, kind=kind, counts=(3, 0, 9, 1), size=(64, 96)), farthest)


def test_rows_that_find_nothing_have_the_best_anchor_of_all():
    # A box of 2 pixels between four anchors, all of which predict it; the one beyond the others best.
    box, row = torch.tensor([[7.0, 7, 9, 9]]), torch.tensor([0])
    predicted = torch.tensor([6.0, 6, 10, 10]).repeat(1, 16, 1)
    predicted[0, 15] = torch.tensor([7.0, 7, 9, 9])
    of_four = (torch.zeros(1, 1, 16), predicted, row, row, box, ((4, 4),), (8,))
    assert not readable(assign(*of_four, assigner=TaskAligned(region=InBox(grown=False))))
    assert readable(assign(*of_four, assigner=yolov9())) == pytest.approx({(0, 15, 0): 1.0}, abs=1e-4)
    # Where none overlaps it there is none to take.
    elsewhere = torch.full_like(predicted, 40.0) + torch.tensor([0.0, 0, 1, 1])
    assert not readable(assign(of_four[0], elsewhere, *of_four[2:], assigner=yolov9()))


def test_a_row_competes_only_for_what_it_selected():
    # Rows 0 and 2 select anchor 5. Row 1 overlaps it more than they do, but selects anchor 6 alone.
    boxes = torch.tensor([[8.0, 8, 16, 16], [8.0, 8, 24, 16], [8.0, 8, 16, 16]])
    predicted = torch.full((1, 16, 4), 99.0)
    predicted[0, 5], predicted[0, 6] = torch.tensor([8.0, 8, 22, 16]), torch.tensor([8.0, 8, 24, 16])
    row = torch.zeros(3, dtype=torch.int64)
    rows = torch.zeros(1, 1, 16), predicted, row, row, boxes, ((4, 4),), (8,)
    options = {"top_k": 1, "region": InBox(grown=False)}
    assert set(readable(assign(*rows, assigner=TaskAligned(**options)))) == {(0, 5, 1), (0, 6, 1)}
    assert set(readable(assign(*rows, assigner=TaskAligned(at_least_one=True, **options)))) == {(0, 5, 0), (0, 6, 1)}


def test_anchors_on_a_side_and_at_the_limit_are_inside():
    box, row = torch.tensor([[4.0, 4, 12, 20]]), torch.tensor([0])
    scene = torch.zeros(1, 1, 16), box.expand(1, 16, 4), row, row, box, ((4, 4),), (8,)
    for region, anchors in (
        (InBox(grown=False), {0, 1, 4, 5, 8, 9}),
        (InBox(farthest=1.0, grown=False), {4, 5}),
        (InBox(farthest=1.5, grown=False), {4, 5}),
        (InBox(farthest=2.0, grown=False), {0, 1, 4, 5, 8, 9}),
    ):
        got = {a for _, a, _ in readable(assign(*scene, assigner=TaskAligned(region=region)))}
        assert got == anchors, region


def test_pages_padding_and_ignored_rows_change_nothing():
    scene = make_scene(3, layout="tiny", counts=(5, 0, 7))
    whole = readable(assign(*scene, assigner=yolov9()))
    assert readable(assign(*scene, assigner=yolov9(), pages=500)) == whole
    padded = scene._replace(
        batch_idx=torch.cat([scene.batch_idx, torch.tensor([-1, 3, -1])]),
        labels=torch.cat([scene.labels, torch.tensor([99, 99, 99])]),
        boxes=torch.cat([scene.boxes, torch.full((3, 4), float("nan"))]),
    )
    assert_same_scores(readable(assign(*padded, assigner=yolov9())), whole, 1e-6)
    assert not assign(*scene.rows(torch.arange(0)), assigner=yolov9()).valid.any()
    # Sides of 6 pixels between anchors, and predictions of 16 about every anchor of the finest level.
    distances = torch.zeros(1, 4, 16, 84)
    distances[:, :, 1] = 20.0
    predictions = Predictions(distances.flatten(1, 2), torch.zeros(1, 2, 84), ((8, 8), (4, 4), (2, 2)))
    boxes = torch.tensor([[0.5, 0.5, 0.09375, 0.09375], [0.25, 0.25, 0.09375, 0.09375]])
    two = Targets(torch.tensor([0, 0]), torch.tensor([0, 1]), boxes, ignore=torch.tensor([False, True]))
    found = DetectionLoss(2, assigner=yolov9()).assign(predictions, two)
    assert found.row[found.valid].tolist() == [0]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_broken_predictions_are_never_picked(value):
    scene = make_scene(8, layout="tiny", counts=(9, 9), kind="truth")
    taken = sorted({a for b, a, _ in readable(assign(*scene, assigner=yolov9())) if b == 0})[::2]
    for field in ("predicted", "scores"):
        broken = getattr(scene, field).clone()
        (broken if field == "predicted" else broken.transpose(1, 2))[0, taken] = value
        got = readable(assign(*scene._replace(**{field: broken}), assigner=yolov9()))
        assert taken
        assert not {a for b, a, _ in got if b == 0} & set(taken)


def test_options_that_are_no_truth_values_are_refused():
    with pytest.raises(ValueError, match="at_least_one: expected True or False, got 1"):
        TaskAligned(at_least_one=1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="grown: expected True or False, got 'no'"):
        InBox(grown="no")  # type: ignore[arg-type]
