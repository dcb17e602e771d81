"""Inputs of the assigner made from the hard random batches, and readable answers."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from compiled_loss.assign.candidates import Candidates, Cells, find_cells, list_candidates
from compiled_loss.assign.parts import Assigner, Pairs
from compiled_loss.assign.regions import InBox
from compiled_loss.assign.task_aligned import TaskAligned
from compiled_loss.geometry.boxes import ciou
from compiled_loss.pages import PAGE, capacity, lay_out, pages_of
from compiled_loss.types import Assignment
from tests.reference import assigner as reference
from tests.reference.batches import Batch, Raw, make_batch, make_predictions
from tests.reference.losses import anchor_grid

STRIDES = (8, 16, 32)


class Scene(NamedTuple):
    """The assigner's arguments, in their order."""

    scores: Tensor  # [B, C, A] logits
    predicted: Tensor  # [B, A, 4] xyxy, pixels
    batch_idx: Tensor
    labels: Tensor
    boxes: Tensor  # [N, 4] xyxy, float32 pixels
    grid_sizes: tuple[tuple[int, int], ...]
    strides: tuple[int, ...]

    def rows(self, order: Tensor) -> "Scene":
        """The same rows in another order, or some of them."""
        return self._replace(batch_idx=self.batch_idx[order], labels=self.labels[order], boxes=self.boxes[order])


def assign(
    scores: Tensor,
    predicted: Tensor,
    batch_idx: Tensor,
    labels: Tensor,
    boxes: Tensor,
    grid_sizes: tuple[tuple[int, int], ...],
    strides: tuple[int, ...],
    *,
    pages: Tensor | int | None = None,
    assigner: Assigner = TaskAligned(),  # noqa: B008  (frozen)
) -> Assignment:
    """The assigner with the candidates and the overlap of upright boxes."""
    real = (batch_idx >= 0) & (batch_idx < len(scores))
    candidates = candidates_of(boxes, real, grid_sizes, strides, torch.where(real, batch_idx, 0), pages=pages)

    def overlap(candidates: Candidates, logits: Tensor) -> Tensor:
        return ciou(candidates.of_rows(boxes), candidates.take(predicted))

    points, steps = (torch.from_numpy(x).float() for x in anchor_grid(grid_sizes, strides))
    placed = boxes, points * steps[:, None], steps.flatten()
    return assigner(Pairs(scores, batch_idx, labels, *placed, candidates, overlap))


def cells_of(
    boxes: Tensor,
    real: Tensor,
    grid_sizes: Sequence[tuple[int, int]],
    strides: Sequence[int],
    levels: Tensor | None = None,
) -> Cells:
    """The cells inside upright boxes, small ones enlarged."""
    return find_cells(InBox().reach(boxes, strides), real, grid_sizes, strides, levels=levels)


def candidates_of(
    boxes: Tensor,
    real: Tensor,
    grid_sizes: Sequence[tuple[int, int]],
    strides: Sequence[int],
    image: Tensor | None = None,
    *,
    pages: Tensor | int | None = None,
    levels: Tensor | None = None,
) -> Candidates:
    """The candidates of upright boxes, on as many pages as asked for, else as needed."""
    counts = (cells := cells_of(boxes, real, grid_sizes, strides, levels)).counts[:-1]
    room = capacity(pages, pages_of(counts))
    if room is None:
        room = boxes.shape[0] * (sum(h * w for h, w in grid_sizes) // PAGE + 1) + 1
    image = torch.zeros(boxes.shape[0], dtype=torch.int64) if image is None else image
    return list_candidates(cells, lay_out(counts, room), image, grid_sizes)


def anchors_of(candidates: Candidates, row: int) -> list[int]:
    """The candidates of one row, in the order of its pages."""
    mine = candidates.layout.group == row
    return candidates.anchor[mine][candidates.inside[mine]].tolist()


def make_scene(
    seed: int,
    *,
    kind: str = "mixed",
    strides: tuple[int, ...] = STRIDES,
    **options: Any,
) -> Scene:
    """A hard random batch with the predictions of a head, decoded in float64."""
    batch = make_batch(seed, **options)
    return as_scene(batch, make_predictions(seed + 1, batch, kind=kind, strides=strides), strides)


def as_scene(batch: Batch, raw: Raw, strides: tuple[int, ...]) -> Scene:
    points, steps = (torch.from_numpy(x).double() for x in anchor_grid(raw.grid_sizes, strides))
    logits = raw.boxes.double().transpose(1, 2).unflatten(-1, (4, -1))
    distances = (logits.softmax(-1) * torch.arange(logits.shape[-1])).sum(-1)
    predicted = torch.cat([points - distances[..., :2], points + distances[..., 2:]], -1) * steps[:, None]
    boxes = torch.from_numpy(reference.pixel_boxes(batch.boxes, *batch.size))
    return Scene(raw.scores, predicted.float(), batch.batch_idx, batch.labels, boxes, raw.grid_sizes, strides)


def expected(scene: Scene, **options: Any) -> dict[tuple[int, int, int], float]:
    """What the reference loops say: target score of every positive (image, anchor, row)."""
    points, steps = anchor_grid(scene.grid_sizes, scene.strides)
    positives = reference.assign(
        scene.scores.double().sigmoid().transpose(1, 2),
        scene.predicted.double(),
        points * steps[:, None],
        scene.batch_idx.tolist(),
        scene.labels.tolist(),
        scene.boxes.numpy(),
        small=scene.strides[min(1, len(scene.strides) - 1)],
        **options,
    )
    return {(p.image, p.anchor, p.row): p.score for p in positives}


def answer(scene: Scene, **options: Any) -> dict[tuple[int, int, int], float]:
    """The same of the assigner."""
    return readable(assign(*scene, assigner=TaskAligned(**options)))


def readable(a: Assignment) -> dict[tuple[int, int, int], float]:
    """Target score of every positive (image, anchor, row); an anchor in two slots is an error."""
    slots = zip(a.image.tolist(), a.anchor.tolist(), a.row.tolist(), strict=True)
    taken = [
        (slot, score) for slot, valid, score in zip(slots, a.valid.tolist(), a.score.tolist(), strict=True) if valid
    ]
    assert len({slot[:2] for slot, _ in taken}) == len(taken), "an anchor stands in two slots"
    assert (a.score[~a.valid] == 0).all(), "an empty slot has a score"
    return dict(taken)


def assert_same_scores(got: dict, wanted: dict, tolerance: float = 1e-4) -> None:
    """The same positives, and their target scores to float32 rounding."""
    assert got.keys() == wanted.keys()
    for slot, score in wanted.items():
        assert abs(got[slot] - score) <= tolerance * score + 1e-7, (slot, got[slot], score)
