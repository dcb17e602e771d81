"""Our criterion put in the place of a class's own, in a stand-in of a trainer that builds its networks by itself."""

import copy
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from compiled_loss import TargetPlan
from compiled_loss.integrations.criterion import PLANNED, Criterion
from compiled_loss.integrations.ultralytics import compiled_criterion, install
from tests.integrations.stand_ins import example, stand_in


class Own:
    """A criterion that tells whose it is."""

    def __init__(self) -> None:
        self.updates = 0

    def update(self) -> None:
        self.updates += 1


def network_class(end_to_end: bool = False) -> type:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            made = stand_in(**({"one2one_cv2": 1} if end_to_end else {}))
            self.model, self.args = made.model, made.args
            self.args.epochs = 5
            self.criterion: Any = None

        def init_criterion(self) -> Any:
            return Own()

        def loss(self, batch: dict[str, Any], preds: Any) -> Any:
            if self.criterion is None:
                self.criterion = self.init_criterion()
            return self.criterion(preds, batch)

    return Network


class Wrapper:
    """What `train()` is called on: the trainer builds another network of the same class."""

    def __init__(self, kind: type) -> None:
        self.model = kind()
        self.callbacks: dict[str, list[Any]] = {"on_train_start": []}

    def add_callback(self, event: str, function: Any) -> None:
        self.callbacks[event].append(function)

    def train(self, epochs: int = 2, done: int = 0) -> SimpleNamespace:
        network = type(self.model)()
        average = copy.deepcopy(network)
        validator = SimpleNamespace(preprocess=lambda batch: dict(batch))
        trainer = SimpleNamespace(model=network, validator=validator, preprocess_batch=lambda batch: dict(batch))
        if done:
            network.criterion = network.init_criterion()
            network.criterion.updates = done - 1
            network.criterion.update()
        for callback in self.callbacks["on_train_start"]:
            callback(trainer)
        trainer.batches, trainer.items = [], []
        for epoch in range(done, epochs):
            preds, rows = example(epoch)
            batch = trainer.preprocess_batch({**rows, "img": torch.zeros(3, 3, 64, 96)})
            trainer.batches.append(batch)
            trainer.items.append(network.loss(batch, preds))
            network.criterion.update()
            with torch.no_grad():
                average.loss(validator.preprocess({**rows, "img": torch.zeros(3, 3, 64, 96)}), preds)
        trainer.average = average
        return trainer


class Plain(Wrapper):
    callbacks: ClassVar[Any] = None

    def __init__(self, kind: type) -> None:
        self.model = kind()


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
    assert kind.init_criterion is own
    assert network.criterion is before
    assert trained.criterion is None
    installation.uninstall()
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


def test_what_has_no_criterion_is_refused():
    for target in (dict, nn.Linear(2, 2), SimpleNamespace(model="yolo.onnx"), stand_in()):
        with pytest.raises(ValueError, match=r"init_criterion|model\.model\[-1\]|exported file"):
            install(target)
    with pytest.raises(ValueError, match="compile=True"):
        install(network_class(), mode="max-autotune")
