"""An audit leaves the caller's process as it found it, and what the caller did before hides nothing from it."""

import contextlib
import random
import subprocess
import sys
from typing import Any

import pytest
import torch
import torch._inductor.config as inductor
from torch import nn
from torch._dynamo.callback import callback_handler
from torch._dynamo.utils import counters

from compiled_loss.audit import audit

FAST: dict[str, Any] = {"backend": "aot_eager"}


class Layer(nn.Module):
    """Draws random numbers and counts its calls, in a buffer and in its gradients."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return self.linear(x) * torch.rand(3) + self.calls


def breaks(x):
    torch._dynamo.graph_break()
    return x * random.random()


def batches():
    return [torch.randn(n, 3, requires_grad=True) for n in (5, 2, 7)]


def snapshot():
    return {
        "random numbers": torch.get_rng_state().tolist(),
        "python's random numbers": random.getstate(),
        "grad mode": torch.is_grad_enabled(),
        "anomaly mode": torch.is_anomaly_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "dynamo's settings": torch._dynamo.config.save_config(),
        "inductor's settings": inductor.save_config(),
        "callbacks": list(callback_handler.start_callbacks),
        "counters": {key: dict(value) for key, value in counters.items() if value},
        "default dtype": torch.get_default_dtype(),
    }


@pytest.mark.parametrize("function", [Layer(), breaks, lambda x: x[x > 0]], ids=["module", "break", "mask"])
@pytest.mark.parametrize("grad", [True, False])
def test_the_process_is_as_before(function, grad):
    given = batches()
    torch.compile(lambda x: x + 1, backend="eager")(torch.ones(3))  # something in the counters
    with torch.set_grad_enabled(grad):
        before = snapshot()
        audit(function, given, **FAST)
        assert snapshot() == before
    assert all(x.grad is None for x in given)


def test_a_module_keeps_its_buffers_parameters_and_gradients():
    layer = Layer()
    layer.linear.weight.grad = gradient = torch.ones(3, 3)
    before = {name: x.clone() for name, x in layer.state_dict().items()}
    audit(layer, batches(), **FAST)
    assert all(torch.equal(x, before[name]) for name, x in layer.state_dict().items())
    assert layer.linear.weight.grad is gradient
    assert bool((gradient == 1).all())
    assert layer.linear.bias.grad is None


def test_an_optimizer_keeps_its_state():
    layer = nn.Linear(3, 1)
    optimizer = torch.optim.Adam(layer.parameters())
    layer(torch.ones(3)).sum().backward()
    optimizer.step()
    weight, moment = layer.weight.detach().clone(), optimizer.state[layer.weight]["exp_avg"].clone()

    def step(x):
        optimizer.step()
        return layer(x).detach()

    audit(step, [torch.ones(3)] * 3, **FAST)
    assert torch.equal(layer.weight, weight)
    assert torch.equal(optimizer.state[layer.weight]["exp_avg"], moment)
    assert layer.weight.device.type == "cpu"


def test_the_stance_of_the_caller_neither_matters_nor_changes():
    with torch.compiler.set_stance("force_eager"):
        assert "graph-break" in audit(breaks, batches(), **FAST).counts()
        count = []
        torch.compile(lambda x: x + 1, backend=lambda graph, _: count.append(1) or graph)(torch.ones(3))
        assert not count


def test_what_was_compiled_before_hides_no_recompile():
    def branches_on_its_size(x):
        return x.sin() if x.shape[0] > 4 else x.cos()

    sizes = [torch.randn(n, 3) for n in (5, 7, 2)]
    warm = torch.compile(branches_on_its_size, backend="eager")
    for x in sizes:
        warm(x)
    first = audit(branches_on_its_size, sizes, **FAST)
    second = audit(branches_on_its_size, sizes, **FAST)
    assert first.counts() == second.counts() == {"recompile": 1}


@pytest.mark.skipif(
    "isolate_recompiles" not in (torch.compile.__kwdefaults__ or {}), reason="before torch 2.13 they compile once more"
)
def test_the_callers_compiled_functions_stay_compiled():
    def double(x):
        return x * 2

    compiles = []
    compiled = torch.compile(double, backend=lambda graph, _: compiles.append(1) or graph)
    compiled(torch.ones(3))
    audit(double, [torch.ones(3), torch.ones(4)], **FAST)
    compiled(torch.ones(3))
    assert len(compiles) == 1


def test_a_process_that_never_compiled_traces_torchs_own_functions_afterwards():
    program = """
import sys, torch
from compiled_loss.audit import audit

def asks(x):
    return x * 2 if torch.is_autocast_enabled("cpu") else x.sin()

assert "torch._dynamo" not in sys.modules
report = audit(asks, [torch.ones(3)], backend="aot_eager", skip=["numbers", "cudagraphs"])
assert report.ok, str(report)
torch.compile(asks, fullgraph=True, backend="eager")(torch.ones(3))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_function_that_fails_leaves_no_trace_either():
    layer = Layer()

    def fails(x):
        layer(x)
        if torch.compiler.is_compiling():
            return x.no_such_method()
        return x

    given, before = batches(), snapshot()
    with contextlib.suppress(Exception):
        audit(fails, given, **FAST)
    assert snapshot() == before
    assert layer.calls == 0
    assert type(layer.linear.weight) is nn.Parameter


def test_modules_and_optimizers_among_the_arguments_are_not_trained():
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    before = {name: x.clone() for name, x in model.state_dict().items()}
    groups = optimizer.param_groups

    def step(model, optimizer, x):
        optimizer.zero_grad()
        model(x).sum().backward()
        optimizer.step()
        return x * 1

    report = audit(step, [(model, optimizer, torch.randn(4, 3))] * 3, **FAST)
    assert "device" not in report.counts()
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())
    assert all(x.grad is None for x in model.parameters())
    assert optimizer.param_groups is groups
    assert groups[0]["params"][0] is model[0].weight
    assert not optimizer.state


def test_python_state_is_put_back():
    class Average:
        def __init__(self):
            self.value, self.steps, self.seen = None, 0, []

        def __call__(self, x):
            self.steps += 1
            self.value = x.detach() if self.value is None else 0.9 * self.value + 0.1 * x.detach()
            self.seen.append(self.value)
            return x * 2

    average = Average()
    audit(average, batches(), **FAST)
    assert (average.value, average.steps, average.seen) == (None, 0, [])


def test_a_buffer_that_is_bound_anew_is_put_back():
    layer = Layer()
    calls = layer.calls

    def run(x):
        layer.calls = layer.calls * 0.9 + 1
        return x * layer.calls

    assert "mismatch" not in audit(run, batches(), **FAST).counts()
    assert layer.calls is calls
