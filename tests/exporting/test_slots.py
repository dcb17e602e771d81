"""The padded form: rows filled into slots, those without a slot left out, every positive told its slot."""

import torch

from compiled_loss import DetectionLoss
from compiled_loss.exporting import Setting
from compiled_loss.exporting.graphs import AssignmentGraph
from compiled_loss.exporting.metadata import describe
from compiled_loss.exporting.verifying.batches import Draw, make


def batch_and_graph(slots, rows=9):
    loss, setting = DetectionLoss(3), Setting((64, 96), slots=slots)
    graph = AssignmentGraph(loss, setting)
    metadata = describe(loss, setting, "assignment", graph.inputs, graph.outputs)
    return make(metadata, Draw("unsorted", {"B": 2, "N": rows}), 1), graph


def test_slots_hold_the_rows_of_each_image_in_order_and_count_the_rest():
    inputs, graph = batch_and_graph(slots=3)
    out = graph(inputs)
    for image in range(2):
        rows = [n for n, i in enumerate(inputs["batch_idx"].tolist()) if i == image]
        kept = rows[:3]
        assert torch.equal(out["slot_boxes"][image, : len(kept)], inputs["boxes"][kept])
        assert torch.equal(out["slot_cls"][image, : len(kept)], inputs["cls"][kept])
        assert out["slot_mask"][image].tolist() == [True] * len(kept) + [False] * (3 - len(kept))
        assert out["dropped"][image] == max(len(rows) - 3, 0)


def test_the_assignment_is_that_of_the_rows_that_have_a_slot():
    inputs, graph = batch_and_graph(slots=2)
    out = graph(inputs)
    flat = AssignmentGraph(DetectionLoss(3), Setting((64, 96)))
    images = inputs["batch_idx"].tolist()
    place = [images[:n].count(image) for n, image in enumerate(images)]
    kept = torch.tensor([image if place[n] < 2 else -1 for n, image in enumerate(images)])
    expected = flat({**inputs, "batch_idx": kept})
    for name, x in expected.items():
        assert torch.equal(out[name], x), name
    assert out["dense_foreground"].any()
    for row, slot in zip(out["dense_row"].flatten().tolist(), out["dense_slot"].flatten().tolist(), strict=True):
        assert slot == (place[row] if row >= 0 else -1)
    for row, slot, valid in zip(*(out[name].tolist() for name in ("row", "slot", "valid")), strict=True):
        assert slot == (place[row] if valid else 0)
