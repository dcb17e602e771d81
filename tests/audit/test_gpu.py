"""The simulated device against a real GPU, whose sync detector fires on the lines that the zoo marks, and no other."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from compiled_loss.audit import audit
from compiled_loss.audit.trees import map_tensors
from tests.audit import zoo_clean
from tests.audit.test_zoo import ROOMS
from tests.audit.zoo import Exhibit, faults_in

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

OTHERS = ("device", "breaks", "recompiles", "numbers", "cudagraphs", "export")
# These hold tensors of the host in Python variables, which the simulation takes to the device and `.cuda()` does not,
# or copy from the host, which a captured graph cannot.
ON_THE_HOST = (
    "gathers",
    "scatters",
    "steps_an_optimizer",
    "takes_its_device_from_a_default",
    "takes_its_device_from_a_global",
    "uses_a_module_of_an_inner_function",
    "KeepsAnAverage",
    "copies_without_waiting",
)


def seen_on_gpu(exhibit: Exhibit) -> set[tuple[str, int]]:
    batches = map_tensors(_on_gpu, exhibit.batches())
    with _on_gpu_meanwhile(exhibit.function):
        report = audit(exhibit.function, batches, skip=OTHERS)
    assert report.device.startswith("cuda")
    assert not report.incomplete, str(report)
    return {(x.kind, x.place.line) for x in report.findings if x.place}


def _on_gpu(x: torch.Tensor) -> torch.Tensor:
    return x.detach().cuda().requires_grad_(x.requires_grad)


@contextlib.contextmanager
def _on_gpu_meanwhile(function: Any) -> Iterator[None]:
    # In place: a copy of a parameter has lost its hooks.
    if isinstance(function, nn.Module):
        function.cuda()
    try:
        yield
    finally:
        if isinstance(function, nn.Module):
            function.cpu()


def waits_of(name: str) -> set[int]:
    return {line for kind, line in faults_in(ROOMS[name], name) if kind in ("sync", "dynamic-size")}


@pytest.mark.parametrize("name", [x for x in ROOMS if waits_of(x)])
def test_the_sync_detector_fires_on_the_marked_lines(name):
    assert {line for kind, line in seen_on_gpu(ROOMS[name].FAULTY[name]) if kind == "sync"} == waits_of(name)


@pytest.mark.parametrize("name", [x for x in zoo_clean.CLEAN if x not in ON_THE_HOST])
def test_clean_functions_wait_for_nothing_and_a_cuda_graph_holds_them(name):
    assert not seen_on_gpu(zoo_clean.CLEAN[name])


def test_a_write_of_a_number_through_a_mask_waits_for_nothing():
    name = "writes_a_number_through_a_mask"
    assert not seen_on_gpu(ROOMS[name].FAULTY[name])
