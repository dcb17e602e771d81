"""The segmentation loss as a function of tensors alone."""

from collections.abc import Sequence

import torch
from torch import Tensor

from compiled_loss import Predictions, Targets
from compiled_loss.losses.segmentation import SegmentationLoss
from tests.contract.checks import Case
from tests.reference.batches import Batch, make_batch, make_predictions
from tests.reference.mask_batches import add_mask_predictions, add_masks

SIZE, STRIDES, CLASSES = (64, 96), (8, 16, 32), 2
GRIDS = ((8, 12), (4, 6), (2, 3))
IMAGES = 3


class LossOfTensors(torch.nn.Module):
    """The total, the terms and the counts, of a head's outputs, maps of the images and target rows."""

    def __init__(self, loss: SegmentationLoss, stacked: bool, planned: tuple[int, int] | None) -> None:
        super().__init__()
        self.loss = loss
        self.stacked = stacked
        self.window, self.mask_tiles = planned or (None, None)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        boxes, scores, coefficients, prototypes, semantic, class_map, *rest = tensors
        index_map, masks = (None, rest.pop()) if self.stacked else (rest.pop(0), None)
        maps = {"coefficients": coefficients, "prototypes": prototypes, "semantic": semantic}
        given = {"masks": masks, "index_map": index_map, "class_map": class_map}
        targets = Targets(*rest, window=self.window, mask_tiles=self.mask_tiles, **given)
        out = self.loss(Predictions(boxes, scores, GRIDS, **maps), targets)
        return out.total, *out.terms.values(), out.num_positives, out.overflow


def mask_case(
    loss: SegmentationLoss, *, stacked: bool = False, planned: tuple[int, int] | None = None, scale: int = 4
) -> Case:
    """Index maps or stacked masks of the image's size over `scale`; `planned` are the window and the mask tiles."""

    def batch_of(n: int) -> Batch:
        batch = make_batch(
            n,
            layout="mixed" if planned is None else "tiny",
            counts=(n - n // 3, 0, n // 3),
            size=SIZE,
            num_classes=CLASSES,
        )
        return add_masks(n, batch, num_classes=CLASSES, stacked=stacked, scale=scale)

    def inputs(n: int, padded: bool) -> Sequence[Tensor]:
        batch = batch_of(n)
        raw = make_predictions(n + 1, batch, num_classes=CLASSES, strides=STRIDES, reg_max=loss.reg_max)
        raw = add_mask_predictions(n + 2, batch, raw, num_classes=CLASSES, semantic=True)
        assert batch.masks is not None
        assert batch.class_map is not None
        rows = [batch.batch_idx, batch.labels, batch.boxes] + ([batch.masks] if stacked else [])
        if padded:
            more = max(-(-n // 16), 1) * 16 - n
            rows = [torch.cat([x, x.new_full((more, *x.shape[1:]), -(i == 0))]) for i, x in enumerate(rows)]
        maps = [raw.boxes, raw.scores, raw.coefficients, raw.prototypes, raw.semantic, batch.class_map]
        return [x for x in maps if x is not None] + ([] if stacked else [batch.masks]) + rows

    return Case(LossOfTensors(loss, stacked, planned), inputs, learnt=5, rows=4 if stacked else 3)


def segmentation(**options) -> SegmentationLoss:
    return SegmentationLoss(CLASSES, strides=STRIDES, top_k=3, **options)


MASK_CASES = {
    "segmentation": mask_case(segmentation()),
    "segmentation with planned tiles": mask_case(segmentation(), planned=(24, 1024)),
    "segmentation of stacked masks, larger than the prototypes": mask_case(segmentation(), stacked=True, scale=2),
    "segmentation with mask overlaps": mask_case(
        segmentation(reg_max=1, mask_overlap=True, keep=1), planned=(24, 1024)
    ),
}
