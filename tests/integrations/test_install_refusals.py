"""What `install` refuses, by name and as early as it can be seen, and what it leaves behind then."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

from compiled_loss.integrations.ultralytics import compiled_criterion, install
from tests.integrations.stand_in_trainers import DistillationModel, Own, Plain, Wrapper, network_class
from tests.integrations.stand_ins import stand_in


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


def test_what_has_no_criterion_is_refused():
    for target in (dict, nn.Linear(2, 2), SimpleNamespace(model="yolo.onnx"), stand_in()):
        with pytest.raises(ValueError, match=r"init_criterion|model\.model\[-1\]|exported file"):
            install(target)
    with pytest.raises(ValueError, match="compile=True"):
        install(network_class(), mode="max-autotune")
