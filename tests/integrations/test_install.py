"""Our criterion put in the place of a class's own, in a stand-in of a trainer that builds its networks by itself."""

import copy
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from compiled_loss import TargetPlan
from compiled_loss.integrations.bridge import announce_compilation
from compiled_loss.integrations.criterion import PLANNED, Criterion
from compiled_loss.integrations.ultralytics import compiled_criterion, install
from tests.integrations.stand_ins import DistillationModel, example, stand_in


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
    assert repr(first).endswith("1 criterion made, a later one is in force)")
    second.uninstall()
    assert repr(second) == "Installation(Network, eager, 2 criteria made, uninstalled)"
    first.uninstall()


@pytest.mark.parametrize("told", ["args", "class"])
def test_distillation_is_refused_when_it_starts(told):
    kind = network_class()
    wrapper, network = Wrapper(kind), kind()
    args = SimpleNamespace(distill_model="teacher.pt" if told == "args" else None)
    network = network if told == "args" else DistillationModel(kind(), network)
    trainer = SimpleNamespace(model=network, args=args, preprocess_batch=dict)
    with install(wrapper), pytest.raises(ValueError, match=r"^distill_model: .*which install does not replace"):
        wrapper.callbacks["on_train_start"][0](trainer)
    assert wrapper.callbacks["on_train_start"] == []


def test_a_trainer_without_a_teacher_and_one_of_another_class_are_left_alone():
    wrapper, other = Wrapper(network_class()), network_class()()
    with install(wrapper):
        wrapper.callbacks["on_train_start"][0](SimpleNamespace(model=other, args=SimpleNamespace(distill_model=None)))
    assert other.criterion is None


def head_class(head: Any) -> type:
    class Network(network_class()):
        def __init__(self) -> None:
            super().__init__()
            self.model = [head]

    return Network


# As heads that classify, and that match queries.
@pytest.mark.parametrize("head", [nn.Linear(2, 2), SimpleNamespace(nc=3, num_queries=300)], ids=["linear", "queries"])
def test_a_head_that_is_none_of_ours_is_refused_at_once(head):
    kind: Any = head_class(head)
    for target in (Wrapper(kind), Plain(kind), kind()):
        with pytest.raises(ValueError, match=r"^target: expected a head of boxes.* without (nc, )?reg_max, stride"):
            install(target)
    assert "init_criterion" not in vars(kind)
    with install(kind), pytest.raises(ValueError, match="model: expected a head of boxes"):
        kind().init_criterion()


def test_what_fails_leaves_the_class_as_it_was():
    kind: Any = network_class()
    network = kind()
    network.criterion, network.args.box = own = Own(), -1.0
    with pytest.raises(ValueError, match="box"):
        install(network)
    assert network.criterion is own[0]
    assert type(kind().init_criterion()) is Own


@pytest.mark.parametrize("given", ["yolo11n.yaml", Path("yolo11n.yaml")], ids=str)
def test_a_name_of_a_model_is_refused_with_the_line_that_works(given):
    with pytest.raises(ValueError, match=r"^target: expected what train\(\) is called on: pass YOLO\('yolo11n.yaml'\)"):
        install(given)


def test_an_unknown_backend_is_refused_at_once():
    for make in (install, compiled_criterion):
        with pytest.raises(ValueError, match=r"^backend: expected a backend of torch.compile.*got 'inductr'"):
            make(network_class()(), compile=True, backend="inductr")


@pytest.fixture
def unannounced():
    """As in a process in which no loss was compiled yet."""
    announce_compilation.cache_clear()
    logger = logging.getLogger("compiled_loss")
    before = logger.level
    yield logger
    logger.setLevel(before)
    announce_compilation()


ANNOUNCED = "the first step compiles the loss, which may take a minute or more"


def test_a_compilation_is_announced_once(unannounced, capsys):
    compiled, eager = (compiled_criterion(stand_in(), **x) for x in ({"compile": True, "backend": "eager"}, {}))
    preds, rows = example()
    eager(preds, rows)
    with torch.no_grad():
        compiled(preds, rows)
    assert capsys.readouterr().err == ""
    for _ in range(2):
        compiled(preds, rows)
    assert capsys.readouterr() == ("", f"compiled_loss: {ANNOUNCED}\n")


def test_a_trainer_announces_it_when_it_starts(unannounced, capsys):
    wrapper = Wrapper(network_class())
    with install(wrapper, compile=True):
        wrapper.train(epochs=0)
    assert capsys.readouterr().err == f"compiled_loss: {ANNOUNCED}\n"
    announce_compilation.cache_clear()
    with install(wrapper):
        wrapper.train(epochs=0)
    assert capsys.readouterr().err == ""


def test_the_announcement_goes_where_messages_are_listened_to(unannounced, capsys):
    told = list[str]()
    handler = logging.Handler()
    handler.emit = lambda record: told.append(f"{record.levelname} {record.getMessage()}")
    unannounced.addHandler(handler)
    try:
        unannounced.setLevel(logging.INFO)
        announce_compilation()
        announce_compilation.cache_clear()
        unannounced.setLevel(logging.WARNING)
        announce_compilation()
    finally:
        unannounced.removeHandler(handler)
    assert told == [f"INFO {ANNOUNCED}"]
    assert capsys.readouterr().err == ""


def test_what_has_no_criterion_is_refused():
    for target in (dict, nn.Linear(2, 2), SimpleNamespace(model="yolo.onnx"), stand_in()):
        with pytest.raises(ValueError, match=r"init_criterion|model\.model\[-1\]|exported file"):
            install(target)
    with pytest.raises(ValueError, match="compile=True"):
        install(network_class(), mode="max-autotune")
