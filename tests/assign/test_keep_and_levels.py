"""Fewer anchors kept than selected, candidates on some levels alone, and overlaps of the caller's own."""

import pytest
import torch

from compiled_loss.assign.parts import Pairs
from compiled_loss.assign.task_aligned import TaskAligned
from tests.assign.scenes import (
    anchors_of,
    answer,
    assert_same_scores,
    candidates_of,
    cells_of,
    expected,
    make_scene,
    readable,
)
from tests.reference import assigner as reference
from tests.reference.batches import LAYOUTS
from tests.reference.losses import anchor_grid


@pytest.mark.parametrize(("top_k", "keep"), [(7, 1), (10, 1), (7, 3), (4, 4), (3, 9)])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_row_keeps_the_best_of_the_anchors_it_holds(layout, top_k, keep):
    for seed in range(3):
        scene = make_scene(seed, layout=layout, counts=(3, 0, 17, 1), size=(96, 128))
        wanted = expected(scene, top_k=top_k, keep=keep)
        assert_same_scores(answer(scene, top_k=top_k, keep=keep), wanted)
        if keep == 1:
            assert len({row for *_, row in wanted}) == len(wanted)


def test_of_equal_anchors_that_a_row_holds_the_lowest_is_kept():
    # Both rows see every anchor alike and select anchors 0 to 2; the first row takes them all and keeps two.
    row = torch.tensor([0, 0])
    candidates = candidates_of(torch.tensor([[0.0, 0, 32, 32]]).repeat(2, 1), row == 0, [(4, 4)], [8])

    def same(candidates, logits):
        return torch.full(candidates.anchor.shape, 0.5)

    none = torch.zeros(0)
    found = TaskAligned(3, 2)(Pairs(torch.zeros(1, 1, 16), row, row, none, none, none, candidates, same))
    assert sorted(readable(found)) == [(0, 0, 0), (0, 1, 0)]
    assert found.valid.shape == (4,)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_are_candidates_on_their_levels_alone_unless_these_hold_none(layout):
    scene = make_scene(5, layout=layout, counts=(20,), size=(160, 224))
    points, steps = anchor_grid(scene.grid_sizes, scene.strides)
    levels = torch.rand(20, 3, generator=torch.Generator().manual_seed(0)) < 0.4
    arguments = scene.boxes, scene.batch_idx == 0, scene.grid_sizes, scene.strides
    found, counts = candidates_of(*arguments, levels=levels), cells_of(*arguments, levels=levels).counts
    empty = 0
    for n, box in enumerate(scene.boxes.numpy()):
        inside = reference.candidates(points * steps[:, None], box, scene.strides[1])
        allowed = inside & levels[n].numpy()[[scene.strides.index(int(s)) for s in steps.flatten()]]
        empty += not allowed.any()
        wanted = (allowed if allowed.any() else inside).nonzero()[0].tolist()
        assert anchors_of(found, n) == wanted
        assert counts[n] == len(wanted)
    assert empty > 0
    assert (counts <= cells_of(*arguments).counts).all()


def test_an_overlap_sees_each_candidate_once_with_the_logit_of_its_class():
    scene = make_scene(7, counts=(4, 3))
    real = torch.ones_like(scene.labels, dtype=torch.bool)
    listed = candidates_of(scene.boxes, real, scene.grid_sizes, scene.strides, scene.batch_idx)
    seen = []

    def overlap(candidates, logits):
        seen.append((candidates, logits))
        return candidates.take(torch.arange(scene.predicted.shape[1]).expand(2, -1) / 1e4)

    none = torch.zeros(0)
    TaskAligned()(Pairs(scene.scores, scene.batch_idx, scene.labels, scene.boxes, none, none, listed, overlap))
    ((candidates, logits),) = seen
    assert torch.equal(overlap(candidates, logits), listed.anchor / 1e4)
    for page, row in enumerate(listed.layout.group.tolist()):
        mine = scene.scores[scene.batch_idx[row], scene.labels[row]][listed.anchor[page]]
        assert torch.equal(logits[page], mine)


def test_alignment_is_zero_without_overlap_and_at_broken_scores():
    nan, inf = float("nan"), float("inf")
    logits, overlap = torch.tensor([0.0, 0.0, nan, inf, -inf]), torch.tensor([1.0, 0.0, 1.0, 1.0, 1.0])
    assert TaskAligned(alpha=1.0).alignment(logits, overlap).tolist() == [0.5, 0, 0, 0, 0]
