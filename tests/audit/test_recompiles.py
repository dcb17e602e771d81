"""What is said of a compile after warm-up: which line, and whether a line is at fault at all."""

from typing import Any

import pytest
import torch
from torch import Tensor

from compiled_loss.audit import Finding, audit
from compiled_loss.audit.places import Finder
from compiled_loss.audit.stages.guards import cause_of

OTHERS = ("device", "breaks", "numbers", "cudagraphs", "gpu")


def recompiles(function: Any, *sizes: int, **options: Any) -> list[Finding]:
    batches = [torch.randn(n, requires_grad=True) for n in sizes]
    report = audit(function, batches, backend="aot_eager", skip=OTHERS, **options)
    assert not report.incomplete, str(report)
    return [x for x in report.findings if x.kind == "recompile"]


def clean(x: Tensor) -> Tensor:
    y = x.sin()
    return y.sum()


def loops(x: Tensor) -> Tensor:
    y = x.sin()
    total = y.sum()
    for row in y:
        total = total + row
    return total


@pytest.mark.parametrize("sizes", [(7, 5, 0), (7, 5, 9, 1), (7, 7, 0), (1, 5, 6, 0)])
def test_a_size_of_0_or_1_is_no_fault_of_a_line(sizes):
    (found,) = recompiles(clean, *sizes)
    assert f"compiled again for a size of {sizes[-1]}, because torch compiles separate graphs" in found.message
    assert found.advice.startswith("no line is at fault: pad the rows")


def test_a_size_of_0_or_1_that_warm_up_has_is_no_finding():
    assert not recompiles(clean, 7, 5, 0, 6, 8, warmup=3)


def test_a_warm_up_that_ends_before_sizes_are_dynamic_is_told():
    (found,) = recompiles(clean, 7, 0, 5, 6)
    assert "compiled again to make a size dynamic, which torch does not do for sizes of 0 and 1" in found.message
    assert found.advice.startswith("no line is at fault: let the warm-up batches have two sizes")


@pytest.mark.parametrize("sizes", [(7, 5, 9), (7, 5, 0), (7, 5, 9, 0, 1)])
def test_a_line_that_fixes_a_size_is_at_fault_whatever_the_size(sizes):
    (found,) = recompiles(loops, *sizes)
    assert found.place is not None
    assert found.place.source == "for row in y:"
    assert "this line uses the size as the number" in found.message
    assert found.advice.startswith("keep the size out of loops")


def test_a_dynamic_size_that_is_fixed_at_once_has_its_line_too():
    (found,) = recompiles(loops, 7, 5, warmup=1, dynamic=True)
    assert found.place is not None
    assert found.place.source == "for row in y:"


@pytest.mark.parametrize(
    ("guards", "small", "told"),
    [
        (("0/0: 2 <= x.size()[0] <= 20  # y = x  # f.py:3 in f (x)",), {1}, "for a size of 1"),
        (("0/0: 2 <= x.size()[0] <= 20  # y = x  # f.py:3 in f (x)",), (), "compiled again: 2 <= x.size()[0] <= 20"),
        (("0/1: tensor 'x' dtype mismatch. expected Float, actual Double",), {0}, "compiled again: tensor 'x' dtype"),
        (
            ("0/1: n == 3", "0/0: tensor 'x' size mismatch at index 0. expected 7, actual 0"),
            {0},
            "compiled again: n == 3",
        ),
    ],
)
def test_a_size_of_0_or_1_is_only_blamed_where_a_size_failed(guards, small, told):
    assert cause_of(guards, {}, small, Finder()).message.startswith(
        told if "again" in told else f"compiled again {told}"
    )
