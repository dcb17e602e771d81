"""Suppression of doubles, with a stand-in for torchvision, and with the real one where it is installed."""

import sys
from types import SimpleNamespace

import pytest
import torch

from compiled_loss import Detections, suppress

#                     a,     over a,     over a of another class, alone, weak, padding
BOXES = [[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 10], [20, 20, 30, 30], [50, 50, 60, 60], [0, 0, 0, 0]]
SCORES, LABELS = [0.9, 0.8, 0.7, 0.6, 0.2, 0.0], [0, 0, 1, 0, 0, 0]


def found() -> Detections:
    """Two images, the second without the first detection; keypoints tell which is which."""
    boxes, scores = torch.tensor([BOXES, BOXES], dtype=torch.float32), torch.tensor([SCORES, SCORES])
    scores[1, 0] = 0.0
    numbers = torch.arange(6.0).repeat(2, 1)
    labels = torch.tensor([LABELS, LABELS])
    return Detections(boxes, scores, labels, numbers.long(), numbers[..., None, None].expand(2, 6, 1, 2))


def greedy(boxes, scores, labels, overlap):
    """Inside each class, as `torchvision.ops.batched_nms` does it."""
    kept = []
    for i in scores.argsort(descending=True).tolist():
        low = torch.maximum(boxes[i, :2], boxes[kept, :2])
        shared = (torch.minimum(boxes[i, 2:], boxes[kept, 2:]) - low).clamp(min=0).prod(1)
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
        same = shared / (areas[i] + areas[kept] - shared) > overlap
        if not (same & (labels[kept] == labels[i])).any():
            kept.append(i)
    return torch.tensor(kept, dtype=torch.int64)


@pytest.fixture
def stand_in(monkeypatch):
    ops = SimpleNamespace(batched_nms=greedy)
    monkeypatch.setitem(sys.modules, "torchvision", SimpleNamespace(ops=ops))
    monkeypatch.setitem(sys.modules, "torchvision.ops", ops)


def assert_suppressed():
    first, second = suppress(found())
    assert first.anchors.tolist() == [0, 2, 3]
    assert first.scores.tolist() == pytest.approx([0.9, 0.7, 0.6])
    assert first.labels.tolist() == [0, 1, 0]
    assert first.boxes.tolist() == [BOXES[i] for i in (0, 2, 3)]
    assert first.keypoints is not None
    assert first.keypoints[:, 0, 0].tolist() == [0, 2, 3]
    assert first.masks is None
    assert second.anchors.tolist() == [1, 2, 3]
    weak, _ = suppress(found(), least_score=0.0, overlap=0.95)
    assert weak.anchors.tolist() == [0, 1, 2, 3, 4]
    assert [len(x.scores) for x in suppress(found(), least_score=1.0)] == [0, 0]


def test_weaker_doubles_of_a_class_go_and_padding_does(stand_in):
    assert_suppressed()


def test_the_real_one_leaves_the_same():
    pytest.importorskip("torchvision.ops", reason="torchvision is no dependency")
    assert_suppressed()


def test_without_torchvision_a_message_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision.ops", None)
    with pytest.raises(ImportError, match=r"^suppress needs a torchvision that .*: pip install torchvision \(Module"):
        suppress(found())


def test_a_torchvision_of_another_torch_is_named(monkeypatch):
    def load(name):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr("compiled_loss.suppression.importlib", SimpleNamespace(import_module=load))
    with pytest.raises(ImportError, match=r"pip install torchvision \(RuntimeError: operator torchvision"):
        suppress(found())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"overlap": 1.5}, r"overlap: expected a number in \[0, 1\], got 1.5"),
        ({"least_score": -0.1}, "least_score: expected a finite number of 0 or more, got -0.1"),
    ],
)
def test_numbers_out_of_range_are_refused(options, message, stand_in):
    with pytest.raises(ValueError, match=message):
        suppress(found(), **options)


def test_what_torchvision_does_not_suppress_is_refused(stand_in):
    oriented = found()._replace(boxes=torch.zeros(2, 6, 5))
    with pytest.raises(ValueError, match=r"detections.boxes: expected upright boxes \[B, k, 4\], got \(2, 6, 5\)"):
        suppress(oriented)
    with pytest.raises(ValueError, match="detections: expected Detections, got list"):
        suppress([oriented])  # type: ignore[arg-type]
