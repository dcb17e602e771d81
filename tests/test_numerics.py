"""Helpers whose small results must not be rounding errors."""

import math

import pytest
import torch

from compiled_loss.numerics import decay, for_any_runtime, log1p, one_minus_exp, sigmoid, softplus

SIZES = [0.0, 1e-30, 1e-9, 1e-4, 0.3, 0.999, 1.0, 7.0, 60.0]


@pytest.mark.parametrize("x", [*SIZES, -0.5, -0.999, 1e20])
def test_the_logarithm_of_one_plus_a_number_is_exact_to_rounding(x):
    for dtype, tolerance in ((torch.float32, 4e-7), (torch.float64, 1e-14)):
        given = torch.tensor(x, dtype=dtype, requires_grad=True)
        value = log1p(given)
        assert value.item() == pytest.approx(math.log1p(given.item()), rel=tolerance)
        (slope,) = torch.autograd.grad(value, given)
        assert slope.item() == pytest.approx(1 / (1 + given.item()), rel=1e3 * tolerance)


@pytest.mark.parametrize("x", SIZES)
def test_one_minus_an_exponential_is_exact_to_rounding(x):
    for dtype, tolerance in ((torch.float32, 4e-7), (torch.float64, 1e-14)):
        given = torch.tensor(x, dtype=dtype, requires_grad=True)
        value = one_minus_exp(given)
        assert value.item() == pytest.approx(-math.expm1(-given.item()), rel=tolerance)
        (slope,) = torch.autograd.grad(value, given)
        assert slope.item() == pytest.approx(math.exp(-given.item()), rel=1e-6, abs=tolerance)


@pytest.mark.parametrize(
    ("function", "exact"),
    [(log1p, torch.log1p), (one_minus_exp, lambda x: -torch.expm1(-x))],
    ids=["log1p", "one_minus_exp"],
)
def test_compiled_they_keep_their_digits(function, exact):
    x = 10 ** torch.linspace(-9, 1, 1000)
    torch.testing.assert_close(torch.compile(function)(x), exact(x.double()).float(), rtol=4e-7, atol=0)


@pytest.mark.parametrize(
    ("function", "exact"),
    [(decay, torch.exp), (softplus, lambda x: torch.log1p(x.exp())), (sigmoid, torch.sigmoid)],
    ids=["decay", "softplus", "sigmoid"],
)
def test_compiled_exponentials_are_off_by_their_rounding_alone(function, exact):
    x = -(10 ** torch.linspace(-9, 1.9, 1000))
    right = exact(x.double())
    error = (torch.compile(function)(x) - right).abs() / right
    # Of float32, a product by log2 e is off by 2^-24 of itself, and log2 e by 1.3e-8.
    assert (error <= 3e-7 + 7.3e-8 * x.abs()).all()


class AsksWhatItIsTracedFor(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + for_any_runtime()


def test_a_graph_is_for_any_runtime_if_it_is_exported_and_not_if_it_is_compiled():
    x, compiled = torch.zeros(1), torch.compile(AsksWhatItIsTracedFor(), fullgraph=True, backend="eager")
    assert [f(x).item() for f in (AsksWhatItIsTracedFor(), compiled)] == [0, 0]
    for strict in (False, True):
        program = torch.export.export(AsksWhatItIsTracedFor(), (x,), strict=strict)
        assert program.module()(x).item() == 1
    assert compiled(x).item() == 0
