"""What a function changes in Python, in tensors and in generators is as before afterwards, and in every run."""

import collections
import dataclasses
import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from compiled_loss.audit import audit
from compiled_loss.audit.reach import reachable
from compiled_loss.audit.restoring import restored

FAST: dict[str, Any] = {"backend": "aot_eager"}
COUNT = 0


def batches():
    return [torch.randn(3, requires_grad=True) for _ in range(3)]


def test_a_deque_is_put_back_and_keeps_no_simulated_tensor():
    class Keeps(nn.Module):
        def __init__(self):
            super().__init__()
            self.seen = collections.deque([torch.ones(3), torch.ones(3)], maxlen=2)

        def forward(self, x):
            y = x * self.seen[0]
            self.seen.append(y.detach())
            return y

    function = Keeps()
    kept = list(function.seen)
    report = audit(function, batches(), **FAST)
    assert report.ok, str(report)
    assert all(x is y for x, y in zip(function.seen, kept, strict=True))


def test_globals_closures_and_attributes_of_classes_are_bound_as_before():
    count = 0

    class Counts:
        calls = 0
        __slots__ = ("own",)

        def __init__(self):
            self.own = 0

        def __call__(self, x):
            global COUNT
            nonlocal count
            COUNT, count, Counts.calls, self.own = COUNT + 1, count + 1, Counts.calls + 1, self.own + 1
            return x * (COUNT + count + Counts.calls + self.own)

    function = Counts()
    assert "mismatch" not in audit(function, batches(), **FAST).counts()
    assert (COUNT, count, Counts.calls, function.own) == (0, 0, 0, 0)


def test_attributes_of_a_function_are_put_back():
    def counts(x):
        vars(counts)["calls"] = vars(counts).get("calls", 0) + 1
        return x * 2

    with restored(reachable(counts)):
        counts(1)
    assert not vars(counts)


@pytest.mark.parametrize(
    ("make", "draw", "state"),
    [
        (
            lambda: torch.Generator().manual_seed(3),
            lambda g: torch.rand((), generator=g).item(),
            lambda g: g.get_state(),
        ),
        (lambda: np.random.default_rng(3), lambda g: g.random(), lambda g: g.bit_generator.state),
        (lambda: np.random.RandomState(3), lambda g: g.rand(), lambda g: g.get_state()),
        (lambda: random.Random(3), lambda g: g.random(), lambda g: g.getstate()),
    ],
    ids=["torch", "numpy", "numpy of old", "python"],
)
def test_generators_draw_the_same_numbers_again(make, draw, state):
    generator = make()
    before = str(state(generator))

    def draws():
        return draw(generator)

    drawn = []
    for _ in range(2):
        with restored(reachable(draws)):
            drawn.append(draws())
    assert drawn[0] == drawn[1]
    assert str(state(generator)) == before


def test_a_generator_that_a_function_holds_makes_no_mismatch():
    generator = torch.Generator()
    report = audit(lambda x: x + torch.rand(3, generator=generator), batches(), **FAST, skip=["device"])
    assert "mismatch" not in report.counts(), str(report)


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    x: torch.Tensor
    times: int = 2


def test_a_frozen_dataclass_with_slots_may_be_an_argument():
    report = audit(lambda given: given.x * given.times, [Frozen(x) for x in batches()], **FAST)
    assert report.ok, str(report)


def test_flags_hooks_and_the_default_dtype_are_as_before():
    layer = nn.Linear(3, 3)
    layer.bias.register_hook(kept := lambda gradient: gradient)

    def changes(x):
        layer.weight.register_hook(lambda gradient: gradient * 2)
        layer.bias.register_hook(lambda gradient: gradient * 2)
        layer.weight.register_post_accumulate_grad_hook(lambda parameter: None)
        torch.set_default_dtype(torch.float64)
        y = layer(x)
        layer.requires_grad_(False)
        return y

    with restored(reachable(changes)):
        changes(torch.ones(3))
    assert torch.get_default_dtype() is torch.float32
    assert all(x.requires_grad for x in layer.parameters())
    assert not layer.weight._backward_hooks
    assert not layer.weight._post_accumulate_grad_hooks
    assert list((layer.bias._backward_hooks or {}).values()) == [kept]


def test_memory_shape_and_history_of_a_buffer_are_as_before():
    buffers = [torch.ones(3), torch.ones(3), torch.ones(3)]
    memory = [x.data_ptr() for x in buffers]

    def changes(x):
        first, second, third = buffers
        first.data = first * 2
        second.resize_(5)
        third.add_(x)

    with restored(reachable(changes)):
        changes(torch.ones(3, requires_grad=True))
    assert all(torch.equal(x, torch.ones(3)) and x.grad_fn is None for x in buffers)
    assert buffers[0].data_ptr() == memory[0]


def test_one_thing_that_cannot_be_put_back_does_not_stop_the_rest():
    class Stubborn(dict):
        def clear(self):
            raise RuntimeError("stubborn")

    held, weights, later = Stubborn(a=1), torch.zeros(3), []

    def changes(x):
        weights.add_(1)
        later.append(1)
        held["a"] = 2

    with pytest.raises(RuntimeError, match="stubborn"), restored(reachable(changes)):
        changes(None)
    assert torch.equal(weights, torch.zeros(3))
    assert later == []


def test_what_cannot_be_put_back_is_not_called_a_failure_of_the_function():
    class Stubborn(dict):
        def clear(self):
            raise RuntimeError("stubborn")

    held = Stubborn(a=1)

    def changes(x):
        held["a"] = 2
        return x * 2

    report = audit(changes, batches(), **FAST)
    assert not report.ok
    assert "stubborn" in str(report)
    assert "fails eagerly" not in str(report)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize(
    "make", [lambda: np.arange(3.0), lambda: [np.arange(3.0)], lambda: torch.jit.script(nn.Linear(3, 3))]
)
def test_odd_things_that_are_held_do_not_stop_the_audit(make):
    odd = make()

    def uses(x):
        return x * float(len(odd)) if not isinstance(odd, nn.Module) else x * 2

    class Holds(nn.Module):
        def __init__(self):
            super().__init__()
            self.odd = odd

        def forward(self, x):
            return uses(x)

    for function in (uses, Holds()):
        report = audit(function, batches(), **FAST)
        assert report.ok or isinstance(odd, nn.Module), str(report)  # torch compiles no scripted module
        assert not report.incomplete


def test_an_odd_object_ends_its_own_branch_of_the_walk_alone():
    class Odd:
        def __getattribute__(self, name):
            raise RuntimeError("odd")

    odd, weights = Odd(), torch.ones(3)

    def uses(x):
        return x * weights if odd else x

    assert any(x is weights for x in reachable(uses).tensors.values())
