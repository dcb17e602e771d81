"""Where targets and their candidates are on the image.

Letters: N rows, A anchors.
"""

import torch
from torch import Tensor

from compiled_loss.assign.regions import Region, candidates_in
from compiled_loss.data.targets import Targets
from compiled_loss.losses.counting import covered_anchors
from compiled_loss.losses.parts import BoxKind
from compiled_loss.losses.scene import Scene, anchors_of, image_size_of, real_rows
from compiled_loss.types import Predictions


def placed(
    predictions: Predictions,
    targets: Targets,
    strides: tuple[int, ...],
    kind: BoxKind,
    region: Region,
    dropped: Tensor | int = 0,
) -> Scene:
    """Compute what depends only on targets and grid: anchors, rows in pixels, candidates, ignored anchors.

    Args:
        predictions: predictions whose grid and precision are used.
        targets: N rows.
        strides: pixels per grid unit of each level, finest first.
        kind: the kind of boxes.
        region: where candidates lie.
        dropped: number of objects without a row, because there was no slot for them.

    Returns:
        `Scene`.
    """
    grid_sizes, image_size = predictions.grid_sizes, image_size_of(predictions, strides)
    anchors = anchors_of(predictions, strides)
    pixels = (anchors.points * anchors.strides[:, None]).float()
    boxes, fits = kind.place(targets, image_size)
    real = real_rows(predictions, targets)
    image = torch.where(real, targets.batch_idx, 0).long()
    rows, ignored, cut, grid = real & fits, None, 0, (image, pixels, grid_sizes, strides, targets.pages)
    if targets.ignore is not None:  # a crowd is everything in its box, whatever the assigner's region
        crowds = candidates_in(kind.inside, boxes, rows & targets.ignore, *grid)
        rows, ignored = rows & ~targets.ignore, covered_anchors(crowds, predictions.scores.shape[0], pixels.shape[0])
        cut = (~crowds.layout.fits).sum()
    candidates = candidates_in(region, boxes, rows, *grid)
    return Scene(targets, anchors, pixels, boxes, image_size, candidates, dropped, ignored, cut)
