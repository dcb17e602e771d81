"""LibreYOLO's losses: ours beside what its own answered, recorded by `python -m tests.golden.libre record`."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from compiled_loss import Targets
from compiled_loss.integrations.libre_criteria import YOLOX, RTMDet, TwoBranches, YOLOv9
from compiled_loss.integrations.libreyolo import install
from tests.golden.libre import FILE, KINDS, SETTINGS, answer, call, cases, difference, our_criterion, own_of

ANSWERS = np.load(FILE)
kinds = pytest.mark.parametrize("kind", KINDS)


@kinds
def test_terms_and_gradients_are_those_of_its_own_loss(kind):
    for seed, case in enumerate(cases(kind, SETTINGS)):
        stored = {k.split("/", 2)[2]: ANSWERS[k] for k in ANSWERS.files if k.startswith(f"{kind}/{seed}/")}
        found = answer(kind, our_criterion(kind), case)
        assert set(found) == set(stored)
        assert difference(found, stored) < 1e-5


@kinds
def test_it_is_one_graph(kind, graph_audit):
    criterion = our_criterion(kind)
    one: Any = getattr(criterion, "dense", criterion)  # of an end-to-end head either branch
    seen: list[tuple[Any, ...]] = []

    def noted(*given: Any) -> Any:
        seen.append((_leaves(given),))
        return one.compute(*given)

    one.run = noted
    for case in cases(kind, SETTINGS):
        call(kind, criterion, case)
    graph_audit(lambda given: one.compute(*given)["total_loss"], seen, backend="aot_eager")


def _leaves(given: tuple[Any, ...]) -> tuple[Any, ...]:
    """The maps without what they were computed from; rows and sizes as they are."""

    def leaf(x: Any) -> Any:
        if isinstance(x, list):
            return [leaf(y) for y in x]
        if isinstance(x, Targets):
            return x.mark_dynamic()
        return x.detach().requires_grad_() if isinstance(x, torch.Tensor) else x

    return tuple(leaf(x) for x in given)


@kinds
def test_rows_that_are_planned_already_give_the_same(kind):
    case = next(cases(kind, SETTINGS))
    criterion = our_criterion(kind)
    expected = call(kind, criterion, case)
    planned = case._replace(targets=criterion.rows(case.targets, case.size))
    torch.testing.assert_close(call(kind, criterion, planned), expected, rtol=0, atol=0)


def test_slots_without_a_size_are_padding_and_wrong_shapes_are_refused():
    criterion = our_criterion("YOLOX")
    targets = torch.zeros(2, 3, 5)
    targets[1, 0] = torch.tensor([2.0, 32, 16, 8, 4])
    rows = criterion.rows(targets, (64, 128))
    real = rows.batch_idx >= 0
    assert (rows.batch_idx[real].tolist(), rows.labels[real].tolist()) == ([1], [2])
    assert rows.boxes[real].tolist() == [[0.25, 0.25, 0.0625, 0.0625]]
    with pytest.raises(ValueError, match=r"targets: expected shape \[B, M, 5\], got \(2, 3, 6\)"):
        criterion.rows(torch.zeros(2, 3, 6), (64, 128))
    targets[1, 0, 0] = 3.0
    with pytest.raises(ValueError, match=r"Targets\.labels: expected a class id in \[0, 3\), got 3"):
        criterion.rows(targets, (64, 128))


class Head(nn.Module):
    """A YOLOv9 head of one convolution a level, with the package's seam."""

    def __init__(self) -> None:
        super().__init__()
        self.levels = nn.ModuleList(nn.Conv2d(3, 67, s, s) for s in (8, 16, 32))

    def _get_loss_fn(self, device: Any) -> Any:
        return own_of("YOLOv9")

    def forward(self, x: torch.Tensor, targets: Any) -> Any:
        loss = self._get_loss_fn(x.device)
        loss.update_anchors([x.shape[3], x.shape[2]])
        return loss([level(x) for level in self.levels], targets)


class Network(nn.Module):
    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, x: torch.Tensor, targets: Any) -> Any:
        return self.head(x, targets)


