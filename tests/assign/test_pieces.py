"""Candidate slots in pieces hold what whole windows hold, and give the same assignment to the bit."""

import pytest
import torch

from compiled_loss.assign.pieces import PIECE, first_top_k_of_rows, list_pieces
from compiled_loss.assign.task_aligned import assign_task_aligned
from compiled_loss.assign.windows import Windows, candidate_counts, candidate_windows
from compiled_loss.types import Assignment
from tests.assign.scenes import Scene, as_scene, assign, readable
from tests.reference.batches import KINDS, Batch, make_batch, make_predictions

SIZE, STRIDES = (256, 320), (8, 16, 32)  # 1680 anchors, 14 pieces

seeds = pytest.mark.parametrize("seed", range(4))


def huge_and_tiny(seed: int, counts: tuple[int, ...] = (9, 0, 14, 1)) -> Batch:
    """Every third row covers most of its image; padding rows in between."""
    batch = make_batch(seed, layout="mixed", counts=counts, size=SIZE)
    boxes, generator = batch.boxes.clone(), torch.Generator().manual_seed(seed)
    boxes[::3, 2:] = 0.5 + torch.rand(len(boxes[::3]), 2, generator=generator) / 2
    batch_idx = batch.batch_idx.clone()
    batch_idx[4::7] = -1
    return batch._replace(boxes=boxes, batch_idx=batch_idx)


def scene_of(seed: int, kind: str = "mixed") -> Scene:
    batch = huge_and_tiny(seed)
    return as_scene(batch, make_predictions(seed + 1, batch, kind=kind, strides=STRIDES), STRIDES)


def pieces_of(scene: Scene) -> int:
    """As many as the real rows need."""
    counts = candidate_counts(scene.boxes, scene.grid_sizes, scene.strides)
    return int(-(-counts // PIECE)[scene.batch_idx >= 0].sum())


def assert_identical(got: Assignment, wanted: Assignment) -> None:
    assert readable(got) == readable(wanted)
    for name, x, y in zip(got._fields, got, wanted, strict=True):
        assert torch.equal(x, y), name


def anchors_of_rows(windows: Windows, rows: int) -> list[list[int]]:
    row = torch.arange(rows) if windows.pieces is None else windows.pieces.row
    return [windows.anchor[row == n][windows.inside[row == n]].tolist() for n in range(rows)]


@seeds
def test_pieces_are_those_of_a_loop(seed):
    counts = torch.randint(0, 700, (20,), generator=torch.Generator().manual_seed(seed))
    counts[::4] = 0
    for capacity, most in ((100, 9), (100, 3), (7, 9), (1, 1)):
        owners = [n for n, count in enumerate(counts.tolist()) for _ in range(min(-(-count // PIECE), most))]
        kept = owners[:capacity]
        pieces = list_pieces(counts, capacity, most)
        assert pieces.row.tolist() == kept + [20] * (capacity - len(kept))
        assert pieces.owned.tolist() == [kept.count(n) for n in range(20)]
        for n in set(kept):
            assert pieces.first[n] == kept.index(n)


@seeds
def test_the_rows_of_a_table_have_the_same_anchors_in_pieces(seed):
    scene = scene_of(seed)
    real, rows = scene.batch_idx >= 0, len(scene.labels)
    fixed = scene.boxes, real, scene.grid_sizes, scene.strides
    whole, widest = candidate_windows(*fixed, None), int(candidate_windows(*fixed, None).counts.max())
    assert widest > 3 * PIECE
    for width, more in ((None, 0), (widest, 0), (widest + 5, 11)):
        windows = candidate_windows(*fixed, width, pieces=pieces_of(scene) + more)
        assert windows.anchor.shape == (pieces_of(scene) + more, PIECE)
        assert anchors_of_rows(windows, rows) == anchors_of_rows(whole, rows)
        assert torch.equal(windows.counts, whole.counts)
        assert not windows.cut().any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{}, {"top_k": 1}, {"top_k": 200}, {"top_k": 7, "keep": 1}], ids=str)
def test_the_assignment_is_the_same_to_the_bit(kind, options):
    for seed in range(3):
        scene = scene_of(seed, kind)
        for more in (0, 9):
            got = assign(*scene, pieces=pieces_of(scene) + more, **options)
            assert_identical(got, assign(*scene, **options))


@seeds
def test_equal_scores_across_pieces_go_to_the_lowest_anchors(seed):
    scene = scene_of(seed)
    rows, real = (scene.batch_idx, scene.labels), scene.batch_idx >= 0
    levels = torch.randint(1, 4, (scene.predicted.shape[1],), generator=torch.Generator().manual_seed(seed)) / 4
    answers = []
    for pieces in (None, pieces_of(scene) + 3):
        windows = candidate_windows(scene.boxes, real, scene.grid_sizes, scene.strides, None, pieces=pieces)

        def overlap(candidates):
            return levels[candidates.windows.anchor]  # three values for hundreds of candidates

        answers.append(assign_task_aligned(torch.zeros_like(scene.scores), *rows, windows, overlap, top_k=150))
    assert_identical(answers[1], answers[0])
    assert answers[0].valid.sum() > 300


def test_the_largest_of_a_row_are_found_in_any_of_its_pieces():
    x = torch.zeros(4, PIECE)
    x[0, 100], x[1, 3], x[2, 0], x[3, 5] = 2, 3, 2, 9
    pieces = list_pieces(torch.tensor([3 * PIECE, 0, 1]), 4, 3)
    values, places = first_top_k_of_rows(x, pieces, 3)
    assert values.tolist() == [[3, 2, 2], [0, 0, 0], [9, 0, 0]]
    assert places[0].tolist() == [PIECE + 3, 100, 2 * PIECE]
    assert places[2, 0] == 3 * PIECE + 5


@seeds
def test_rows_without_room_keep_their_first_candidates_and_are_counted(seed):
    scene = scene_of(seed)
    real, rows = scene.batch_idx >= 0, len(scene.labels)
    fixed = scene.boxes, real, scene.grid_sizes, scene.strides
    whole = anchors_of_rows(candidate_windows(*fixed, None), rows)
    for width, pieces in ((None, pieces_of(scene) - 2), (None, 1), (2 * PIECE, 100)):
        windows = candidate_windows(*fixed, width, pieces=pieces)
        found = anchors_of_rows(windows, rows)
        short = [len(mine) < len(wanted) for mine, wanted in zip(found, whole, strict=True)]
        assert all(mine == wanted[: len(mine)] for mine, wanted in zip(found, whole, strict=True))
        assert windows.cut().tolist() == short
        assert any(short)
        assert assign(*scene, window=width, pieces=pieces).overflow == sum(short)


def test_windows_no_wider_than_a_piece_stay_whole():
    scene = scene_of(0)
    windows = candidate_windows(scene.boxes, scene.batch_idx >= 0, scene.grid_sizes, scene.strides, PIECE, pieces=40)
    assert windows.pieces is None
    assert windows.anchor.shape == (len(scene.labels), PIECE)


@pytest.mark.parametrize("padding", [False, True])
def test_no_rows_and_padding_alone_have_empty_pieces(padding):
    scene = scene_of(1)
    scene = scene._replace(batch_idx=torch.full_like(scene.batch_idx, -1))
    scene = scene if padding else scene.rows(torch.arange(0))
    found = assign(*scene, pieces=8)
    assert not found.valid.any()
    assert found.overflow == 0
    assert len(found.valid) == 10 * len(scene.labels)
