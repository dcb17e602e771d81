"""Every public operation, assigner and loss is one graph, never reads the device and exports: the audit says so."""

import pytest

from compiled_loss import Predictions, Targets
from compiled_loss.audit import audit
from tests.contract.cases import CASES, GRIDS, detection, head_of, rows_of
from tests.contract.checks import COMPILED_SIZES, audit_compiled, audit_export, audit_low_precision
from tests.contract.product import rotated
from tests.sampling import marked, sampled

# The code generator adds guards and rounding of its own, but takes most of a minute for a loss; the other cases differ
# from these in little, and run on the backend that stops short of it.
GENERATED = (
    "fill",
    "unfill",
    "overlaps of boxes",
    "detection",
    "detection with weights, ignore rows and images told apart",
    "overlap of oriented boxes",
    "overlaps of boxes that later papers added",
    "oriented boxes without bins with planned pages",
    "`SimOTA`",
)
# The slowest to generate; `tests/examples` generates steps of these tasks.
SLOWEST = ("pose of 17 keypoints with planned pages", "segmentation with planned tiles", "end to end of segmentation")
# A compile or an export of a loss takes most of half a minute; what these differ in is also in the others.
ALIKE = (
    "segmentation",
    "segmentation of stacked masks, larger than the prototypes",
    "assigner",
    "assigner with planned pages",
    "detection",
    "detection without bins, with class weights",
    "pose of 17 keypoints",
    "oriented boxes",
    "end to end by a plain sum",
    "end to end with weights, ignore rows and images told apart",
    "end to end of oriented boxes",
    "pose of 5 keypoints without visibility",
    "fill of sorted rows",
    "unfill of sorted rows",
    "assigner with distances that are limited",
    "`SimOTA` with squares or boxes",
    "`DynamicSoftLabel` that shares",
    "detection with planned pages",
    "pose with residual log-likelihood",
    "end to end of segmentation",
    "end to end of poses with residual log-likelihood",
    "assigner that leaves no row without an anchor",
    "`SimOTA` that shares",
    "overlap of oriented boxes that later papers added",
    "segmentation with mask overlaps",
)
# Losses of rotated parts, which differ from the others in nothing that a dtype changes.
OF_PARTS = [f"loss of {parts}" for parts in rotated()]
THOROUGH = {*ALIKE, *OF_PARTS}


COMPILED = [marked(x, "inductor" if x in GENERATED else "aot_eager", thorough=x in THOROUGH) for x in CASES]
COMPILED += [marked(x, "inductor", thorough=True) for x in SLOWEST]


@pytest.mark.apart
@pytest.mark.parametrize(("name", "backend"), COMPILED)
def test_one_graph_serves_every_number_of_rows_with_the_eager_numbers(name, backend):
    audit_compiled(CASES[name], backend=backend).raise_if_failed()


@pytest.mark.apart
@pytest.mark.parametrize("name", sampled((x for x, case in CASES.items() if case.learnt and x not in OF_PARTS), 8))
def test_one_graph_serves_predictions_in_bfloat16(name):
    audit_low_precision(CASES[name]).raise_if_failed()


@pytest.mark.apart
@pytest.mark.slow
@pytest.mark.parametrize("name", [marked(x, thorough=x in {*THOROUGH, *SLOWEST}) for x in CASES])
def test_export_and_onnx_runtime_give_the_eager_numbers_for_every_number_of_rows(name):
    audit_export(CASES[name]).raise_if_failed()


def test_targets_and_predictions_pass_through_a_compiled_loss_as_they_are():
    def batch(n: int) -> tuple[Predictions, Targets]:
        maps = [x.requires_grad_() for x in head_of(n)]
        return Predictions(*maps, grid_sizes=GRIDS), rows_of(n, padded=True).mark_dynamic()

    report = audit(detection(), [batch(n) for n in COMPILED_SIZES], warmup=1, backend="aot_eager", tolerance=1e-5)
    report.raise_if_failed()
