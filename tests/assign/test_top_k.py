"""The largest entries of each row, of equal ones the first: both ways of finding them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compiled_loss.assign.top_k import by_passes, first_top_k

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
