"""The assigner against float64 loops, and the promises that hold for every batch."""

import pytest
import torch

from compiled_loss.pages import pages_of
from tests.assign.scenes import answer, assert_same_scores, assign, cells_of, expected, make_scene, readable
from tests.reference.batches import KINDS, LAYOUTS

seeds = pytest.mark.parametrize("seed", range(4))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_positives_and_scores_equal_the_reference_loops(layout, kind):
    for seed in range(3):
        scene = make_scene(10 * seed, layout=layout, kind=kind, counts=(3, 0, 17, 1), size=(96, 128))
        assert_same_scores(answer(scene), expected(scene))


@pytest.mark.parametrize(
    ("strides", "size"), [((10, 20, 40), (120, 160)), ((7,), (63, 84)), ((16, 32), (96, 96)), ((8, 16, 32), (32, 32))]
)
@pytest.mark.parametrize("top_k", [1, 4, 13])
def test_other_strides_levels_and_top_k_equal_the_reference_loops(strides, size, top_k):
    scene = make_scene(3, strides=strides, size=size, counts=(8, 5))
    assert_same_scores(answer(scene, top_k=top_k), expected(scene, top_k=top_k))


def test_a_top_k_beyond_the_candidates_or_the_anchors_takes_what_there_is():
    scene = make_scene(4, size=(32, 64), counts=(4, 2), strides=(16, 32))  # 10 anchors
    assert_same_scores(answer(scene, top_k=25), expected(scene, top_k=25))
    tiny = make_scene(5, layout="tiny", counts=(6,))
    assert_same_scores(answer(tiny), expected(tiny))


def needed_pages(scene) -> torch.Tensor:
    real = torch.ones_like(scene.labels, dtype=torch.bool)
    return pages_of(cells_of(scene.boxes, real, scene.grid_sizes, scene.strides).counts[:-1])


@seeds
def test_more_pages_than_needed_change_nothing(seed):
    scene = make_scene(seed, layout="spread")
    needed = int(needed_pages(scene).sum())
    for pages in (needed, needed + 7, torch.zeros(needed + 1)):
        planned = assign(*scene, pages=pages)
        assert planned.overflow == 0
        assert readable(planned) == answer(scene)


def test_rows_that_too_few_pages_cut_short_are_counted():
    scene = make_scene(6, counts=(9, 8))
    ends = needed_pages(scene).cumsum(0)
    for pages in (1, int(ends[8]), int(ends[-1]) - 1):
        assert assign(*scene, pages=pages).overflow == (ends > pages).sum()
    padded = scene._replace(batch_idx=torch.full_like(scene.batch_idx, -1))
    assert assign(*padded, pages=1).overflow == 0


@seeds
def test_padding_rows_change_nothing(seed):
    scene = make_scene(seed)
    n = len(scene.labels)
    places = torch.randperm(n + 6)[:n].sort().values
    batch_idx = torch.tensor([-1, 4, 99, -7, -1, 4] * (n + 6))[: n + 6]  # four images: 4 is out of range
    labels, boxes = torch.full((n + 6,), 999), torch.full((n + 6, 4), float("nan"))
    batch_idx[places], labels[places], boxes[places] = scene.batch_idx, scene.labels, scene.boxes
    got = answer(scene._replace(batch_idx=batch_idx, labels=labels, boxes=boxes))
    assert_same_scores(got, {(b, a, int(places[row])): score for (b, a, row), score in answer(scene).items()}, 1e-6)


@seeds
def test_the_order_of_rows_changes_nothing_but_their_numbers(seed):
    scene = make_scene(seed)
    order = torch.randperm(len(scene.labels))
    shuffled = answer(scene.rows(order))
    moved = {(b, a, int(order[row])): score for (b, a, row), score in shuffled.items()}
    assert_same_scores(moved, answer(scene), 1e-6)


@seeds
def test_an_image_is_assigned_alike_in_any_slot_of_any_batch(seed):
    scene = make_scene(seed, counts=(5, 7, 2))
    together = answer(scene)
    for image in range(3):
        mine = (scene.batch_idx == image).nonzero()[:, 0]
        alone = scene.rows(mine)._replace(
            scores=scene.scores[image : image + 1],
            predicted=scene.predicted[image : image + 1],
            batch_idx=torch.zeros(len(mine), dtype=torch.int64),
        )
        moved = {(image, a, int(mine[row])): score for (_, a, row), score in answer(alone).items()}
        assert_same_scores(moved, {slot: score for slot, score in together.items() if slot[0] == image}, 1e-6)


def test_batches_without_rows_or_without_images_are_empty():
    scene = make_scene(1, counts=(3, 2))
    none = assign(*scene.rows(torch.arange(0)))
    assert [x.shape for x in (*none[:5], none.overflow)] == [(0,)] * 5 + [()]
    assert none.overflow == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_broken_predictions_are_never_picked_and_leave_the_others_alone(value):
    scene = make_scene(8, counts=(9, 9), kind="truth")
    whole = answer(scene)
    anchors = sorted({a for b, a, _ in whole if b == 0})[::2]
    for field in ("predicted", "scores"):
        if field == "scores" and value == float("inf"):
            continue  # sigmoid(inf) is 1, a number like any other
        broken = getattr(scene, field).clone()
        (broken if field == "predicted" else broken.transpose(1, 2))[0, anchors] = value
        got = answer(scene._replace(**{field: broken}))
        assert not {a for b, a, _ in got if b == 0} & set(anchors)
        others, unchanged = ({k: v for k, v in x.items() if k[0] == 1} for x in (got, whole))
        assert_same_scores(others, unchanged, 1e-6)
        assert all(0 <= score <= 1 for score in got.values())
