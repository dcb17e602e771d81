"""Inputs on another device than the current one, and tensors on another than the inputs, without having either."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from compiled_loss.audit.places import Finder
from compiled_loss.audit.reach import reachable
from compiled_loss.audit.simulated.modes import Flights, Operators
from compiled_loss.audit.simulated.simulation import simulation
from compiled_loss.audit.simulated.tensor import DEVICE, Home, SimulatedTensor, to_device
from compiled_loss.audit.stages import gpu
from compiled_loss.audit.stages.subject import Result, Subject

_aten = torch.ops.aten
SECOND = torch.device("cuda:1")


def on(device: str) -> Tensor:
    with FakeTensorMode():
        return torch.empty(3, device=device)


def subject_of(*batch: Any) -> Subject:
    state = reachable(torch.sin, [x for x in batch if not isinstance(x, Tensor)])
    return Subject(torch.sin, [batch], state, Finder(), True, 1, "eager", None, None)


@pytest.fixture
def entered(monkeypatch):
    """Devices that were made the current one while the stage ran."""
    devices: list[torch.device] = []

    class Current:
        def __init__(self, device: torch.device) -> None:
            self.device = device

        def __enter__(self) -> None:
            devices.append(self.device)

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device", Current)
    monkeypatch.setattr(gpu, "_confirm", lambda subject: Result([]))
    return devices


def test_the_gpu_stage_runs_where_the_batches_are(entered):
    assert not gpu.confirm_on_gpu(subject_of(on("cuda:1"), {"x": on("cuda:1")})).skipped
    assert entered == [SECOND]


class Holds:
    def __init__(self, x: Tensor) -> None:
        self.x = x


@pytest.mark.parametrize(
    ("batch", "why"),
    [
        ((on("cuda:0"), on("cuda:1")), "on several devices: cuda:0, cuda:1"),
        ((on("cuda:0"), on("cpu")), "not on a CUDA device"),
        ((Holds(on("cpu")),), "not on a CUDA device"),
        ((on("cuda:0"), Holds(on("cuda:1"))), "on several devices"),
        ((), "not on a CUDA device"),
    ],
)
def test_the_gpu_stage_judges_no_other_batches(entered, batch, why):
    assert why in gpu.confirm_on_gpu(subject_of(*batch)).skipped
    assert not entered


def call(home: torch.device, func: Any, *args: Any, **kwargs: Any) -> tuple[Any, list[tuple[str, str]]]:
    """What an operator gives on the simulated device that stands for `home`, and what is said of it."""
    found: list[tuple[str, str]] = []
    operators = Operators(Flights(lambda *x: found.append(x)), Home(home), [])
    return operators.__torch_dispatch__(func, (), args, kwargs), found


def test_a_tensor_made_where_the_inputs_are_is_on_the_device():
    made, found = call(SECOND, _aten.zeros.default, [3], device=SECOND)
    assert isinstance(made, SimulatedTensor)
    assert not found


def test_a_tensor_made_on_another_device_is_not():
    made, found = call(SECOND, _aten.zeros.default, [3], device=torch.device("cuda:0"))
    assert not isinstance(made, SimulatedTensor)
    assert found == [("device", "a tensor is put on cuda:0, but the inputs are on cuda:1")]
    _, found = call(SECOND, _aten.add.Tensor, to_device(torch.ones(3)), made)
    assert [kind for kind, _ in found] == ["device"]


def test_a_copy_to_another_device_waits_for_nothing():
    x = to_device(torch.ones(3))
    assert [kind for kind, _ in call(SECOND, _aten._to_copy.default, x, device=torch.device("cuda:0"))[1]] == ["device"]
    assert [kind for kind, _ in call(SECOND, _aten._to_copy.default, x, device=torch.device("cpu"))[1]] == ["sync"]


def test_a_device_without_a_number_is_the_current_one(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "current_device_index", lambda: 1)
    assert Home(SECOND).has("cuda")
    assert not Home(torch.device("cuda:0")).has("cuda")
    assert Home(torch.device("cpu")).has("cpu")
    assert not Home(torch.device("cpu")).is_simulated("cpu")


def test_what_is_held_on_another_device_than_the_inputs_stays_there():
    held = {"x": torch.ones(3), "device": torch.device("cpu"), "home": SECOND}

    def function() -> Any:
        return held

    with simulation(lambda *_: None, reachable(function), SECOND, []):
        assert not isinstance(held["x"], SimulatedTensor)
        assert (held["device"], held["home"]) == (torch.device("cpu"), DEVICE)
    with simulation(lambda *_: None, reachable(function), torch.device("cpu"), []):
        assert isinstance(held["x"], SimulatedTensor)
        assert (held["device"], held["home"]) == (DEVICE, SECOND)


def test_an_argument_on_another_device_than_the_others_is_a_copy_of_its_own():
    x = torch.ones(3, requires_grad=True)
    with simulation(lambda *_: None, reachable(torch.sin), SECOND, [(x,)]) as (_, [(given,)]):
        assert not isinstance(given, SimulatedTensor)
        assert given is not x
        assert given.requires_grad
