"""Operators that take a value of the device for a number, and copies that are read too early."""

import inspect
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.torch_version import TorchVersion

from compiled_loss.audit import STAGES, audit

OTHERS = [x for x in STAGES if x not in ("eager", "device", "export")]


def counts(function: Callable[..., Any], *batch: Any) -> dict[str, int]:
    report = audit(function, [batch or (torch.rand(4) + 0.1,)], skip=OTHERS, backward=False)
    assert not report.incomplete, str(report)
    return report.counts()


def count(x: Tensor) -> Any:
    """A whole number, 2, on the device."""
    return (x.min() * 0 + 2).long()


def square(x: Tensor) -> Tensor:
    return torch.eye(4, device=x.device) * x.sum()


READ: dict[str, Callable[[Any], Any]] = {
    "masked_fill": lambda x: x.masked_fill(x > 0.5, x.min()),
    "masked_fill_": lambda x: x.clone().masked_fill_(x > 0.5, x.min()),
    "index_fill": lambda x: x.index_fill(0, x.argsort()[:1], x.min()),
    "index_fill_": lambda x: x.clone().index_fill_(0, x.argsort()[:1], x.min()),
    "linspace": lambda x: torch.linspace(x.min(), x.max(), 3, device=x.device),
    "linspace from a value": lambda x: torch.linspace(x.min(), 2, 3, device=x.device),
    "linspace to a value": lambda x: torch.linspace(0, x.max(), 3, device=x.device),
    "linspace with out": lambda x: torch.linspace(x.min(), x.max(), 3, out=torch.empty(3, device=x.device)),
    "logspace": lambda x: torch.logspace(x.min(), x.max(), 3, device=x.device),
    "full": lambda x: torch.full((3,), x.min(), device=x.device),
    "new_full": lambda x: x.new_full((3,), x.min()),
    "arange": lambda x: torch.arange(count(x), device=x.device),
    "alpha of add": lambda x: torch.add(x, x, alpha=x.min()),
    "value of pad": lambda x: F.pad(x, (1, 1), value=x.min()),
    "beta of smooth_l1_loss": lambda x: F.smooth_l1_loss(x, x * 2, beta=x.max()),
    "threshold": lambda x: F.threshold(x, x.min(), x.max()),
    "scatter": lambda x: x.scatter(0, x.argsort()[:1], value=x.min()),
    "a slice": lambda x: x[: count(x)],
    "topk": lambda x: x.topk(count(x))[0],
    "one_hot": lambda x: F.one_hot(x.argsort()),
    "pinv": lambda x: torch.linalg.pinv(square(x)),
    "cholesky": lambda x: torch.linalg.cholesky(square(x)),
    "cholesky_inverse": lambda x: torch.cholesky_inverse(square(x)),
    "errors of cholesky_ex": lambda x: torch.linalg.cholesky_ex(square(x), check_errors=True)[0],
    "isin of many": lambda x: torch.isin(x, torch.rand(100, device=x.device)),
    "pickle": lambda x: x * len(pickle.dumps(x)),
    "ctc_loss": lambda x: F.ctc_loss(
        x.expand(5, 1, 4).log_softmax(-1),
        torch.ones(1, 2, dtype=torch.int64, device=x.device),
        torch.full((1,), 5, device=x.device),
        torch.full((1,), 2, device=x.device),
    ),
}
if TorchVersion(torch.__version__) < "2.14":  # which refuses to run it
    READ["cholesky of old"] = lambda x: torch.cholesky(square(x))

NOT_READ: dict[str, Callable[[Any], Any]] = {
    "masked_fill with a number": lambda x: x.masked_fill(x > 0.5, 0.0),
    "masked_fill with a number of the host": lambda x: x.masked_fill(x > 0.5, torch.tensor(0.0)),
    "index_fill with a number of the host": lambda x: x.index_fill(0, x.argsort()[:1], torch.tensor(1.0)),
    "linspace": lambda x: torch.linspace(0, 1, 4, device=x.device) * x,
    "linspace between numbers of the host": lambda x: (
        torch.linspace(torch.tensor(0.0), torch.tensor(1.0), 4, device=x.device) * x
    ),
    "where": lambda x: torch.where(x > 0.5, x.min(), x),
    "clamp": lambda x: x.clamp(x.min()),
    "fill_": lambda x: x.clone().fill_(x.min()),
    "quantile": lambda x: torch.quantile(x, x.min() * 0 + 0.5),
    "bucketize": lambda x: torch.bucketize(x.min(), torch.arange(4.0, device=x.device)),
    "one_hot of so many": lambda x: F.one_hot(x.argsort(), 4),
    "inv_ex": lambda x: torch.linalg.inv_ex(square(x))[0],
    "isin of few": lambda x: torch.isin(x, torch.rand(2, device=x.device)),
    "isin of unique ones": lambda x: torch.isin(x, torch.rand(100, device=x.device), assume_unique=True),
}


