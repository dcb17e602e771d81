"""Fill and unfill: every row once, in order, whatever the order of the images, the same in every mode."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compiled_loss import fill, unfill
from compiled_loss.ragged import positions
from tests.contract.checks import Case, export
from tests.reference import ragged as reference

DTYPES = (torch.bool, torch.uint8, torch.int64, torch.float16, torch.bfloat16, torch.float32, torch.float64)
TRAILING = ((), (4,), (5, 3), (0,))
SIZES = (0, 1, 2, 7, 300)

owners = st.lists(st.integers(-2, 6), max_size=40)
batch_sizes = st.integers(0, 5)
capacities = st.integers(0, 6)


def rows_for(batch_idx: list[int], trailing: tuple[int, ...] = (), dtype: torch.dtype = torch.float32):
    """Rows told apart by their values as far as the dtype can."""
    n = len(batch_idx)
    size = torch.Size((n, *trailing)).numel()
    values = torch.arange(1, size + 1).reshape(n, *trailing)
    return (values % 2 == 0) if dtype == torch.bool else (values % 251).to(dtype)


def in_image_order(batch_idx: list[int], batch_size: int) -> list[int]:
    return sorted(batch_idx, key=lambda i: i if 0 <= i < batch_size else batch_size)


@settings(deadline=None, max_examples=150)
@given(owners, batch_sizes, capacities, st.sampled_from(TRAILING), st.sampled_from(DTYPES), st.sampled_from([0, 1]))
def test_fill_and_unfill_equal_plain_loops(batch_idx, batch_size, capacity, trailing, dtype, fill_value):
    values, index = rows_for(batch_idx, trailing, dtype), torch.tensor(batch_idx, dtype=torch.int64)
    got = fill(values, index, batch_size, capacity, fill_value)
    expected = reference.fill(values, index, batch_size, capacity, fill_value)
    for x, y in zip(got, expected, strict=True):
        assert (x.dtype, x.shape) == (y.dtype, y.shape)
        assert torch.equal(x, y)
    back = unfill(got.values, index, capacity, fill_value)
    assert torch.equal(back, reference.unfill(got.values, index, capacity, fill_value))


@settings(deadline=None, max_examples=80)
@given(owners, batch_sizes, capacities)
def test_the_promise_of_order_changes_nothing_on_rows_in_order(batch_idx, batch_size, capacity):
    ordered = in_image_order(batch_idx, batch_size)
    values, index = rows_for(ordered, (2,)), torch.tensor(ordered, dtype=torch.int64)
    plain, promised = (fill(values, index, batch_size, capacity, -1, is_sorted=flag) for flag in (False, True))
    for x, y in zip(plain, promised, strict=True):
        assert torch.equal(x, y)
    assert torch.equal(
        unfill(plain.values, index, capacity, -1), unfill(plain.values, index, capacity, -1, is_sorted=True)
    )


@settings(deadline=None, max_examples=80)
@given(owners, batch_sizes)
def test_unfill_is_the_inverse_where_nothing_is_dropped(batch_idx, batch_size):
    values, index = rows_for(batch_idx, (3,)), torch.tensor(batch_idx, dtype=torch.int64)
    filled = fill(values, index, batch_size, capacity=40)
    assert filled.dropped.sum() == 0
    real = (index >= 0) & (index < batch_size)
    back = unfill(filled.values, index, 40, fill_value=-7)
    assert torch.equal(back[real], values[real])
    assert (back[~real] == -7).all()


@settings(deadline=None, max_examples=80)
@given(owners, batch_sizes, capacities)
def test_every_real_row_is_either_written_or_counted(batch_idx, batch_size, capacity):
    index = torch.tensor(batch_idx, dtype=torch.int64)
    filled = fill(torch.ones(len(index)), index, batch_size, capacity)
    real = int(((index >= 0) & (index < batch_size)).sum())
    assert filled.mask.sum() + filled.dropped.sum() == real
    assert filled.values.sum() == filled.mask.sum()


def test_rows_that_are_not_sorted_keep_their_order_within_the_image():
    index = torch.tensor([2, 2, 0, 1, 0, 2])
    filled = fill(torch.arange(6), index, batch_size=3, capacity=2, fill_value=-1)
    assert filled.values.tolist() == [[2, 4], [3, -1], [0, 1]]
    assert filled.mask.tolist() == [[True, True], [True, False], [True, True]]
    assert filled.dropped.tolist() == [0, 0, 1]
    assert positions(index, 3)[0].tolist() == [0, 1, 0, 0, 1, 2]


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_both_integer_dtypes_of_the_index_will_do(dtype):
    index = torch.tensor([1, 0, 1, 2], dtype=dtype)
    expected = fill(torch.arange(4), index.long(), 2, 2)
    for x, y in zip(fill(torch.arange(4), index, 2, 2), expected, strict=True):
        assert torch.equal(x, y)


@pytest.mark.parametrize("is_sorted", [False, True])
def test_gradients_reach_every_written_row_and_no_other(is_sorted):
    index = torch.tensor([0, 0, 0, 1, 3, -1] if is_sorted else [1, 0, -1, 0, 3, 0])
    values = torch.randn(6, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: fill(x, index, 2, 2, is_sorted=is_sorted).values, values)
    (gradient,) = torch.autograd.grad(fill(values, index, 2, 2, is_sorted=is_sorted).values.sum(), values)
    assert gradient[:, 0].tolist() == [1, 1, 0, 1, 0, 0]
    slots = torch.randn(2, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: unfill(x, index, 2, is_sorted=is_sorted), slots)


@pytest.mark.parametrize("is_sorted", [False, True])
def test_eager_compiled_exported_and_onnx_runtime_agree_to_the_bit(is_sorted):
    def there_and_back(values, index):
        filled = fill(values, index, 4, 60, -1, is_sorted=is_sorted)
        return *filled, unfill(filled.values, index, 60, -2, is_sorted=is_sorted)

    def inputs(n, _=False):
        owner = torch.randint(-1, 5, (n,))
        owner = torch.tensor(in_image_order(owner.tolist(), 4), dtype=torch.int64) if is_sorted else owner
        return torch.randn(n, 3), owner

    compiled = torch.compile(there_and_back, fullgraph=True, dynamic=True)
    program, onnx = export(Case(there_and_back, inputs, learnt=0, rows=2))
    for n in SIZES:
        values, index = inputs(n)
        expected = there_and_back(values, index)
        for mode in (compiled, program.module(), onnx):
            for x, y in zip(mode(values, index), expected, strict=True):
                assert x.dtype == y.dtype
                assert torch.equal(x, y)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.tensor(1.0), torch.tensor([0]), 1, 1), r"values: expected shape \[N, \.\.\.\], got \(\)"),
        ((torch.ones(2), torch.tensor([[0, 1]]), 1, 1), r"batch_idx: expected shape \[N\], got \(1, 2\)"),
        (
            (torch.ones(2), torch.ones(2), 1, 1),
            "batch_idx: expected an integer dtype, int32 or int64, got torch.float32",
        ),
        (
            (torch.ones(2), torch.ones(2, dtype=torch.bool), 1, 1),
            "batch_idx: expected an integer dtype, int32 or int64, got torch.bool",
        ),
        ((torch.ones(3), torch.tensor([0, 1]), 1, 1), "values: expected .*, got .*3"),
        ((torch.ones(2), torch.tensor([0, 1]), -1, 1), "batch_size: expected 0 or more, got -1"),
        ((torch.ones(2), torch.tensor([0, 1]), 1, -2), "capacity: expected 0 or more, got -2"),
        (
            (torch.ones(2, device="meta"), torch.tensor([0, 1]), 1, 1),
            "values: expected device cpu, like batch_idx, got",
        ),
    ],
)
def test_fill_refuses_bad_input_and_says_why(arguments, message):
    with pytest.raises(ValueError, match=message):
        fill(*arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.ones(2), torch.tensor([0]), 2), r"filled: expected shape \[B, M, \.\.\.\], got \(2,\)"),
        ((torch.ones(2, 3), torch.tensor([0]), 2), "filled: expected shape .B, 2., got .2, 3."),
        (
            (torch.ones(2, 3), torch.tensor([0.0]), 3),
            "batch_idx: expected an integer dtype, int32 or int64, got torch.float32",
        ),
        (
            (torch.ones(2, 3), torch.tensor([0], device="meta"), 3),
            "batch_idx: expected device cpu, like filled, got meta",
        ),
    ],
)
def test_unfill_refuses_bad_input_and_says_why(arguments, message):
    with pytest.raises(ValueError, match=message):
        unfill(*arguments)
