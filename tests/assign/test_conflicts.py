"""Ties and conflicts: cases made by hand, the same in every mode."""

import functools

import pytest
import torch

from compiled_loss import TaskAligned
from compiled_loss.types import Assignment
from tests.assign.scenes import Scene, answer, assign, readable
from tests.contract.checks import Case, export

GRIDS, STRIDES = ((4, 6), (2, 3)), (8, 16)
ANCHORS = 30


def scene_of(boxes, predicted, *, labels=None, logits=None, images=1, batch_idx=None) -> Scene:
    n = len(boxes)
    predicted = torch.as_tensor(predicted, dtype=torch.float32).expand(images, ANCHORS, 4).contiguous()
    return Scene(
        torch.zeros(images, 2, ANCHORS) if logits is None else logits,
        predicted,
        torch.zeros(n, dtype=torch.int64) if batch_idx is None else torch.tensor(batch_idx),
        torch.zeros(n, dtype=torch.int64) if labels is None else torch.tensor(labels),
        torch.tensor(boxes, dtype=torch.float32),
        GRIDS,
        STRIDES,
    )


BOX = [0.0, 0, 40, 32]  # columns 0 to 4 of the fine level, four rows; columns 0 and 1 of the coarse one
NEAR = [1.0, 2.5, 37, 29]  # what every anchor predicts
TIED = scene_of([BOX, [8.0, 8, 47, 31], BOX], NEAR)


@functools.cache
def modes():
    """The assigner with seven anchors a row, in every form."""

    seven = TaskAligned(top_k=7)

    def function(*tensors):
        return tuple(assign(*tensors, grid_sizes=GRIDS, strides=STRIDES, assigner=seven))

    program, onnx = export(Case(function, lambda _n, _padded: TIED[:5], learnt=0, rows=3))
    return function, torch.compile(function, fullgraph=True), program.module(), onnx


def test_of_equal_anchors_the_lowest_win_in_every_mode():
    one = TIED.rows(torch.tensor([0, 0]))._replace(batch_idx=torch.tensor([0, -1]))
    for mode in modes():
        got = readable(Assignment(*mode(*one[:5])))
        assert [slot[1] for slot in got] == [0, 1, 2, 3, 4, 6, 7]
        assert list(got.values()) == pytest.approx([next(iter(got.values()))] * 7)


def test_of_equal_rows_the_first_takes_every_anchor_in_every_mode():
    for mode in modes():
        got = readable(Assignment(*mode(*TIED.rows(torch.tensor([0, 2]))[:5])))
        assert sorted(got) == [(0, a, 0) for a in (0, 1, 2, 3, 4, 6, 7)]


def test_a_conflict_is_won_by_the_row_that_overlaps_most_though_it_had_not_selected_the_anchor():
    # One anchor a row. All boxes cover anchors 0 and 1. The wide row prefers anchor 1 by its score; anchor 0 goes to
    # it all the same, because two narrow rows select that one and the wide row overlaps most there.
    wide, narrow = [0.0, 0, 16, 16], [0.0, 0, 16, 14]
    predicted = torch.zeros(ANCHORS, 4)
    predicted[0] = predicted[1] = torch.tensor(wide)
    logits = torch.full((1, 2, ANCHORS), -9.0)
    logits[0, 0, 1], logits[0, 0, 0] = 5.0, 0.0  # class 0, of the wide row: anchor 1
    logits[0, 1, 0] = 5.0  # class 1, of the narrow rows: anchor 0
    scene = scene_of([narrow, wide, narrow], predicted, labels=[1, 0, 1], logits=logits)
    got = answer(scene, top_k=1)
    assert sorted(got) == [(0, 0, 1), (0, 1, 1)]
    # The wide row's own best is anchor 1, and scores are relative to it: m is sqrt(sigmoid) here, the overlap 1.
    half, high = (torch.tensor(x).sigmoid().sqrt().item() for x in (0.0, 5.0))
    assert got[0, 1, 1] == pytest.approx(1, abs=1e-5)
    assert got[0, 0, 1] == pytest.approx(half / high, abs=1e-5)


def test_an_anchor_selected_once_stays_although_another_row_overlaps_it_more():
    wide, narrow = [0.0, 0, 16, 16], [0.0, 0, 16, 14]
    predicted = torch.zeros(ANCHORS, 4)
    predicted[0] = predicted[1] = torch.tensor(wide)
    logits = torch.full((1, 2, ANCHORS), -9.0)
    logits[0, 0, 1] = logits[0, 1, 0] = 5.0
    scene = scene_of([narrow, wide], predicted, labels=[1, 0], logits=logits)
    assert sorted(answer(scene, top_k=1)) == [(0, 0, 0), (0, 1, 1)]


def test_rows_of_other_images_do_not_compete():
    scene = scene_of([BOX, BOX, BOX], BOX, images=2, batch_idx=[1, 0, 1])
    got = answer(scene, top_k=3)
    assert sorted(got) == [(0, 0, 1), (0, 1, 1), (0, 2, 1), (1, 0, 0), (1, 1, 0), (1, 2, 0)]


def test_anchors_without_overlap_are_not_positive_although_they_lie_in_the_box():
    far = [100.0, 100, 120, 120]
    assert answer(scene_of([BOX], far)) == {}


def test_half_and_float32_logits_of_equal_value_are_assigned_alike():
    logits = torch.randn(1, 2, ANCHORS).half()
    predicted = torch.tensor(BOX) + torch.randn(ANCHORS, 4)
    low, high = (scene_of([BOX, BOX], predicted, labels=[0, 1], logits=x) for x in (logits, logits.float()))
    assert answer(low) == answer(high)