def trainer_of(model: Any) -> type:
    """A class of trainers with the package's seams; it trains one step."""

    class Base:
        def __init__(self) -> None:
            self.model, self.seen = model, []

        def on_setup(self) -> None:
            self.seen.append("setup")

        def on_forward(self, imgs: Any, targets: Any, polygons: Any = None) -> Any:
            return self.model(imgs, targets)

        def _forward_train(self, imgs: Any, targets: Any, polygons: Any = None) -> Any:
            self.seen.append(type(targets))
            return self.on_forward(imgs, targets, polygons)

        def train(self) -> Any:
            self.on_setup()
            case = next(cases("YOLOv9", SETTINGS))
            return self._forward_train(torch.rand(3, 3, *case.size), case.targets)

    class Trainer(Base):
        def on_setup(self) -> None:
            super().on_setup()

    return Trainer


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # the tracer's own
@pytest.mark.parametrize("options", [{}, {"compile": True}, {"whole_step": True}], ids=str)
def test_a_trainer_trains_with_it_and_is_left_as_it_was(options):
    model = Network(Head())
    kind = trainer_of(model)
    before = dict(vars(kind))
    with install(kind, **options, backend="aot_eager" if options else "inductor") as installed:
        trainer = kind()
        torch.manual_seed(0)
        out = trainer.train()
        assert isinstance(installed.criteria[0], YOLOv9)
        assert out["total_loss"].requires_grad
        assert trainer.seen == (["setup"] if "whole_step" in options else ["setup", Targets])
        assert "_get_loss_fn" not in vars(model.head)
    assert {k: v for k, v in vars(kind).items() if k != "__dict__"} == {
        k: v for k, v in before.items() if k != "__dict__"
    }


def test_of_several_installations_the_latest_counts_and_each_can_end_first():
    model = Network(Head())
    kind = trainer_of(model)
    own = dict(vars(kind))
    with install(kind) as outer:
        with install(kind) as inner:
            assert kind().train()["total_loss"].requires_grad
            assert (len(outer.criteria), len(inner.criteria)) == (0, 1)
        kind().train()
        assert (len(outer.criteria), len(inner.criteria)) == (1, 1)
    first, second = install(kind), install(kind)
    first.uninstall()
    trainer = kind()
    trainer.train()
    assert trainer.seen == ["setup", Targets]
    assert repr(second) == "Installation(Trainer, eager, 1 criterion made)"
    second.uninstall()
    for name in ("on_setup", "train", "_forward_train"):
        assert vars(kind).get(name) is own.get(name)


def test_all_seams_are_found_and_others_refused():
    class YoloxHead(nn.Module):
        num_classes, strides, use_l1 = 3, [8, 16, 32], False

        def get_losses(self) -> None: ...

    class E2EHead(nn.Module):
        def _get_loss_fn(self, device: Any) -> Any:
            return own_of("YOLOv9 end to end")

        def forward(self, x: Any) -> Any:
            return x

    for head, wanted in ((YoloxHead(), YOLOX), (E2EHead(), TwoBranches), (None, RTMDet)):
        model: Any = nn.Linear(1, 1)
        model.head = head
        kind = trainer_of(model)
        with install(kind) as installed:
            trainer = kind()
            if wanted is RTMDet:
                trainer._loss_fn, trainer._loss_from_head = own_of("RTMDet"), None
            trainer.on_setup()
            assert isinstance(installed.criteria[0], wanted)
    kind = trainer_of(nn.Linear(1, 1))
    with install(kind), pytest.raises(ValueError, match="trainer: expected a trainer of YOLOv9, YOLOX or RTMDet"):
        kind().on_setup()
    with pytest.raises(ValueError, match="backend, mode, dynamic: expected compile=True or whole_step=True"):
        install(kind, backend="aot_eager")
    with pytest.raises(ValueError, match="trainer: expected a class of LibreYOLO's trainers, got SimpleNamespace"):
        install(SimpleNamespace())  # type: ignore[arg-type]


def test_the_l1_term_of_yolox_waits_for_its_trainer():
    case = next(cases("YOLOX", SETTINGS))
    criterion = our_criterion("YOLOX")
    with_it = call("YOLOX", criterion, case)
    criterion.head.use_l1 = False
    without = call("YOLOX", criterion, case)
    assert without["l1_loss"] == 0 < with_it["l1_loss"]
    torch.testing.assert_close(without["total_loss"] + with_it["l1_loss"], with_it["total_loss"])
