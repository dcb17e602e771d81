"""The criterion compiled: one graph, planned on the host, eager where no gradient is asked for."""

import copy
import pickle
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from compiled_loss.integrations.ultralytics import Criterion, compiled_criterion
from tests.integrations.stand_ins import arguments, example, stand_in
from tests.reference.batches import make_batch, make_predictions
from tests.reference.end_to_end import Pair
from tests.reference.mask_batches import add_mask_predictions, add_masks


def test_compiled_it_gives_the_same_numbers_and_one_graph_serves_every_number_of_rows():
    eager = compiled_criterion(stand_in())
    counter = CompileCounterWithBackend("aot_eager")
    compiled = compiled_criterion(stand_in(), compile=True, backend=counter)
    torch._dynamo.reset()
    for seed, counts in enumerate([(4, 0, 3), (0, 0, 0), (1, 0, 0), (0, 17, 0), (30, 1, 40)]):
        preds, rows = example(seed, counts)
        leaves = [preds["boxes"].requires_grad_(), preds["scores"].requires_grad_()]
        vector, items = compiled(preds, rows)
        expected, expected_items = eager(preds, rows)
        torch.testing.assert_close(vector, expected)
        torch.testing.assert_close(items, expected_items)
        for ours, right in zip(*(torch.autograd.grad(v.sum(), leaves) for v in (vector, expected)), strict=True):
            torch.testing.assert_close(ours, right)
    assert counter.frame_count == 1


def test_a_pass_without_gradients_is_eager_and_the_same():
    counter = CompileCounterWithBackend("aot_eager")
    compiled = compiled_criterion(stand_in(), compile=True, backend=counter)
    preds, rows = example()
    with torch.no_grad():
        vector, items = compiled(preds, rows)
    assert counter.frame_count == 0
    expected, expected_items = compiled_criterion(stand_in())(preds, rows)
    torch.testing.assert_close(vector, expected)
    torch.testing.assert_close(items, expected_items)


def test_static_shapes_come_in_powers_of_two_and_each_compiles_once():
    counter = CompileCounterWithBackend("aot_eager")
    compiled = compiled_criterion(stand_in(), compile=True, backend=counter, dynamic=False)
    eager = compiled_criterion(stand_in())
    torch._dynamo.reset()
    for seed, counts in enumerate([(4, 0, 3), (2, 0, 0), (9, 0, 6), (20, 0, 3), (9, 9, 9)]):
        preds, rows = example(seed, counts)
        torch.testing.assert_close(compiled(preds, rows)[0], eager(preds, rows)[0])
    assert counter.frame_count == 2  # of 16 and of 32 rows


def test_rows_on_the_host_are_checked_before_they_are_compiled_away():
    preds, rows = example()
    compiled = compiled_criterion(stand_in(), compile=True, backend="aot_eager")
    with pytest.raises(ValueError, match=r"Targets\.batch_idx: .* got 3 in row 0"):
        compiled(preds, rows | {"batch_idx": torch.full_like(rows["batch_idx"], 3.0)})


def test_options_of_a_compilation_without_one_are_refused():
    given: list[dict[str, Any]] = [{"backend": "aot_eager"}, {"mode": "max-autotune"}, {"dynamic": True}]
    for options in given:
        with pytest.raises(ValueError, match="backend, mode, dynamic: expected compile=True"):
            compiled_criterion(stand_in(), **options)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))], ids=["copy", "pickle"])
def test_a_copied_or_pickled_criterion_is_still_compiled_and_equal(duplicate):
    preds, rows = example()
    criterion = compiled_criterion(stand_in(), compile=True, backend="aot_eager")
    other = duplicate(criterion)
    assert isinstance(other, Criterion)
    assert other.loss is not criterion.loss
    assert other.loss._compiled_call_impl is not None
    torch.testing.assert_close(other(preds, rows)[0], compiled_criterion(stand_in())(preds, rows)[0])


def test_compiled_an_end_to_end_mask_head_is_one_graph_whatever_the_epoch():
    model = stand_in(2, 1, nm=3, proto=SimpleNamespace(semseg=1), one2one_cv2=1)
    model.args.epochs = 5
    counter = CompileCounterWithBackend("aot_eager")
    eager, compiled = compiled_criterion(model), compiled_criterion(model, compile=True, backend=counter)
    torch._dynamo.reset()
    for seed, counts in enumerate([(4, 0, 3), (0, 0, 0), (0, 17, 1)]):
        batch = add_masks(seed, make_batch(seed, counts=counts, size=(64, 96), num_classes=2), num_classes=2)
        options: dict[str, Any] = {"num_classes": 2}
        branches = [
            add_mask_predictions(
                i, batch, make_predictions(i, batch, reg_max=1, **options), nm=3, semantic=True, **options
            )
            for i in (seed, seed + 50)
        ]
        preds, rows = arguments(batch, Pair(*branches))
        torch.testing.assert_close(compiled(preds, rows)[0], eager(preds, rows)[0])
        compiled.update()
        eager.update()
    assert counter.frame_count == 1


def test_an_end_to_end_head_of_open_sizes_is_one_graph_of_generated_code():
    model = stand_in(2, 1, one2one_cv2=1)
    counter = CompileCounterWithBackend("inductor")
    eager, compiled = compiled_criterion(model), compiled_criterion(model, compile=True, backend=counter, dynamic=True)
    torch._dynamo.reset()
    for seed, (size, counts) in enumerate([((64, 96), (4, 0, 3)), ((96, 64), (1, 5))]):
        batch = make_batch(seed, counts=counts, size=size, num_classes=2)
        branches = [make_predictions(i, batch, reg_max=1, num_classes=2) for i in (seed, seed + 50)]
        preds, rows = arguments(batch, Pair(*branches))
        torch.testing.assert_close(compiled(preds, rows)[0], eager(preds, rows)[0])
    assert counter.frame_count == 1
