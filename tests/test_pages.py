"""Pages hold every entry once, in order, and say what does not fit."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compiled_loss.pages import capacity, lay_out, pages_of


@settings(deadline=None, max_examples=150)
@given(st.lists(st.integers(0, 9), max_size=8), st.integers(1, 20), st.integers(1, 4))
def test_pages_follow_the_groups_and_say_what_fits(counts, pages, width):
    layout = lay_out(torch.tensor(counts, dtype=torch.int64), pages, width)
    wanted = [(n, begin) for n, count in enumerate(counts) for begin in range(0, count, width)]
    found = list(zip(layout.group.tolist(), layout.begin.tolist(), strict=True))
    assert found == (wanted + [(len(counts), 0)] * pages)[:pages]
    for n, count in enumerate(counts):
        mine = [page for page, (group, _) in enumerate(wanted) if group == n]
        assert layout.fits[n].item() == all(page < pages for page in mine)
        if count:
            assert layout.first[n] == mine[0]
    assert pages_of(torch.tensor(counts, dtype=torch.int64), width).sum() == len(wanted)


@settings(deadline=None, max_examples=150)
@given(st.lists(st.integers(0, 9), max_size=8), st.integers(1, 20), st.integers(1, 20))
def test_pages_beyond_the_usable_ones_stay_empty(counts, pages, usable):
    counts = torch.tensor(counts, dtype=torch.int64)
    found, fewer = lay_out(counts, pages, 2, usable=usable), lay_out(counts, min(pages, usable), 2)
    used = min(pages, usable)
    assert torch.equal(found.fits, fewer.fits)
    assert torch.equal(found.group[:used], fewer.group)
    assert torch.equal(found.begin[:used], fewer.begin)
    assert (found.group[used:] == len(counts)).all()


def test_what_cannot_be_read_without_a_wait_is_not_asked_for():
    needed = torch.tensor([3, 4])
    assert capacity(None, needed) == 7
    assert capacity(None, needed[:0]) == 1
    assert capacity(None, needed.to("meta")) is None
    assert capacity(9, needed.to("meta")) == 9
    assert capacity(torch.zeros(5, dtype=torch.int8), needed.to("meta")) == 5
    asked = []

    def ask(x: torch.Tensor) -> torch.Tensor:
        asked.append(capacity(None, x))
        return x

    torch.func.vmap(ask)(needed[None])
    torch.compile(ask, backend="eager", fullgraph=True)(needed)
    assert asked == [None, None]
