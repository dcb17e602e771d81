"""An operation that loses one of its promises fails the contract: every promise is broken here once."""

import pytest
import torch

from compiled_loss import fill
from tests.contract.checks import Case, audit_compiled, audit_export


def rows_alone(n, padded):
    n = max(n, 2) if padded else n
    return torch.linspace(-1, 2, n), torch.arange(n) % 3


def sound(x, index):
    return (fill(x * x, index, 3, 200)[0],)


def breaks(x, index):
    torch._dynamo.graph_break()
    return sound(x, index)


def reads_a_value(x, index):
    return sound(x * x.detach().abs().sum().item(), index)


def picks_by_a_mask(x, index):
    return sound(x[x > 0], index[x > 0])


def writes_by_a_mask(x, index):
    y = x.clone()
    y[x > 0] = x.mean()  # a number of the device: one of the host would be a masked_fill on a GPU
    return sound(y, index)


def moves_to_the_host(x, index):
    return sound(x.cpu() * 2, index.cpu())


def counts_with_a_tensor_of_its_own(x, index):
    return sound(x * torch.arange(x.shape[0]), index)


def specialises_on_the_size(x, index):
    return sound(x * (2 if x.shape[0] > 50 else 3), index)


def differs_compiled(x, index):
    return sound(x * (1.0 + 1e-4 * torch.compiler.is_compiling()), index)


def is_wrong_without_rows(x, index):
    return (x.sum() / max(x.shape[0], 1),)


def loses_a_small_constant(x, index):
    return (x / (x.abs() * 0 + 1e-9) * 1e-9,)


def case_of(function):
    return Case(function, rows_alone, learnt=1, rows=2)


def test_a_sound_operation_passes():
    audit_compiled(case_of(sound), backend="aot_eager").raise_if_failed()
    audit_export(case_of(sound)).raise_if_failed()


@pytest.mark.parametrize(
    ("function", "finding"),
    [
        (breaks, "graph-break"),
        (reads_a_value, "sync"),
        (picks_by_a_mask, "dynamic-size"),
        (writes_by_a_mask, "dynamic-size"),
        (moves_to_the_host, "sync"),
        (counts_with_a_tensor_of_its_own, "device"),
        (specialises_on_the_size, "recompile"),
        (differs_compiled, "mismatch"),
    ],
)
def test_a_broken_promise_is_found(function, finding):
    report = audit_compiled(case_of(function), backend="aot_eager")
    assert report.counts().get(finding), str(report)
    with pytest.raises(AssertionError, match=finding):
        report.raise_if_failed()


@pytest.mark.parametrize("function", [is_wrong_without_rows, loses_a_small_constant])
def test_an_export_with_other_numbers_is_found(function):
    report = audit_export(case_of(function))
    assert list(report.counts()) == ["export"], str(report)
