"""The largest entries, of equal ones the first: both ways of finding them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compiled_loss.assign.top_k import by_passes, first_maximum, first_maximum_by_passes, first_top_k

both = pytest.mark.parametrize("find", [first_top_k, by_passes])
# Few values, so that ties abound, and neighbours in float32, which must not be taken for ties.
entries = st.sampled_from([0.0, 1e-38, 1e-30, 0.25, 0.5, 1.0, *torch.tensor([0.5]).nextafter(torch.ones(1)).tolist()])


@settings(deadline=None, max_examples=150)
@given(st.lists(entries, min_size=1, max_size=30), st.integers(1, 30), st.sampled_from([first_top_k, by_passes]))
def test_entries_come_by_size_and_then_by_place(row, k, find):
    values, indices = find(torch.tensor([row]), min(k, len(row)))
    order = sorted(range(len(row)), key=lambda i: (-row[i], i))[:k]
    positive = [i for i in order if row[i] > 0]
    assert values[0].tolist() == torch.tensor([row])[0, order].tolist()
    assert indices[0].tolist()[: len(positive)] == positive
    assert len(set(indices[0].tolist())) == len(order)


@both
def test_ties_are_broken_by_place_in_long_rows_too(find):
    x = torch.full((2, 9000), 0.3)
    x[1, ::2] = torch.tensor(0.3).nextafter(torch.tensor(1.0))
    _, indices = find(x, 5)
    assert indices.tolist() == [[0, 1, 2, 3, 4], [0, 2, 4, 6, 8]]


@both
def test_many_rows_at_once(find):
    x = torch.rand(50, 30)
    values, indices = find(x, 10)
    assert torch.equal(values, x.topk(10).values)
    assert torch.equal(values, x.gather(1, indices))
    assert [y.shape for y in find(x[:0], 4)] == [(0, 4), (0, 4)]


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.lists(st.tuples(entries, st.integers(0, 3)), min_size=4, max_size=4), max_size=8),
    st.sampled_from([first_maximum, first_maximum_by_passes]),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_the_largest_entry_at_a_place_comes_with_its_first_row(rows, find, dtype):
    x = torch.tensor([[value for value, _ in row] for row in rows], dtype=dtype).reshape(-1, 4)
    place = torch.tensor([[where for _, where in row] for row in rows], dtype=torch.long).reshape(-1, 4)
    values, first = find(x, place, 4, torch.tensor([3, 0, 1, 2]))
    for asked, value, row in zip([3, 0, 1, 2], values.tolist(), first.tolist(), strict=True):
        there = [(x[i, j].item(), -i) for i in range(len(rows)) for j in range(4) if place[i, j] == asked]
        largest, index = max(there, default=(0.0, 0))
        assert value == largest
        assert row == -index or largest == 0


@pytest.mark.parametrize("find", [first_maximum, first_maximum_by_passes])
def test_the_first_of_many_rows_wins_and_a_neighbour_in_float32_beats_it(find):
    rows = 200_001
    x = (torch.rand(rows, 1) * 0.3).clamp(max=0.29)
    x[rows // 3 :] = 0.3
    assert [y.item() for y in find(x, torch.zeros_like(x).long(), 1, torch.tensor([0]))][1] == rows // 3
    x[-1] = torch.tensor(0.3).nextafter(torch.tensor(1.0))
    value, row = find(x, torch.zeros_like(x).long(), 1, torch.tensor([0]))
    assert value.item() == x[-1].item()
    assert row.item() == rows - 1
