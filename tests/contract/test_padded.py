"""Losses of padded targets: one graph for every number of slots and pages, filled in the graph too, and exported."""

from typing import Any

import torch
from torch import Tensor
from torch.export import Dim

from compiled_loss import DetectionLoss, PaddedTargets, Predictions, TargetPlan, Targets
from compiled_loss.audit import audit
from compiled_loss.torch_private import collect_compiles
from tests.contract.cases import GRIDS, IMAGES, SIZE, detection, few, head_of, rows_of
from tests.contract.checks import OnnxFunction, assert_same
from tests.contract.mask_cases import MASK_CASES, NAMES, segmentation

ROWS = (17, 0, 100, 1, 240)


def sizes_of(n: int) -> PaddedTargets:
    """Slots and pages as planned for `n` rows, and of another number each time."""
    padded = TargetPlan(SIZE).apply(rows_of(n, padded=False, keypoints=5), IMAGES, padded=True)
    assert isinstance(padded.pages, Tensor)
    rows = padded.flat()._replace(pages=None)
    more = PaddedTargets.from_rows(rows, IMAGES, padded.labels.shape[1] + n % 7)
    return more._replace(pages=padded.pages.new_zeros(IMAGES, padded.pages.shape[1] + n % 5))


def test_one_graph_serves_every_number_of_slots_and_pages():
    def batch(n: int) -> tuple[Predictions, PaddedTargets]:
        return Predictions(*(x.requires_grad_() for x in head_of(n)), grid_sizes=GRIDS), sizes_of(n).mark_dynamic()

    audit(detection(assigner=few), [batch(n) for n in ROWS], warmup=1, tolerance=1e-5).raise_if_failed()


def test_one_graph_serves_masks_with_planned_tiles():
    case = MASK_CASES["segmentation of stacked masks, larger than the prototypes"]

    def batch(n: int) -> tuple[Predictions, PaddedTargets]:
        *maps, class_map, batch_idx, labels, boxes, masks = case.inputs(n, False)
        rows = Targets(batch_idx, labels, boxes, masks=masks, class_map=class_map)
        given: Any = dict(zip(NAMES, [x.requires_grad_() for x in maps], strict=True))
        return Predictions(**given, grid_sizes=GRIDS), TargetPlan(SIZE).apply(rows, IMAGES, padded=True).mark_dynamic()

    audit(segmentation(), [batch(n) for n in ROWS], warmup=1, backend="aot_eager", tolerance=1e-5).raise_if_failed()


def test_slots_filled_in_the_graph_count_what_they_do_not_hold():
    loss = detection(assigner=few)

    def step(predictions: Predictions, targets: Targets) -> tuple[Tensor, Tensor]:
        out = loss(predictions, PaddedTargets.from_rows(targets, IMAGES, 24))
        return out.total, out.overflow

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    with collect_compiles() as compiles:
        for n, dropped in ((17, 0), (0, 0), (100, 43 + 9), (60, 16)):
            predictions = Predictions(*head_of(n), grid_sizes=GRIDS)
            total, overflow = compiled(predictions, rows_of(n, padded=True).mark_dynamic())
            assert overflow == dropped
            if not dropped:
                torch.testing.assert_close(total, loss(predictions, rows_of(n, padded=False)).total)
    assert len(compiles) == 1


class FromSlots(torch.nn.Module):
    def __init__(self, loss: DetectionLoss) -> None:
        super().__init__()
        self.loss = loss

    def forward(
        self, boxes: Tensor, scores: Tensor, counts: Tensor, labels: Tensor, sides: Tensor, pages: Tensor
    ) -> tuple[Tensor, ...]:
        out = self.loss(Predictions(boxes, scores, GRIDS), PaddedTargets(counts, labels, sides, pages=pages))
        return out.total, *out.terms.values(), out.num_positives, out.overflow


def test_it_exports_with_the_slots_left_open():
    graph = FromSlots(detection(assigner=few))

    def inputs(n: int) -> tuple[Tensor, ...]:
        counts, labels, boxes, _, pages, *_ = sizes_of(n)
        assert isinstance(pages, Tensor)
        return *head_of(n), counts, labels, boxes, pages

    slots, pages = {1: Dim("M", min=2)}, {1: Dim("G", min=2)}
    program = torch.export.export(graph, inputs(17), dynamic_shapes=({}, {}, {}, slots, slots, pages))
    session = OnnxFunction(program)
    for n in ROWS:
        wanted = graph(*inputs(n))
        assert_same(program.module()(*inputs(n)), wanted)
        assert_same(session(*inputs(n)), wanted)
