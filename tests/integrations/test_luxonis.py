"""The loss for luxonis-train, without the package: against what its own loss answered, and as one graph."""

import copy
import json
import pickle
import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

from compiled_loss.audit import audit
from compiled_loss.integrations import luxonis
from compiled_loss.integrations.luxonis import Criterion
from tests.integrations.luxonis_cases import ANSWERS, CLASSES, COUNTS, REG_MAX, STRIDES, answer, batches, make_batch

STORED = json.loads(ANSWERS.read_text())
CASES = [(skip, i) for skip in (False, True) for i in range(len(COUNTS) * 2)]


def criterion(**options) -> Criterion:
    return Criterion(CLASSES, STRIDES, REG_MAX, **options)


@pytest.mark.parametrize(("skip", "case"), CASES)
def test_it_says_what_the_trainers_own_loss_said(skip, case):
    right, found = STORED[f"skip_stal={skip}"][case], answer(criterion(skip_stal=skip), batches()[case])
    assert found["total"] == pytest.approx(right["total"], rel=1e-5)
    assert list(found["terms"]) == list(right["terms"])
    assert found["terms"] == pytest.approx(right["terms"], rel=1e-5, abs=1e-6)
    for got, wanted in zip(found["gradients"], right["gradients"], strict=True):
        assert got == pytest.approx(wanted, rel=1e-5, abs=1e-5 * wanted[0])


def test_small_boxes_make_the_difference_between_the_two_rules():
    batch = make_batch(0, (4, 4, 4))
    grown, as_they_are = (answer(criterion(skip_stal=skip), batch) for skip in (False, True))
    assert grown["terms"]["iou"] != pytest.approx(as_they_are["terms"]["iou"], rel=1e-3)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # the tracer's own look
def test_compiled_it_is_one_graph_whatever_the_rows():
    counter = CompileCounterWithBackend("aot_eager")
    eager, compiled = criterion(), criterion(compile=True, backend=counter)
    torch.compiler.reset()
    for seed, counts in enumerate([(4, 0, 3), (0, 0, 0), (1, 0, 0), (4, 4, 4)]):
        batch = make_batch(seed, counts)
        found, right = answer(compiled, batch), answer(eager, batch)
        assert found["total"] == pytest.approx(right["total"], rel=1e-5)
        assert found["terms"] == pytest.approx(right["terms"], rel=1e-5, abs=1e-6)
        for got, wanted in zip(found["gradients"], right["gradients"], strict=True):
            assert got == pytest.approx(wanted, rel=1e-5, abs=1e-5 * wanted[0])
    assert counter.frame_count == 1


def test_the_audit_finds_one_graph_without_waits():
    plain = criterion()
    given = []
    for seed, counts in enumerate(COUNTS):
        features, target = make_batch(seed, counts)
        predictions = luxonis.join_levels([x.requires_grad_() for x in features], REG_MAX, CLASSES)
        given.append((predictions, luxonis.plan_beside(predictions, plain.targets(target), plain.loss, compiled=True)))
    audit(plain.loss, given, warmup=1, backend="aot_eager", tolerance=1e-5).raise_if_failed()


def test_an_unknown_backend_is_refused_at_once():
    with pytest.raises(ValueError, match=r"^backend: expected a backend of torch\.compile"):
        criterion(compile=True, backend="inductr")


def test_a_pass_without_gradients_is_eager():
    batch, compiled = make_batch(0, (4, 0, 3)), criterion(compile=True, backend=lambda *_: pytest.fail("it compiled"))
    with torch.no_grad():
        total, _ = compiled(*batch)
    torch.testing.assert_close(total, criterion()(*batch)[0])


def test_a_copy_is_still_compiled():
    compiled = criterion(compile=True, backend="aot_eager")
    assert pickle.loads(pickle.dumps(compiled)).loss._compiled_call_impl is not None
    other = copy.deepcopy(compiled)
    assert other.loss._compiled_call_impl is not None
    assert other.loss is not compiled.loss


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda maps, rows: (maps, rows[:, :5]), r"target: expected shape \[N, 6\]"),
        (lambda maps, rows: ([], rows), "features: expected one map for each level, got none"),
        (lambda maps, rows: ([x[:, 1:] for x in maps], rows), r"features\[0\]: expected"),
        (lambda maps, rows: (maps, rows + torch.tensor([0.5, 0, 0, 0, 0, 0])), r"target\[:, 0\]: expected whole"),
        (lambda maps, rows: (maps, rows + torch.tensor([3.0, 0, 0, 0, 0, 0])), r"batch_idx: expected .* got 3"),
        (lambda maps, rows: (maps, rows * 128), "expected"),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        criterion()(*change(*make_batch(0, (4, 0, 3))))


def test_one_bin_is_refused():
    with pytest.raises(ValueError, match="reg_max: expected 2 or more"):
        Criterion(CLASSES, STRIDES, 1)


class StandIn(nn.Module):
    """What the trainer's base loss offers a subclass."""

    def __init__(self, final_loss_weight: float = 1.0, node: Any = None):
        super().__init__()
        self.node, self.final_loss_weight = node, final_loss_weight

    @property
    def n_classes(self) -> int:
        return self.node.n_classes


def test_registering_makes_a_loss_of_the_trainers_kind(monkeypatch):
    trainer, nodes = ModuleType("luxonis_train"), ModuleType("luxonis_train.nodes")
    head = type("Head", (), {"n_classes": CLASSES, "stride": torch.tensor(STRIDES), "reg_max": REG_MAX})
    vars(trainer).update(BaseLoss=StandIn, Tasks=type("Tasks", (), {"BOUNDINGBOX": "boundingbox"}))
    vars(nodes).update(PrecisionBBoxHead=head)
    monkeypatch.setitem(sys.modules, "luxonis_train", trainer)
    monkeypatch.setitem(sys.modules, "luxonis_train.nodes", nodes)
    monkeypatch.setattr(luxonis, "CompiledDetectionLoss", None, raising=False)
    monkeypatch.delattr(luxonis, "CompiledDetectionLoss")

    kind = luxonis.register()
    assert kind is luxonis.register()
    assert kind.__annotations__["node"] is head
    loss, batch = kind(final_loss_weight=2.0, node=head(), skip_stal=True, tal_topk=7), make_batch(0, (4, 0, 3))
    assert loss.final_loss_weight == 2.0
    assert answer(loss, batch) == answer(criterion(skip_stal=True, tal_topk=7), batch)
    with pytest.raises(TypeError, match="topk"):
        kind(node=head(), topk=7)
