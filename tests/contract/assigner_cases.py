"""Every assigner alone, as a function of tensors alone."""

from collections.abc import Sequence

import torch
from torch import Tensor

from compiled_loss import ATSS, Assigner, DynamicSoftLabel, InBox, NearCentre, Scheduled, SimOTA, TaskAligned
from compiled_loss.assign.dense import to_dense
from compiled_loss.geometry.boxes import ciou, cxcywh_to_xyxy, iou
from compiled_loss.losses.parts import BoxOverlap
from tests.assign.scenes import assign
from tests.contract.checks import Case
from tests.contract.rows import ANCHORS, CLASSES, FEW, GRIDS, IMAGES, STRIDES, pages_of, rows_of


def assigner_case(assigner: Assigner, *, planned: bool = True, overlap: BoxOverlap = iou) -> Case:
    """An assigner alone, and the dense view of what it says."""

    def function(
        scores: Tensor, predicted: Tensor, batch_idx: Tensor, labels: Tensor, boxes: Tensor, pages: Tensor | None = None
    ) -> tuple:
        rows = batch_idx, labels, boxes
        flat = assign(scores, predicted, *rows, GRIDS, STRIDES, pages=pages, assigner=assigner, overlap=overlap)
        return *flat[:5], flat.overflow, flat.weights(), *to_dense(flat, labels, boxes, IMAGES, ANCHORS, CLASSES)

    def inputs(n: int, padded: bool) -> Sequence[Tensor]:
        targets = rows_of(n, padded)
        boxes = cxcywh_to_xyxy(targets.boxes * torch.tensor([96.0, 64, 96, 64]))
        generator = torch.Generator().manual_seed(n)
        low = torch.rand(IMAGES, ANCHORS, 2, generator=generator) * 64
        high = low + 8 + torch.rand(IMAGES, ANCHORS, 2, generator=generator) * 32
        scores = torch.randn(IMAGES, CLASSES, ANCHORS, generator=generator)
        rows = targets.batch_idx, targets.labels, boxes
        return scores, torch.cat([low, high], -1), *rows, *[pages_of(targets, assigner.region)] * planned

    return Case(function, inputs, learnt=0, rows=3, planned=planned)


few = TaskAligned(FEW)

ASSIGNER_CASES = {
    "assigner": assigner_case(few, planned=False, overlap=ciou),
    "assigner with planned pages": assigner_case(few, overlap=ciou),
    "assigner that keeps one anchor a row": assigner_case(TaskAligned(FEW, keep=1), overlap=ciou),
    "assigner with distances that are limited": assigner_case(TaskAligned(FEW, region=InBox(farthest=2.99))),
    "assigner that leaves no row without an anchor": assigner_case(
        TaskAligned(FEW, at_least_one=True, region=InBox(farthest=2.99, grown=False)), overlap=ciou
    ),
    "`SimOTA` that shares": assigner_case(SimOTA(FEW, shared=NearCentre())),
    "`DynamicSoftLabel` that shares": assigner_case(DynamicSoftLabel(FEW, shared=NearCentre(0.0, or_inside=True))),
    "`SimOTA`": assigner_case(SimOTA(FEW)),
    "`SimOTA` with squares or boxes": assigner_case(SimOTA(FEW, region=NearCentre(2.5, or_inside=True)), planned=False),
    "`DynamicSoftLabel`": assigner_case(DynamicSoftLabel(FEW)),
    "`ATSS`": assigner_case(ATSS(FEW)),
    "`Scheduled`": assigner_case(Scheduled(ATSS(2), few)),
}
