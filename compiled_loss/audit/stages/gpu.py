"""With a GPU at hand: torch's own sync detector, and a real CUDA graph, captured and replayed."""

import warnings
from typing import Any

import torch

from compiled_loss.audit.findings import Finding
from compiled_loss.audit.restoring import restored
from compiled_loss.audit.stages.compare import compare
from compiled_loss.audit.stages.subject import Result, Subject, finding, first_line
from compiled_loss.audit.state import Outcome, call, fresh
from compiled_loss.audit.trees import map_tensors, tensors_of


def confirm_on_gpu(subject: Subject) -> Result:
    """Run under the sync debug mode, then capture the forward in a CUDA graph and replay it."""
    if not torch.cuda.is_available():
        return Result([], skipped="no CUDA device here; the simulated device stands in for it")
    if not all(x.is_cuda for batch in subject.batches for x in tensors_of(batch)):
        return Result([], skipped="the batches are not on a CUDA device")
    found: list[Finding] = []
    for i, batch in enumerate(subject.batches):
        with restored(subject.state):
            found += _syncs(subject, batch, i)
    if found:
        return Result(found, note="not captured: a graph cannot hold a sync")
    errors: dict[str, float] = {}
    for i, batch in enumerate(subject.batches):
        with restored(subject.state), torch.no_grad():
            try:
                found += compare(subject, _replay(subject, batch), i, "mismatch", "CUDA graph", errors)
            except RuntimeError as error:
                where = subject.finder.of_error(error)
                found.append(finding("cudagraph", f"capture failed: {first_line(error)}", where, i))
                break
    return Result(found, errors=errors)


def _syncs(subject: Subject, batch: tuple[Any, ...], index: int) -> list[Finding]:
    found: list[Finding] = []

    def note(message: Any, *_: Any, **__: Any) -> None:
        if "synchroniz" in str(message):
            found.append(finding("sync", "the CUDA sync detector fired", subject.finder.here(), index))

    mode = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note
        torch.cuda.set_sync_debug_mode("warn")
        try:
            call(subject.function, batch, subject.state, backward=subject.backward)
        finally:
            torch.cuda.set_sync_debug_mode(mode)
    return found


def _replay(subject: Subject, batch: tuple[Any, ...]) -> Outcome:
    args = fresh(map_tensors(torch.Tensor.detach, batch))
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # libraries set themselves up on first use, which a capture cannot hold
        subject.function(*args)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = tensors_of(subject.function(*args))
    graph.replay()
    torch.cuda.synchronize()
    return Outcome([x.clone() for x in outputs], {}, False, [], {})
