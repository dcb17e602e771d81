"""Overlaps and box terms in half precision, and of boxes of the wrong kind."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from compiled_loss import DetectionLoss, KFIoU, KullbackLeibler, OrientedLoss, Predictions, Targets, TaskAligned, WIoU
from compiled_loss import overlaps as of
from compiled_loss.assign.rotated import InRotatedBox

UPRIGHT: list[Callable[[Tensor, Tensor], Tensor]] = [
    of.iou, of.giou, of.diou, of.ciou, of.eiou, of.siou, of.InnerIoU(0.8, of.siou), of.MPDIoU((640, 640)), of.NWD()
]  # fmt: skip
ORIENTED: list[Callable[[Tensor, Tensor], Tensor]] = [of.probiou, of.kfiou, of.GWD()]
TERMS = {4: [WIoU(1), WIoU(momentum=0.0)], 5: [KFIoU(), KullbackLeibler()]}
WORDS = {4: r"upright boxes \[..., 4\]", 5: r"oriented boxes \[..., 5\]"}
KINDS = [*((f, 4) for f in UPRIGHT), *((f, 5) for f in ORIENTED)]


def boxes(values: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Of 300 to 600 pixels, whose areas half precision does not hold, that overlap a little or much."""
    low = torch.arange(8.0)[:, None] * 16
    first, second = torch.cat([low, low, 2 * low + 300, low + 300], 1), torch.tensor([[0.0, 0, 600, 512]])
    turn = torch.linspace(0, 1.5, 8)[:, None]
    if values == 5:
        first, second = torch.cat([first, turn], 1), torch.cat([second, turn[2:3]], 1)
    return first.to(dtype), second.to(dtype)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("overlap", "values"), KINDS)
def test_overlaps_of_half_precision_are_those_of_the_same_numbers(overlap, values, dtype):
    first, second = boxes(values, dtype)
    found = overlap(first, second)
    assert found.dtype == torch.float32
    wanted = overlap(first.double(), second.double())
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-5)
    assert wanted.unique().numel() > 1
    if not isinstance(overlap, of.InnerIoU):  # and so where one of both alone is
        torch.testing.assert_close(overlap(first, second.double()), wanted)


@pytest.mark.parametrize("values", [4, 5])
def test_terms_of_half_precision_are_those_of_the_same_numbers(values):
    first, second = boxes(values, torch.float16)
    for term in TERMS[values]:
        args = first, second.expand_as(first)
        wanted = term(*(x.double() for x in args), torch.ones(8))
        torch.testing.assert_close(term(*args, torch.ones(8)).double(), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("overlap", "values"), KINDS)
def test_boxes_of_the_other_kind_are_refused_by_name(overlap, values):
    right, wrong = torch.ones(2, values), torch.ones(2, 9 - values)
    with pytest.raises(ValueError, match=f"boxes1: expected {WORDS[values]}, got .*2, {9 - values}"):
        overlap(wrong, right)
    with pytest.raises(ValueError, match=f"boxes2: expected {WORDS[values]}"):
        overlap(right, wrong)
    with pytest.raises(ValueError, match=f"boxes2: expected {WORDS[values]}, got a scalar"):
        overlap(right, torch.tensor(1.0))


@pytest.mark.parametrize("values", [4, 5])
def test_terms_name_boxes_of_the_other_kind(values):
    right, wrong = torch.ones(2, values), torch.ones(2, 9 - values)
    for term in TERMS[values]:
        for given, name in ((wrong, right), "predicted"), ((right, wrong), "true"):
            with pytest.raises(ValueError, match=f"{name}: expected {WORDS[values]}"):
                term(*given, torch.ones(2))


@pytest.mark.parametrize(
    ("make", "oriented", "message"),
    [
        (lambda: DetectionLoss(2, overlap=of.probiou), False, WORDS[5]),
        (lambda: DetectionLoss(2, box_term=KFIoU()), False, f"predicted: expected {WORDS[5]}"),
        (lambda: OrientedLoss(2, overlap=of.giou), True, WORDS[4]),
        (lambda: OrientedLoss(2, box_term=WIoU()), True, f"predicted: expected {WORDS[4]}"),
        (
            lambda: DetectionLoss(2, assigner=TaskAligned(region=InRotatedBox())),
            False,
            r"boxes of a region inside oriented boxes: expected shape \[N, 5\]",
        ),
    ],
)
def test_losses_with_a_part_for_the_other_kind_say_so(make, oriented, message):
    maps: dict[str, Any] = {"angles": torch.zeros(1, 1, 84)} if oriented else {}
    rows: dict[str, Any] = {"angles": torch.zeros(1)} if oriented else {}
    predictions = Predictions(torch.zeros(1, 64, 84), torch.zeros(1, 2, 84), ((8, 8), (4, 4), (2, 2)), **maps)
    targets = Targets(torch.tensor([0]), torch.tensor([1]), torch.full((1, 4), 0.5), **rows)
    with pytest.raises(ValueError, match=message):
        make()(predictions, targets)
