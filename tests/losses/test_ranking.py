"""The order of logits: that of their values, and of equal ones that of their places, eager and exported."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.export import Dim
from torch.nn import functional as F

from compiled_loss.losses.ranking import LOWEST, NOTHING, first_of_largest, places_of_largest
from tests.contract.checks import OnnxFunction

# Those that repeat, next neighbours, and the ends.
NEXT = torch.nextafter(torch.tensor(1.0), torch.tensor(2.0)).item()
SOME = (0.0, -0.0, 1.0, NEXT, -1.0, -NEXT, 2.0**-59, -(2.0**-59), 88.0, LOWEST, NOTHING)


def by_hand(row: list[float], k: int) -> list[int]:
    return sorted(range(len(row)), key=lambda i: (-row[i], i))[:k]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(SOME) | st.floats(-30, 30, width=16), min_size=1, max_size=30), st.data())
def test_the_first_of_the_largest_are_those_of_a_sort(row, data):
    k = data.draw(st.integers(1, len(row)))
    ranks = torch.tensor([row, row[::-1]])
    wanted = [by_hand(x, k) for x in ranks.where(ranks.abs() >= 2.0**-60, 0.0).tolist()]
    assert first_of_largest(ranks, k).tolist() == wanted
    assert places_of_largest(ranks, k).tolist() == [sorted(x) for x in wanted]


def test_far_places_do_not_change_the_order_of_neighbours():
    ranks = torch.full((1, 2**22), 1.0)
    ranks[0, -1] = NEXT
    assert first_of_largest(ranks, 3).tolist() == [[2**22 - 1, 0, 1]]


def test_a_device_without_float64_sorts(monkeypatch):
    monkeypatch.setattr("compiled_loss.losses.ranking.has_float64", lambda device: False)
    ranks = torch.randn(3, 50).round()
    assert first_of_largest(ranks, 20).tolist() == [by_hand(row, 20) for row in ranks.tolist()]


class Ranking(torch.nn.Module):
    """The first 9, where there may be fewer, by number and by place."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = F.pad(x, (0, 9), value=NOTHING)
        return first_of_largest(x, 9), places_of_largest(x, 9)


def test_exported_the_order_is_the_same_for_any_number():
    shapes = ({0: Dim("B"), 1: Dim("n", min=2)},)
    program = torch.export.export(Ranking(), (torch.zeros(3, 20),), dynamic_shapes=shapes)
    onnx = OnnxFunction(program)
    generator = torch.Generator().manual_seed(0)
    for images, entries in ((3, 20), (1, 4), (5, 700)):
        x = torch.tensor(SOME)[torch.randint(len(SOME), (images, entries), generator=generator)]
        for wanted, *found in zip(Ranking()(x), program.module()(x), onnx(x), strict=True):
            assert all(torch.equal(one, wanted) for one in found)
