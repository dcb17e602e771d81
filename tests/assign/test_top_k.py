"""The largest entries of rows on pages, of equal ones the first, and the keys that order them."""

from contextlib import nullcontext

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compiled_loss.assign.keys import from_keys, largest_keys, to_keys
from compiled_loss.assign.top_k import first_top_k
from compiled_loss.pages import lay_out

# Few values, so that ties abound, and neighbours in float32, which must not be taken for ties.
NEXT = torch.tensor(0.5).nextafter(torch.tensor(1.0)).item()
entries = st.sampled_from([0.0, 1e-45, 1e-38, 1e-30, 0.25, 0.5, NEXT, 1.0])
forms = pytest.mark.parametrize("exporting", [False, True])


def as_exported(monkeypatch, exporting: bool):
    """Keys in the form that exported graphs hold."""
    if exporting:
        monkeypatch.setattr(torch.compiler, "_is_exporting_flag", True)
    return nullcontext()


def largest_first(rows: list[list[float]], k: int, width: int) -> tuple[list, list]:
    """Values and places of each row's k largest, found by sorting."""
    values, places, page = [], [], 0
    for row in rows:
        order = sorted((i for i in range(len(row)) if row[i] > 0), key=lambda i: (-row[i], i))[:k]
        values.append([row[i] for i in order] + [0.0] * (k - len(order)))
        places.append([page * width + i for i in order] + [0] * (k - len(order)))
        page += -(-len(row) // width)
    return values, places


@forms
@settings(deadline=None, max_examples=100)
@given(
    rows=st.lists(st.lists(entries, max_size=11), max_size=5),
    k=st.integers(1, 12),
    width=st.sampled_from([1, 3, 4]),
    more=st.integers(1, 3),
)
def test_entries_come_by_size_and_then_by_place(rows, k, width, more, exporting):
    with pytest.MonkeyPatch.context() as patch, as_exported(patch, exporting):
        rows = [[float(torch.tensor(x)) for x in row] for row in rows]
        pages = sum(-(-len(row) // width) for row in rows) + more
        layout = lay_out(torch.tensor([len(row) for row in rows], dtype=torch.int64), pages, width)
        flat = [x for row in rows for x in row + [0.0] * (-len(row) % width)]
        x = torch.tensor(flat + [0.0] * (pages * width - len(flat))).view(pages, width)
        values, found = first_top_k(x, layout, k)
        wanted = largest_first(rows, k, width)
        assert values.tolist() == torch.tensor(wanted[0]).reshape(-1, k).tolist()
        assert found.tolist() == torch.tensor(wanted[1]).reshape(-1, k).tolist()


@forms
def test_ties_are_broken_by_place_over_many_pages_too(monkeypatch, exporting):
    with as_exported(monkeypatch, exporting):
        x = torch.full((2, 9000), 0.3)
        x[1, ::2] = torch.tensor(0.3).nextafter(torch.tensor(1.0))
        layout = lay_out(torch.tensor([9000, 9000]), 300, width=60)
        _, found = first_top_k(x.view(300, 60), layout, 5)
        assert found.tolist() == [[0, 1, 2, 3, 4], [9000, 9002, 9004, 9006, 9008]]


@forms
@settings(deadline=None, max_examples=100)
@given(pairs=st.lists(st.tuples(entries, st.integers(0, 3), st.integers(0, 2**25 - 1)), max_size=12))
def test_the_largest_key_of_a_group_tells_the_number_and_its_lowest_index(pairs, exporting):
    with pytest.MonkeyPatch.context() as patch, as_exported(patch, exporting):
        x = torch.tensor([value for value, _, _ in pairs], dtype=torch.float32)
        group = torch.tensor([group for _, group, _ in pairs], dtype=torch.int64)
        index = torch.tensor([index for *_, index in pairs], dtype=torch.int64)
        values, indices = from_keys(largest_keys(to_keys(x, index), group, 4))
        for asked in range(4):
            there = [(v, -i) for v, g, i in zip(x.tolist(), group.tolist(), index.tolist(), strict=True) if g == asked]
            value, negative = max(there, default=(0.0, 0))
            assert values[asked].item() == value
            assert indices[asked].item() == (-negative if value > 0 else 0)
