"""Each check of the contract catches the fault it is there for."""

import pytest
import torch
from torch._dynamo.exc import Unsupported
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException

from tests.contract.checks import Case, assert_exports, assert_no_sync, assert_one_graph


def rows_alone(n, padded):
    n = max(n, 2) if padded else n
    return torch.linspace(-1, 2, n), torch.arange(n) % 3


def case_of(function, learnt=1):
    return Case(function, rows_alone, learnt=learnt, rows=2)


def sound(x, index):
    return (x.new_zeros(3).scatter_add(0, index, x * x),)


def breaks(x, index):
    torch._dynamo.graph_break()
    return sound(x, index)


def reads_a_value(x, index):
    return (x * x.detach().abs().sum().item(),)


def picks_by_a_mask(x, index):
    return (x[x > 0],)


def writes_by_a_mask(x, index):
    y = x.clone()
    y[x > 0] = 0.0
    return (y,)


def moves_to_the_host(x, index):
    return (x.cpu() * 2,)


def counts_with_a_tensor_of_its_own(x, index):
    return (x * torch.arange(x.shape[0]),)


def specialises_on_the_size(x, index):
    return (x * (2 if x.shape[0] > 50 else 3),)


def is_wrong_without_rows(x, index):
    return (x.sum() / max(x.shape[0], 1),)


def loses_a_small_constant(x, index):
    return (x / (x.abs() * 0 + 1e-9) * 1e-9,)


class CountsCalls:
    """Every call sees another Python number, and so another graph."""

    def __init__(self):
        self.calls = 0

    def __call__(self, x, index):
        self.calls += 1
        return (x * self.calls,)


def test_a_sound_function_passes_every_check():
    assert_one_graph(case_of(sound), backend="aot_eager")
    assert_no_sync(case_of(sound))
    assert_exports(case_of(sound))


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (breaks, Unsupported, "graph_break"),
        (CountsCalls(), AssertionError, "expected one compile|output 0"),
        (specialises_on_the_size, AssertionError, "expected one compile"),
    ],
    ids=["a break", "another Python number each call", "a branch on the size"],
)
def test_more_than_one_graph_is_caught(function, error, message):
    with pytest.raises(error, match=message):
        assert_one_graph(case_of(function), backend="aot_eager")


@pytest.mark.parametrize(
    ("function", "error"),
    [
        (reads_a_value, DataDependentOutputException),
        (picks_by_a_mask, DynamicOutputShapeException),
        (writes_by_a_mask, AssertionError),
        (moves_to_the_host, AssertionError),
        (counts_with_a_tensor_of_its_own, RuntimeError),
    ],
)
def test_reading_or_leaving_the_device_is_caught(function, error):
    with pytest.raises(error):
        assert_no_sync(case_of(function))


@pytest.mark.parametrize("function", [is_wrong_without_rows, loses_a_small_constant])
def test_an_export_with_other_numbers_is_caught(function):
    with pytest.raises(AssertionError, match="output 0"):
        assert_exports(case_of(function, learnt=0))


def test_a_compiled_function_with_other_numbers_is_caught():
    def differs(x, index):
        return (x * (1.0 + 1e-4 * torch.compiler.is_compiling()),)

    with pytest.raises(AssertionError, match="output 0"):
        assert_one_graph(case_of(differs), backend="aot_eager")
