"""Every public operation, assigner and loss is one graph, never reads the device and exports."""

import pytest
import torch

from compiled_loss import Predictions, Targets
from tests.contract.cases import CASES, GRIDS, detection, head_of, rows_of
from tests.contract.checks import COMPILED_SIZES, CompileLog, assert_exports, assert_no_sync, assert_one_graph

every_case = pytest.mark.parametrize("name", CASES)


# The code generator adds guards and rounding of its own, but takes most of a minute for a loss; the other cases differ
# from these in little, and run on the backend that stops short of it.
GENERATED = (
    "fill",
    "unfill",
    "overlaps of boxes",
    "detection",
    "pose of 17 keypoints with a planned window",
    "overlap of oriented boxes",
    "end to end of oriented boxes",
    "segmentation with planned tiles",
)


@every_case
def test_one_graph_serves_every_number_of_rows_with_the_eager_numbers(name):
    assert_one_graph(CASES[name], backend="inductor" if name in GENERATED else "aot_eager")


@every_case
def test_nothing_reads_the_device_or_leaves_it(name):
    assert_no_sync(CASES[name])


# An export of a loss takes most of half a minute; what these differ in is also in the others.
ALIKE = (
    "segmentation",
    "segmentation of stacked masks, larger than the prototypes",
    "assigner",
    "assigner with a planned window",
    "detection",
    "detection without bins, with class weights",
    "pose of 17 keypoints",
    "oriented boxes",
    "end to end",
    "end to end by a plain sum",
)


@pytest.mark.parametrize("name", [pytest.param(x, marks=[pytest.mark.slow] * (x in ALIKE)) for x in CASES])
def test_export_and_onnx_runtime_give_the_eager_numbers_for_every_number_of_rows(name):
    assert_exports(CASES[name])


def test_targets_and_predictions_pass_through_a_compiled_loss_as_they_are():
    loss = detection()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    with CompileLog() as log:
        for n in COMPILED_SIZES:
            predictions = Predictions(*head_of(n), grid_sizes=GRIDS)
            targets: Targets = rows_of(n, padded=True)
            expected = loss(predictions, targets).total
            torch.testing.assert_close(compiled(predictions, targets.mark_dynamic()).total, expected)
    log.assert_one_graph()
