"""The weights of rows and anchors: row weights, and ignore rows of unlabelled regions.

Letters: B images, N rows, A anchors, P positive slots.
"""

import torch
from torch import Tensor

from compiled_loss.assign.candidates import Candidates
from compiled_loss.data.targets import Targets
from compiled_loss.losses.scene import Positives


def objects_of(targets: Targets) -> Tensor:
    """`[N]` image of each row; of ignore rows -1, as of padding."""
    return targets.batch_idx if targets.ignore is None else torch.where(targets.ignore, -1, targets.batch_idx)


def covered_anchors(candidates: Candidates, images: int, anchors: int) -> Tensor:
    """`[B, A]` bool: anchors that are a candidate of any row."""
    place = torch.where(candidates.inside, candidates.image[:, None] * anchors + candidates.anchor, images * anchors)
    marks = torch.zeros(images * anchors + 1, device=place.device)
    marks = marks.scatter(0, place.flatten(), torch.ones_like(place, dtype=marks.dtype).flatten())
    return marks[:-1].view(images, anchors) > 0


def row_weights(positives: Positives) -> Tensor | None:
    """`[P]` weights of the slots' rows, 0 in empty slots; None means all 1."""
    weights = positives.view.scene.targets.weights
    return None if weights is None else positives.of_rows(weights.detach())


def anchor_weights(positives: Positives) -> Tensor | None:
    """`[B, A]` weight of each anchor in the class term: its row's, 0 if ignored, otherwise 1; None means all 1."""
    (predictions, *_, scene), assignment, weights = positives.view, positives.assignment, row_weights(positives)
    if weights is None and scene.ignored is None:
        return None
    batch, _, anchors = predictions.scores.shape
    # One extra anchor, for empty slots.
    size = batch * anchors + 1
    counts = scene.pixels.new_ones(size)
    if scene.ignored is not None:
        counts = torch.cat([1 - scene.ignored.flatten().to(counts.dtype), counts[:1]])
    place = torch.where(assignment.valid, assignment.image * anchors + assignment.anchor, size - 1)
    own = torch.ones_like(place, dtype=counts.dtype) if weights is None else weights.to(counts.dtype)
    return counts.scatter(0, place, own)[:-1].view(batch, anchors)
