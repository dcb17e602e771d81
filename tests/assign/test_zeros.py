"""Anchors of alignment 0 that a dense `torch.topk` lists, against float64 loops that list them so."""

import pytest
import torch

from compiled_loss import TaskAligned
from tests.assign.scenes import answer, assert_same_scores, expected, make_scene
from tests.reference.batches import KINDS, LAYOUTS


@pytest.mark.parametrize("options", [{}, {"top_k": 7, "keep": 1}, {"top_k": 13, "keep": 3}], ids=str)
@pytest.mark.parametrize("size", [(64, 64), (160, 160), (224, 256)], ids=str)
def test_positives_are_those_of_a_dense_assigner(size, options):
    more = 0
    for seed in range(6):
        layout, kind = LAYOUTS[seed % len(LAYOUTS)], KINDS[seed % len(KINDS)]
        scene = make_scene(seed, layout=layout, kind=kind, counts=(3, 0, 30, 1), size=size)
        wanted = expected(scene, oracle_ties=True, **options)
        got = answer(scene, keep_zeros=True, **options)
        assert_same_scores(got, wanted)
        more += len(got) - len(answer(scene, **options))
    # Where there are many anchors it lists the first ones alone.
    assert more > 0 or "keep" in options or size == (224, 256)


def test_an_anchor_that_several_rows_list_without_overlap_goes_to_the_first_row_of_their_image():
    scene = make_scene(1, counts=(3, 2), size=(256, 256))
    # Boxes around the first anchors, which `torch.topk` lists where all are 0, and predictions that touch none of them.
    boxes = torch.tensor([[48.0, 48, 56, 56], [0, 0, 16, 16], [0, 0, 17, 17], [0, 0, 16, 16], [0, 0, 18, 18]])
    scene = scene._replace(boxes=boxes, predicted=torch.full_like(scene.predicted, 1000.0))
    got = answer(scene, keep_zeros=True)
    assert_same_scores(got, expected(scene, oracle_ties=True))
    assert set(got.values()) == {0.0}
    assert {row for image, _, row in got if image == 1} == {3}
    assert {row for image, _, row in got if image == 0} == {0}  # no candidate there
    assert answer(scene) == {}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("options", [{}, {"top_k": 7, "keep": 1}], ids=str)
def test_few_overlaps_push_some_of_the_first_anchors_out(seed, options):
    scene = make_scene(seed, counts=(8, 5), size=(224, 256))
    generator = torch.Generator().manual_seed(seed)
    # Boxes around the first anchors; of one image few predictions touch any, of the other none.
    boxes = torch.rand(13, 4, generator=generator) * torch.tensor([8.0, 8, 220, 190]) + torch.tensor([0, 0, 30, 30])
    touches = torch.rand(scene.predicted.shape[:2], generator=generator) < 1 / 40
    touches[:, :10:4] = True
    touches[1] = False
    scene = scene._replace(boxes=boxes, predicted=torch.where(touches[..., None], scene.predicted, 1000.0))
    got = answer(scene, keep_zeros=True, **options)
    assert_same_scores(got, expected(scene, oracle_ties=True, **options))
    assert set(got) != set(answer(scene, **options))


def test_a_broken_prediction_is_listed_by_none():
    scene = make_scene(3, layout="tiny", counts=(5, 9), size=(64, 64))
    scores = torch.full_like(scene.scores, float("nan"))
    assert answer(scene._replace(scores=scores), keep_zeros=True) == {}


def test_an_exported_graph_is_refused(monkeypatch):
    monkeypatch.setattr(torch.compiler, "_is_exporting_flag", True)
    with pytest.raises(ValueError, match="keep_zeros: expected False in an exported graph"):
        answer(make_scene(3, layout="tiny", counts=(5, 9), size=(64, 64)), keep_zeros=True)


def test_it_is_told_by_true_or_false():
    with pytest.raises(ValueError, match="keep_zeros: expected True or False, got 1"):
        TaskAligned(keep_zeros=1)  # type: ignore[arg-type]
