"""The segmentation loss, alone and end to end, as a function of tensors alone."""

from collections.abc import Sequence

import torch
from torch import Tensor

from compiled_loss import EndToEndLoss, Predictions, SegmentationLoss, TargetPlan, Targets, TaskAligned
from tests.contract.checks import Case
from tests.reference.batches import Batch, make_batch, make_predictions
from tests.reference.mask_batches import add_mask_predictions, add_masks

SIZE, STRIDES, CLASSES = (64, 96), (8, 16, 32), 2
GRIDS = ((8, 12), (4, 6), (2, 3))
NAMES = ("boxes", "scores", "coefficients", "prototypes", "semantic")
MAPS = len(NAMES)


class LossOfTensors(torch.nn.Module):
    """The total, the terms and the counts, of the outputs of a head or two, maps of the images and target rows."""

    def __init__(self, loss: SegmentationLoss | EndToEndLoss, stacked: bool, planned: bool) -> None:
        super().__init__()
        self.loss = loss
        self.stacked = stacked
        self.planned = planned

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        heads = MAPS * branches_of(self.loss)
        branches = [
            Predictions(**dict(zip(NAMES, tensors[i : i + MAPS], strict=True)), grid_sizes=GRIDS)  # type: ignore[arg-type]
            for i in range(0, heads, MAPS)
        ]
        class_map, rest = tensors[heads], list(tensors[heads + 1 :])
        tiles, pages = (rest.pop(), rest.pop()) if self.planned else (None, None)
        index_map, masks = (None, rest.pop()) if self.stacked else (rest.pop(0), None)
        given = {"masks": masks, "index_map": index_map, "class_map": class_map}
        targets = Targets(*rest, pages=pages, mask_tiles=tiles, **given)
        out = self.loss(*branches, targets)
        return out.total, *out.terms.values(), out.num_positives, out.overflow


def branches_of(loss: SegmentationLoss | EndToEndLoss) -> int:
    return 2 if isinstance(loss, EndToEndLoss) else 1


def mask_case(
    loss: SegmentationLoss | EndToEndLoss,
    *,
    stacked: bool = False,
    planned: bool = False,
    scale: int = 4,
) -> Case:
    """Index maps or stacked masks of the image's size over `scale`; `planned` with pages and mask tiles."""
    task = loss.one if isinstance(loss, EndToEndLoss) else loss
    assert isinstance(task, SegmentationLoss)

    def batch_of(n: int) -> Batch:
        batch = make_batch(
            n,
            counts=(n - n // 3, 0, n // 3),
            size=SIZE,
            num_classes=CLASSES,
        )
        return add_masks(n, batch, num_classes=CLASSES, stacked=stacked, scale=scale)

    def inputs(n: int, padded: bool) -> Sequence[Tensor]:
        batch = batch_of(n)
        heads: list[Tensor] = []
        for i in range(branches_of(loss)):
            raw = make_predictions(n + 1 + i, batch, num_classes=CLASSES, strides=STRIDES, reg_max=task.reg_max)
            raw = add_mask_predictions(n + 2 + i, batch, raw, num_classes=CLASSES, semantic=True)
            heads += [getattr(raw, name) for name in NAMES]
        assert batch.masks is not None
        assert batch.class_map is not None
        rows = [batch.batch_idx, batch.labels, batch.boxes] + ([batch.masks] if stacked else [])
        if padded:
            more = max(-(-n // 16), 1) * 16 - n
            rows = [torch.cat([x, x.new_full((more, *x.shape[1:]), -(i == 0))]) for i, x in enumerate(rows)]
        maps = [batch.class_map] if stacked else [batch.class_map, batch.masks]
        return [*heads, *maps, *rows, *(plan_of(rows, batch.masks) if planned else [])]

    learnt = MAPS * branches_of(loss)
    function = LossOfTensors(loss, stacked, planned)
    return Case(function, inputs, learnt=learnt, rows=4 if stacked else 3, planned=2 * planned)


def plan_of(rows: Sequence[Tensor], masks: Tensor) -> list[Tensor]:
    """As long as the pages and the tiles that a plan keeps for the rows, and of another length for each number."""
    targets = Targets(rows[0], rows[1], rows[2])
    targets = targets._replace(masks=rows[3]) if len(rows) > 3 else targets._replace(index_map=masks)
    planned = TargetPlan(SIZE, STRIDES).apply(targets)
    assert isinstance(planned.pages, Tensor)
    assert isinstance(planned.mask_tiles, Tensor)
    return [x.new_zeros(len(x) + len(rows[0])) for x in (planned.pages, planned.mask_tiles)]


def segmentation(keep: int | None = None, **options) -> SegmentationLoss:
    return SegmentationLoss(CLASSES, strides=STRIDES, assigner=TaskAligned(3, keep), **options)


MASK_CASES = {
    "segmentation": mask_case(segmentation()),
    "segmentation with planned tiles": mask_case(segmentation(), planned=True),
    "segmentation of stacked masks, larger than the prototypes": mask_case(segmentation(), stacked=True, scale=2),
    "segmentation with mask overlaps": mask_case(segmentation(reg_max=1, mask_overlap=True, keep=1), planned=True),
    "end to end of segmentation": mask_case(EndToEndLoss(SegmentationLoss(CLASSES, STRIDES, reg_max=1)), planned=True),
}
