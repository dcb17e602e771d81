"""The contract on a real GPU: torch's own sync detector, CUDA graphs, Triton, and the numbers of the CPU."""

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from compiled_loss import DetectionLoss, Predictions, TargetPlan
from compiled_loss.audit import audit
from compiled_loss.torch_private import quiet
from tests.contract.cases import CASES, GRIDS, SIZE, STRIDES, head_of, rows_of
from tests.contract.checks import COMPILED, COMPILED_SIZES, Case, assert_same, batch_of
from tests.contract.test_contract import GENERATED, SLOWEST

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def on_gpu(case: Case) -> tuple[Any, list[tuple[torch.Tensor, ...]]]:
    """The function and its batches, on the GPU."""
    function = copy.deepcopy(case.function).cuda() if isinstance(case.function, nn.Module) else case.function
    return function, [batch_of(case, n, padded=True, device="cuda") for n in COMPILED_SIZES]


@pytest.mark.parametrize("name", CASES)
def test_nothing_waits_and_a_cuda_graph_holds_it(name):
    case = CASES[name]
    function, batches = on_gpu(case)
    report = audit(function, batches, skip=("device", "breaks", *COMPILED), tolerance=case.tolerance)
    assert report.device.startswith("cuda")
    assert {x.name: x.outcome for x in report.stages}["gpu"] == "clean", str(report)


@pytest.mark.parametrize("name", CASES)
def test_the_numbers_are_those_of_the_cpu(name):
    case = CASES[name]
    function, batches = on_gpu(case)
    for n, batch in zip(COMPILED_SIZES, batches, strict=True):
        got = [x.cpu() for x in function(*batch)]
        assert_same(got, case.function(*batch_of(case, n, padded=True)), exact=case.exact)


@pytest.mark.parametrize("name", [*GENERATED, *SLOWEST])
def test_one_triton_graph_serves_every_number_of_rows_with_the_eager_numbers(name):
    case = CASES[name]
    function, batches = on_gpu(case)
    audit(function, batches, warmup=1, skip=("device", "breaks", "gpu"), tolerance=case.tolerance).raise_if_failed()


def test_a_training_step_replays_cuda_graphs():
    loss, plan = DetectionLoss(2, STRIDES).cuda(), TargetPlan(SIZE, STRIDES, rows=128, pages=256)
    compiled = torch.compile(lambda p, t: loss(p, t).total, fullgraph=True, mode="reduce-overhead")
    counters.clear()
    for n in (5, 0, 100, 1, 17):
        maps = [x.cuda().requires_grad_() for x in head_of(n)]
        predictions, targets = Predictions(*maps, grid_sizes=GRIDS), plan.apply(rows_of(n, False)).to("cuda")
        torch.compiler.cudagraph_mark_step_begin()
        with quiet():
            total = compiled(predictions, targets)
            got = [total.detach().clone(), *torch.autograd.grad(total, maps)]
        expected = loss(predictions, targets).total
        assert_same(got, [expected, *torch.autograd.grad(expected, maps)])
    assert counters["inductor"]["cudagraph_skips"] == 0
