"""Tensors are seen in whatever holds them: an argument, or what a function keeps."""

import argparse
import collections
import contextvars
import dataclasses
import functools
import queue
import threading
import types
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from compiled_loss.audit import STAGES, audit

OTHERS = [x for x in STAGES if x not in ("eager", "device", "export")]


class Own:
    def __init__(self, **held: Any) -> None:
        vars(self).update(held)


class OwnDict(dict[str, Any]):
    pass


class OwnList(list[Any]):
    pass


class OwnTuple(tuple[Any, ...]):
    __slots__ = ()


class Pair(collections.namedtuple("Pair", "x y")):
    __slots__ = ()


class Slotted:
    __slots__ = ("x",)

    def __init__(self, x: Any) -> None:
        self.x = x


@dataclasses.dataclass
class Settings:
    scale: float = 1.0


def with_attribute(holder: Any, x: Any) -> Any:
    holder.x = x
    return holder


def array(x: Any) -> Any:
    made = np.empty((2, 1), dtype=object)
    made[1, 0] = x
    return made


def variable(x: Any) -> Any:
    made: contextvars.ContextVar[Any] = contextvars.ContextVar("held")
    made.set(x)
    return made


def of_class(x: Any) -> Any:
    return type("Settings", (), {"x": types.SimpleNamespace(x=x)})()


def deep(x: Any) -> Any:
    return {"a": [types.SimpleNamespace(b=types.MappingProxyType({"c": (x, frozenset([1]))}))]}


Holder = tuple[Callable[[Any], Any], Callable[[Any], Any]]
HOLDERS: dict[str, Holder] = {
    "SimpleNamespace": (lambda x: types.SimpleNamespace(x=x), lambda h: h.x),
    "Namespace": (lambda x: argparse.Namespace(x=x), lambda h: h.x),
    "an object": (lambda x: Own(x=x), lambda h: h.x),
    "an object with slots": (Slotted, lambda h: h.x),
    "an attribute of a dataclass": (lambda x: with_attribute(Settings(), x), lambda h: h.x),
    "MappingProxyType": (lambda x: types.MappingProxyType({"x": x}), lambda h: h["x"]),
    "ChainMap": (lambda x: collections.ChainMap({}, {"x": x}), lambda h: h["x"]),
    "UserDict": (lambda x: collections.UserDict(x=x), lambda h: h["x"]),
    "UserList": (lambda x: collections.UserList([x]), lambda h: h[0]),
    "OrderedDict": (lambda x: collections.OrderedDict(x=x), lambda h: h["x"]),
    "defaultdict": (lambda x: collections.defaultdict(list, x=x), lambda h: h["x"]),
    "deque": (lambda x: collections.deque([x]), lambda h: h[0]),
    "a dict of one's own": (lambda x: OwnDict(x=x), lambda h: h["x"]),
    "an attribute of a dict": (lambda x: with_attribute(OwnDict(), x), lambda h: h.x),
    "a list of one's own": (lambda x: OwnList([x]), lambda h: h[0]),
    "a tuple of one's own": (lambda x: OwnTuple((x,)), lambda h: h[0]),
    "a tuple in an object": (lambda x: Own(x=(1, x)), lambda h: h.x[1]),
    "a named tuple in an object": (lambda x: Own(x=Pair(x, 1)), lambda h: h.x.x),
    "set": (lambda x: {x}, lambda h: next(iter(h))),
    "frozenset": (lambda x: frozenset([x]), lambda h: next(iter(h))),
    "a frozenset in a namespace": (lambda x: types.SimpleNamespace(x=frozenset([x])), lambda h: next(iter(h.x))),
    "an array of objects": (array, lambda h: h[1, 0]),
    "an array in a namespace": (lambda x: types.SimpleNamespace(x=array(x)), lambda h: h.x[1, 0]),
    "a partial function": (lambda x: functools.partial(lambda y: y, x), lambda h: h()),
    "a closure": (lambda x: lambda: x, lambda h: h()),
    "ContextVar": (variable, lambda h: h.get()),
    "local": (lambda x: with_attribute(threading.local(), x), lambda h: h.x),
    "a distribution": (lambda x: torch.distributions.Normal(x, 1.0, validate_args=False), lambda h: h.loc),
    "an attribute of a class": (of_class, lambda h: h.x.x),
    "a class that holds names": (lambda x: type("Names", (), {"x": (x,)}), lambda h: h.x[0]),
    "a static method": (lambda x: type("Has", (), {"get": staticmethod(lambda: x)})(), lambda h: h.get()),
    "a property": (lambda x: type("Has", (), {"x": property(lambda _: x)})(), lambda h: h.x),
    "several in each other": (deep, lambda h: h["a"][0].b["c"][0]),
}


