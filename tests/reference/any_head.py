"""The reference loss of whatever a batch and a head's maps are about."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from .batches import Batch, Raw
from .end_to_end import KEEP, Pair, combine
from .losses import loss
from .masks import segmentation_loss
from .parts import ReferenceLoss
from .pose26 import pose26_loss
from .rotated import oriented_loss


def reference_loss(
    batch: Batch,
    raw: Raw | Pair,
    *,
    mask_overlap: bool = False,
    flow: Callable[[Tensor], Tensor] | None = None,
    shares: tuple[float, float] | None = None,
    one_to_one: dict[str, int] = KEEP,
    **options: Any,
) -> ReferenceLoss:
    """The loss that the maps call for; of a pair the weighted sum.

    Args:
        batch: target rows.
        raw: maps of a head, or of two branches.
        mask_overlap: whether the assigner of a mask head sees masks.
        flow: log-density of the errors of keypoints, of heads with keypoint sigmas.
        shares: weights of the two branches of a pair.
        one_to_one: assignment of the one-to-one branch.
        options: every other argument of the task's loss.
    """
    if isinstance(raw, Pair):
        assert shares is not None
        single: dict[str, Any] = {"mask_overlap": mask_overlap, "flow": flow, **options}
        many = reference_loss(batch, raw[0], **single)
        one = reference_loss(batch, raw[1], **{**single, **one_to_one})
        return combine(many, one, shares)
    rows = (batch.batch_idx, batch.labels, batch.boxes)
    if raw.angles is not None:
        return oriented_loss(raw.boxes, raw.scores, raw.angles, raw.grid_sizes, *rows, **options)
    if raw.coefficients is not None:
        assert raw.prototypes is not None
        assert batch.masks is not None
        maps = (raw.boxes, raw.scores, raw.coefficients, raw.prototypes, raw.grid_sizes)
        truth = (batch.masks, raw.semantic, batch.class_map)
        return segmentation_loss(*maps, *rows, *truth, mask_overlap=mask_overlap, **options)
    count = 0 if batch.keypoints is None else batch.keypoints.shape[1]
    if raw.keypoint_sigmas is not None:
        assert raw.keypoints is not None
        assert batch.keypoints is not None
        maps = (raw.boxes, raw.scores, raw.keypoints, raw.keypoint_sigmas, raw.grid_sizes)
        return pose26_loss(*maps, *rows, batch.keypoints, flow, num_keypoints=count, **options)
    maps = (raw.boxes, raw.scores, raw.grid_sizes)
    return loss(*maps, *rows, raw.keypoints, batch.keypoints, num_keypoints=count, **options)
