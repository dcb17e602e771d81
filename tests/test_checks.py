"""The checks at the public edge: they pass what fits, and else name the argument, what was expected and what came."""

from typing import Any, cast

import pytest
import torch

from compiled_loss.checks import check_floating, check_integer, check_same_device, check_shape, require


def test_what_fits_passes():
    require(True, "x", "anything", None)
    check_shape("boxes", torch.zeros(0, 4), ["N", 4])
    check_shape("scalar", torch.tensor(1), [])
    check_integer("labels", torch.zeros(2, dtype=torch.int32))
    check_floating("boxes", torch.zeros(2, dtype=torch.bfloat16))
    check_same_device(a=torch.zeros(1), b=None, c=torch.zeros(2))
    check_same_device()


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (lambda: require(False, "top_k", "at least 1", 0), "^top_k: expected at least 1, got 0$"),
        (lambda: check_shape("x", torch.zeros(3), ["N", 4]), r"^x: expected shape \[N, 4\], got \(3,\)$"),
        (lambda: check_shape("x", torch.zeros(3, 5), ["N", 4]), r"^x: expected shape \[N, 4\], got \(3, 5\)$"),
        (lambda: check_shape("x", cast(Any, [1, 2]), ["N"]), r"^x: expected shape \[N\], got list$"),
        (
            lambda: check_integer("x", torch.zeros(1)),
            "^x: expected an integer dtype, int32 or int64, got torch.float32$",
        ),
        (
            lambda: check_integer("x", torch.tensor([True])),
            "^x: expected an integer dtype, int32 or int64, got torch.bool$",
        ),
        (
            lambda: check_integer("x", torch.zeros(2, dtype=torch.uint8)),
            "^x: expected an integer dtype, int32 or int64, got torch.uint8$",
        ),
        (
            lambda: check_integer("x", torch.tensor([1j])),
            "^x: expected an integer dtype, int32 or int64, got torch.complex64$",
        ),
        (lambda: check_floating("x", torch.tensor([1])), "^x: expected a floating-point dtype, got torch.int64$"),
        (
            lambda: check_same_device(a=torch.zeros(1), b=None, c=torch.zeros(1, device="meta")),
            "^c: expected device cpu, like a, got meta$",
        ),
    ],
)
def test_what_does_not_fit_is_named(check, message):
    with pytest.raises(ValueError, match=message):
        check()


def test_checks_vanish_from_a_graph_with_dynamic_sizes():
    @torch.compile(fullgraph=True, dynamic=True, backend="eager")
    def checked(x, y):
        check_shape("x", x, ["N", 4])
        check_floating("x", x)
        check_same_device(x=x, y=y)
        require(x.shape[0] == y.shape[0], "y", f"{x.shape[0]} rows", y.shape[0])
        return x.sum() + y.sum()

    for n in (3, 5, 8):
        assert checked(torch.ones(n, 4), torch.ones(n)) == 5 * n