def reads(x: Tensor) -> Tensor:
    return x * 2 if float(x.sum()) > -1e9 else x


def takes_a_list(x: Tensor) -> Tensor:
    return x * len(x.tolist())


def drops(x: Tensor) -> Tensor:
    return x[x > 0].sum()


def copies_to_the_host(x: Tensor) -> Tensor:
    return x.to("cpu").sum() * 2


def meets_the_host(x: Tensor) -> Tensor:
    return x * torch.ones(4)


def clean(x: Tensor) -> Tensor:
    return x * torch.ones(4, device=x.device)


FUNCTIONS = {
    reads: {"sync": 1},
    takes_a_list: {"sync": 1},
    drops: {"dynamic-size": 1},
    copies_to_the_host: {"sync": 1},
    meets_the_host: {"device": 1},
    clean: {},
}


def counts(function: Callable[..., Any], *batch: Any) -> dict[str, int]:
    report = audit(function, [batch], skip=OTHERS)
    assert not report.incomplete, str(report)
    return report.counts()


@pytest.mark.parametrize("name", HOLDERS)
def test_a_tensor_that_an_argument_holds_is_on_the_device(name):
    make, get = HOLDERS[name]
    for function, expected in FUNCTIONS.items():
        x = torch.ones(4)
        held = make(x)
        assert counts(lambda h, f=function: f(get(h)), held) == expected, function.__name__
        assert get(held) is x


@pytest.mark.parametrize("name", HOLDERS)
def test_a_tensor_that_a_function_keeps_is_on_the_device(name):
    make, get = HOLDERS[name]
    for function, expected in FUNCTIONS.items():
        x = torch.ones(4)
        held = make(x)
        assert counts(lambda y, f=function, h=held: f(get(h)) + y, torch.ones(4)) == expected, function.__name__
        assert get(held) is x


@pytest.mark.parametrize("name", HOLDERS)
def test_a_tensor_that_is_held_gets_its_values_back_and_no_gradient(name):
    make, get = HOLDERS[name]
    average, weight = torch.zeros(4), torch.ones(4, requires_grad=True)
    kept, learnt = make(average), make(weight)

    def step(x: Tensor) -> Tensor:
        get(kept).mul_(0.9).add_(x.detach())
        return x * get(learnt)

    assert not counts(step, torch.ones(4))
    assert not average.any()
    assert weight.grad is None


def test_two_closures_may_give_their_tensors_the_same_name():
    def keeps(x: Tensor) -> Callable[[], Tensor]:
        return lambda: x

    first, second = keeps(torch.zeros(4)), keeps(torch.zeros(4))
    assert not counts(lambda y: first().add_(1) + second().add_(2) + y, torch.ones(4))
    assert not first().any()
    assert not second().any()


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda x: iter([x, x, x]), "builtins.list_iterator"),
        (lambda x: {"x": x}.values(), "builtins.dict_values"),
        (lambda x: (y for y in [x]), "builtins.generator"),
        (lambda x: [x].index, "builtins.builtin_function_or_method"),
        (lambda x: weakref.ref(x), "weakref.ReferenceType"),
        (lambda x: with_attribute(queue.Queue(), [x]), "queue.Queue"),
    ],
)
def test_an_argument_that_hides_a_tensor_is_no_pass(make, name):
    x = torch.ones(4)
    report = audit(lambda held: torch.ones(4), [(make(x),)], skip=OTHERS)
    assert not report.ok
    assert f"is given {name}, in which the audit cannot find tensors" in " ".join(str(report).split())
    kept = make(x)
    report = audit(lambda y: y * 2 if kept else y, [torch.ones(4)], skip=OTHERS)
    assert f"holds {name}, in which the audit cannot find tensors" in " ".join(str(report).split())


@pytest.mark.parametrize("argument", [3, "text", None, np.ones(3), torch.Generator(), Own(), [1, {}], slice(1)])
def test_an_argument_that_hides_nothing_is_not_blamed(argument):
    assert audit(lambda x, other: x * 2, [(torch.ones(4), argument)], skip=OTHERS).ok