@pytest.mark.filterwarnings("ignore:torch.cholesky is deprecated")
@pytest.mark.parametrize("name", READ)
def test_a_value_of_the_device_that_the_host_has_to_know_is_a_wait(name):
    assert counts(READ[name]) == {"sync": 1}


@pytest.mark.parametrize("name", NOT_READ)
def test_a_value_that_stays_on_the_device_is_none(name):
    assert counts(NOT_READ[name]) == {}


def test_what_linspace_makes_lives_on_the_host_unless_it_is_told_otherwise():
    assert counts(lambda x: torch.linspace(x.min(), x.max(), 4) * x) == {"sync": 1, "device": 1}


def sums(x: Tensor) -> Any:
    host = x.to("cpu", non_blocking=True)
    view = host[:2]
    return view.sum()  # early


def lists(x: Tensor) -> Any:
    host = x.to("cpu", non_blocking=True)
    return x * len(host.tolist())  # early


def reads(x: Tensor) -> Any:
    host = torch.empty(4)
    host.copy_(x, non_blocking=True)
    return x * float(host[0])  # early


def overwrites(x: Tensor) -> Any:
    host = x.to("cpu", non_blocking=True)
    host.zero_()  # early
    return host


def copies_on(x: Tensor) -> Any:
    host = x.to("cpu", non_blocking=True)
    return torch.empty(4).copy_(host, non_blocking=True)  # early


@pytest.mark.parametrize("function", [sums, lists, reads, overwrites, copies_on])
def test_a_copy_that_is_read_before_it_has_arrived_is_found_where_it_is_read(function):
    report = audit(function, [torch.rand(4)] * 2, skip=OTHERS, backward=False)
    (found,) = report.findings
    assert found.place is not None
    lines, first = inspect.getsourcelines(function)
    assert lines[found.place.line - first].rstrip().endswith("# early")
    assert (found.kind, found.batches) == ("sync", (0, 1))
    assert "before it has arrived" in found.message


def returns(x: Tensor) -> Any:
    return x.to("cpu", non_blocking=True)


def sends_it_back(x: Tensor) -> Any:
    return x.to("cpu", non_blocking=True).to(x.device, non_blocking=True) * x


def makes_another(x: Tensor) -> Any:
    host = x.to("cpu", non_blocking=True)
    return torch.zeros_like(host), host.view(2, 2)


@pytest.mark.parametrize("function", [returns, sends_it_back, makes_another])
def test_a_copy_that_nobody_reads_is_no_finding(function):
    assert counts(function, torch.rand(4)) == {}


def test_a_wait_brings_the_copies_before_it():
    def waits(x: Tensor) -> Any:
        host = x.to("cpu", non_blocking=True)
        return host.sum() * x.sum().item() + host.sum()

    def waits_first(x: Tensor) -> Any:
        host = x.to("cpu", non_blocking=True)
        scale = x.sum().item()
        return host.sum() * scale

    assert counts(waits_first) == {"sync": 1}
    assert counts(waits) == {"sync": 2}


@pytest.mark.parametrize("name", ["cuda.synchronize", "accelerator.synchronize", "cuda.Event.synchronize"])
def test_a_call_that_waits_for_all_is_a_wait(name, monkeypatch):
    home, _, method = name.rpartition(".")
    owner: Any = torch
    for part in home.split("."):
        owner = getattr(owner, part)
    monkeypatch.setattr(owner, method, lambda *_: None)

    def waits(x: Tensor) -> Any:
        host = x.to("cpu", non_blocking=True)
        getattr(owner, method)(None)
        return host.sum()

    (found,) = audit(waits, [torch.rand(4)], skip=OTHERS, backward=False).findings
    assert found.message == "the host waits for the device"
