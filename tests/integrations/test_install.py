"""Our criterion put in the place of a class's own, in a stand-in of a trainer that builds its networks by itself."""

import importlib
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from compiled_loss import TargetPlan, torch_private
from compiled_loss.integrations.bridge import call_compiled
from compiled_loss.integrations.criterion import PLANNED, Criterion
from compiled_loss.integrations.ultralytics import compiled_criterion, install
from compiled_loss.torch_private import collect_compiles
from tests.integrations.stand_in_trainers import Own, Plain, Wrapper, network_class
from tests.integrations.stand_ins import example, stand_in


def test_a_trainers_own_network_and_its_average_train_with_ours():
    kind = network_class()
    wrapper = Wrapper(kind)
    installation = install(wrapper)
    trainer = wrapper.train()
    assert [type(x.criterion) for x in (trainer.model, trainer.average)] == [Criterion] * 2
    assert installation.criteria == [trainer.model.criterion, trainer.average.criterion]
    for epoch, (vector, items) in enumerate(trainer.items):
        expected, expected_items = compiled_criterion(stand_in())(*example(epoch))
        torch.testing.assert_close(vector, expected)
        torch.testing.assert_close(items, expected_items)


def test_rows_are_planned_before_they_are_moved():
    wrapper = Wrapper(network_class())
    install(wrapper, plan=TargetPlan((320, 320), rows=32, pages=64))
    batch = wrapper.train().batches[0]
    targets = batch[PLANNED]
    assert (len(targets.labels), len(targets.pages), targets.is_sorted) == (32, 64, True)
    assert int((targets.batch_idx >= 0).sum()) == len(batch["cls"])


def test_a_resumed_run_goes_on_with_its_schedule():
    wrapper = Wrapper(network_class(end_to_end=True))
    installation = install(wrapper)
    trainer = wrapper.train(epochs=3, done=3)
    assert trainer.model.criterion is installation.criteria[0]
    loss: Any = installation.criteria[0].loss
    assert round(loss.share.item(), 4) == 0.275  # 0.1 + 0.7 (1 - 3 / 4)
    network: Any = wrapper.model
    network.criterion = Own()
    network.criterion.updates = 2
    install(network)
    assert (type(network.criterion), network.criterion.updates) == (Criterion, 2)


def test_uninstalled_nothing_is_left():
    kind: Any = network_class()
    own = kind.init_criterion
    wrapper, network = Wrapper(kind), kind()
    network.criterion = before = Own()
    installation = install(wrapper)
    again = install(network, compile=True)
    assert not installation.installed
    assert again.installed
    trained = kind()
    trained.criterion = trained.init_criterion()
    again.uninstall()
    again.uninstall()
    assert installation.installed
    assert network.criterion is before
    assert trained.criterion is None
    installation.uninstall()
    assert kind.init_criterion is own
    assert wrapper.callbacks["on_train_start"] == []
    assert type(wrapper.train(epochs=0).model.init_criterion()) is Own


def test_a_context_manager_ends_it_and_a_class_that_inherits_gets_nothing_of_its_own():
    class Special(network_class()):
        pass

    with install(Special) as installation:
        assert type(Special().init_criterion()) is Criterion
    assert not installation.installed
    assert "init_criterion" not in vars(Special)
    assert type(Special().init_criterion()) is Own


def test_networks_in_wrappers_and_trainers_without_callbacks():
    kind = network_class()
    for target in (kind, kind(), SimpleNamespace(module=kind()), Plain(kind)):
        with install(target) as installation:
            assert installation.kind is kind
            assert type(kind().init_criterion()) is Criterion


def test_nested_installations_end_one_by_one():
    kind: Any = network_class()
    with install(kind) as outer:
        with install(kind) as inner:
            assert (outer.installed, inner.installed) == (False, True)
            kind().init_criterion()
        assert outer.installed
        kind().init_criterion()
    assert [len(x.criteria) for x in (outer, inner)] == [1, 1]
    assert type(kind().init_criterion()) is Own


@pytest.mark.parametrize("first", [0, 1])
def test_two_installations_end_in_either_order(first):
    kind: Any = network_class()
    network = kind()
    network.criterion = own = Own()
    both = [install(network), install(network)]
    made = [x.criteria[0] for x in both]
    assert network.criterion is made[1]
    assert [x.installed for x in both] == [False, True]
    ended, left = both[first], both[1 - first]
    ended.uninstall()
    assert left.installed
    assert network.criterion is left.criteria[0]
    kind().init_criterion()
    assert (len(left.criteria), len(ended.criteria)) == (2, 1)
    left.uninstall()
    assert network.criterion is own
    assert type(kind().init_criterion()) is Own


def test_of_two_installations_for_one_trainer_the_latest_plans_its_rows():
    wrapper = Wrapper(network_class())
    first, second = install(wrapper, plan=TargetPlan((320, 320), rows=32, pages=64)), install(wrapper)
    assert len(wrapper.train().batches[0][PLANNED].labels) == 16
    second.uninstall()
    assert len(wrapper.train().batches[0][PLANNED].labels) == 32
    assert [len(x.criteria) for x in (first, second)] == [2, 2]


def test_an_installation_tells_of_itself():
    kind: Any = network_class()
    first = install(kind, compile=True)
    kind().init_criterion()
    assert repr(first) == "Installation(Network, compiled by inductor, 1 criterion made)"
    second = install(kind)
    for _ in range(2):
        kind().init_criterion()
    assert repr(second) == "Installation(Network, eager, 2 criteria made)"
    assert repr(first).endswith("1 criterion made, replaced by a later one)")
    second.uninstall()
    assert repr(second) == "Installation(Network, eager, 2 criteria made, uninstalled)"
    first.uninstall()


def test_equal_sizes_are_told_apart_where_torch_can(monkeypatch):
    def compiles() -> int:
        torch.compiler.reset()
        add = torch.compile(lambda x, y: x[:, :3] + y, backend="eager", dynamic=True)
        with collect_compiles() as found:
            for size in (3, 5):
                call_compiled(add, torch.ones(size, 3), torch.ones(3))
        return len(found)

    config: Any = importlib.import_module("torch.fx.experimental._config")
    assert compiles() == 1
    assert config.use_duck_shape
    monkeypatch.setitem(torch_private._INTERFACES, "equal sizes", "torch.fx.experimental._config:no_such_switch")
    assert compiles() == 2


def test_another_number_of_images_or_size_compiles_nothing():
    kind: Any = network_class()
    with install(kind, compile=True, backend="aot_eager"):
        network = kind()
        network.model[-1].nc = 4
        criterion, eager = network.init_criterion(), compiled_criterion(network)
    seen = []
    # First as many images as there are classes, and sides of a box: torch would take these sizes for one.
    for counts, size in ((1, 0, 3, 2), (64, 96)), ((2, 5), (64, 96)), ((4, 0, 3), (96, 96)), ((1,) * 16, (64, 128)):
        preds, batch = example(1, counts, size, num_classes=4)
        maps = [x.requires_grad_() for name, x in preds.items() if name != "feats"]
        with collect_compiles() as compiles:
            vector, _ = criterion(preds, batch)
            vector.sum().backward()
        seen.append(len(compiles))
        assert all(x.grad is not None for x in maps)
        torch.testing.assert_close(vector, eager(preds, batch)[0])
    assert seen[0] > 0
    assert seen[1:] == [0, 0, 0]
