"""Where the GPU stage sees waits, with a detector in the place of CUDA's: what it says is raised by hand."""

import inspect
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from compiled_loss.audit.places import Finder
from compiled_loss.audit.reach import reachable
from compiled_loss.audit.stages import gpu
from compiled_loss.audit.stages.subject import Subject
from tests.audit.zoo import Doubled

MODE = ["default"]
# As if it stood in a file of torch's: nobody is to blame for it.
WAIT = """
def wait(x):
    if MODE[0] == "warn":
        warnings.warn("called a synchronizing CUDA operation")
    if MODE[0] == "error":
        raise RuntimeError("called a synchronizing CUDA operation")
    return x
"""
torchs_own: dict[str, Any] = {"MODE": MODE, "warnings": warnings}
exec(compile(WAIT, torch.__file__, "exec"), torchs_own)
wait = torchs_own["wait"]


class _WaitsBackward(Doubled):
    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return wait(gradients[0])


def waits_forward(x: Tensor) -> Tensor:
    first = wait(x)
    return first + wait(x * 2)


def waits_backward(x: Tensor) -> Tensor:
    return _WaitsBackward.apply(x.sin())


def fails_in_an_operator(x: Tensor) -> Tensor:
    y = x.sin()
    y = torch.igamma(y, x.detach())
    return y.cos()


@pytest.fixture(autouse=True)
def _detector(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: MODE[0])
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", lambda mode: MODE.__setitem__(0, mode))
    yield
    assert MODE == ["default"]


def seen_in(function):
    batch = (torch.rand(3, requires_grad=True),)
    subject = Subject(function, [batch], reachable(function, []), Finder(), True, 1, "eager", None, None)
    return {(x.phase, x.place.line) for x in gpu._syncs(subject, batch, 0) if x.kind == "sync" and x.place}


def line_of(function, text):
    lines, first = inspect.getsourcelines(function)
    return first + next(i for i, line in enumerate(lines) if text in line)


def test_every_wait_of_the_forward_has_its_line():
    lines = {line_of(waits_forward, "first ="), line_of(waits_forward, "return")}
    assert seen_in(waits_forward) == {("forward", line) for line in lines}


def test_a_wait_in_a_backward_of_the_users_own_has_that_line():
    assert seen_in(waits_backward) == {("backward", line_of(_WaitsBackward, "return wait"))}


def test_a_wait_in_the_backward_of_an_operator_has_the_line_that_called_it(monkeypatch):
    # Its derivative is unknown to torch, which says so where a wait would be told of.
    monkeypatch.setattr(gpu, "_FIRED", "igamma")
    assert seen_in(fails_in_an_operator) == {("backward", line_of(fails_in_an_operator, "igamma"))}


def test_what_fails_otherwise_is_no_wait():
    with pytest.raises(RuntimeError, match="igamma"):
        seen_in(fails_in_an_operator)
