"""On a machine with a GPU: torch's own sync detector, and a real CUDA graph, captured and replayed."""

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from compiled_loss.audit.findings import Finding
from compiled_loss.audit.restoring import restored
from compiled_loss.audit.stages.compare import compare
from compiled_loss.audit.stages.subject import Result, Subject, finding, first_line
from compiled_loss.audit.state import Outcome, differentiable_sum, fresh
from compiled_loss.audit.trees import map_tensors, others_of, tensors_of
from compiled_loss.torch_private import traced_backward

# Torch's words about a wait, which do not occur in its words about the detector itself.
_FIRED = "called a synchronizing CUDA operation"


def confirm_on_gpu(subject: Subject) -> Result:
    """Run under the sync debug mode, then capture the forward in a CUDA graph and replay it."""
    if not torch.cuda.is_available():
        return Result([], skipped="no CUDA device here; the simulated device stands in for it")
    devices = {x.device for batch in subject.batches for x in tensors_of(batch)}
    devices |= {x.device for name, x in subject.state.tensors.items() if name.startswith("args")}
    if {x.type for x in devices} != {"cuda"}:
        return Result([], skipped="the batches are not on a CUDA device")
    if len(devices) > 1:
        return Result([], skipped=f"the batches are on several devices: {', '.join(sorted(map(str, devices)))}")
    with torch.cuda.device(devices.pop()):  # streams and graphs belong to the current device
        return _confirm(subject)


def _confirm(subject: Subject) -> Result:
    found: list[Finding] = []
    for i, batch in enumerate(subject.batches):
        with restored(subject.state):
            found += _syncs(subject, batch, i)
    if found:
        return Result(found, note="not captured: a CUDA graph cannot contain a sync")
    errors: dict[str, float] = {}
    forward = replace(subject, expected=[])
    for i, batch in enumerate(subject.batches):
        try:
            forward.expected.append(_run(subject, batch))
            found += compare(forward, _replay(subject, batch), i, "mismatch", "CUDA graph", errors)
        except RuntimeError as error:
            where = subject.finder.of_error(error)
            found.append(finding("cudagraph", f"capture failed: {first_line(error)}", where, i))
            break
    return Result(found, errors=errors)


def _syncs(subject: Subject, batch: tuple[Any, ...], index: int) -> list[Finding]:
    """All waits of the forward pass with their lines, and the first one of the backward pass.

    Warnings about a backward come after it, without a place. So the detector raises an error there, whose traceback
    gives the place; if it was not raised in Python, torch reports the forward line to which it belongs.
    """
    found: list[Finding] = []
    told: list[str] = []

    def note(message: Any, *_: Any, **__: Any) -> None:
        told.append(str(message))
        if _FIRED in told[-1]:
            found.append(finding("sync", "the CUDA sync detector fired", subject.finder.here(), index))

    with traced_backward(), warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note
        args = fresh(batch)
        with _sync_detector("warn"):
            outputs = tensors_of(subject.function(*args))
        total = differentiable_sum(outputs) if subject.backward else None
        if total is None:
            return found
        told.clear()
        try:
            with _sync_detector("error"):
                total.backward()
        except RuntimeError as error:
            if _FIRED not in str(error):
                raise
            where = subject.finder.of_error(error)
            where = where if where[0] else subject.finder.of_text("".join(told))
            found.append(finding("sync", "the CUDA sync detector fired", where, index, phase="backward"))
    return found


@contextlib.contextmanager
def _sync_detector(mode: str) -> Iterator[None]:
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode(mode)
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def _run(subject: Subject, batch: tuple[Any, ...]) -> Outcome:
    """Only the forward pass, from the same state and random numbers as `_replay`."""
    with restored(subject.state), torch.no_grad():
        return _outcome(subject.function(*_inputs(batch)))


def _replay(subject: Subject, batch: tuple[Any, ...]) -> Outcome:
    """Only the forward pass, captured in a CUDA graph."""
    side = torch.cuda.Stream()
    with restored(subject.state), torch.no_grad():
        side.wait_stream(torch.cuda.current_stream())
        # Run once before: libraries initialise themselves on first use, which a capture cannot contain.
        with torch.cuda.stream(side):
            subject.function(*_inputs(batch))
        torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with restored(subject.state), torch.no_grad():
        args = _inputs(batch)
        with torch.cuda.graph(graph):
            returned = subject.function(*args)
        graph.replay()
        torch.cuda.synchronize()
        return _outcome(returned)


def _inputs(batch: tuple[Any, ...]) -> tuple[Any, ...]:
    return fresh(map_tensors(torch.Tensor.detach, batch))


def _outcome(returned: Any) -> Outcome:
    outputs = [x.detach().clone() for x in tensors_of(returned)]
    return Outcome(outputs, {}, False, list(others_of(returned).values()), {})
