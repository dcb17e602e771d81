"""Training in numpy by the gradient graph follows training in torch."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from compiled_loss import DetectionLoss, Predictions, Targets, exporting
from compiled_loss.exporting import Setting
from export.consumers.python import train as consumer

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    """The gradient graph of a small detection loss."""
    path = tmp_path_factory.mktemp("gradients") / "loss.onnx"
    exporting.export_loss(DetectionLoss(3), path, Setting((64, 96)), gradients=True)
    return path


def train_in_torch(facts: consumer.Facts, steps: int, rate: float) -> list[float]:
    images, rows = consumer.render(np.random.default_rng(0), 8, facts)
    features = consumer.see(images, facts)
    weights = [torch.tensor(x, requires_grad=True) for x in consumer.first_weights(features, facts)]
    optimizer = torch.optim.SGD(weights, lr=rate, momentum=consumer.MOMENTUM)
    batch_idx, labels, boxes = (torch.tensor(rows[name]) for name in ("batch_idx", "cls", "boxes"))
    targets = Targets(batch_idx, labels, boxes)
    height, width = facts.image_size
    grids = tuple((height // s, width // s) for s in facts.strides)
    criterion, losses = DetectionLoss(facts.classes, facts.strides, reg_max=facts.reg_max), []
    for _ in range(steps):
        raw = torch.cat([torch.tensor(x) @ w for x, w in zip(features, weights, strict=True)], 1).transpose(1, 2)
        boxes, scores = raw.split([4 * facts.reg_max, facts.classes], 1)
        out = criterion(Predictions(boxes, scores, grids), targets)
        optimizer.zero_grad()
        out.total.backward()
        optimizer.step()
        losses.append(out.total.item())
    return losses


def test_the_loss_falls_as_it_does_in_torch(graph):
    session, facts = consumer.open_graph(str(graph))
    losses = consumer.train(session, facts, steps=40, rate=0.001)
    expected = train_in_torch(facts, steps=40, rate=0.001)
    assert losses[-1] < losses[0] / 2
    # Rounding alone parts the two; early on nothing has amplified it yet.
    assert losses[:10] == pytest.approx(expected[:10], rel=1e-4)
    assert losses == pytest.approx(expected, rel=2e-2)


def test_the_program_runs_without_torch(graph):
    command = [sys.executable, "export/consumers/python/train.py", str(graph), "--steps", "40"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "it has halved" in done.stdout
    assert "torch imported: False" in done.stdout


def refusal(capsys, *arguments):
    with pytest.raises(SystemExit) as end:
        consumer.main([str(x) for x in arguments])
    assert end.value.code == 2
    return capsys.readouterr().err


def test_a_wrong_file_is_refused(graph, capsys, tmp_path):
    assert "no file" in refusal(capsys, tmp_path / "none.onnx")
    path = tmp_path / "wrong.onnx"
    path.write_bytes(graph.read_bytes()[:1000])
    assert f"{path}: no file that onnxruntime can read" in refusal(capsys, path)
    model = onnx.load(graph)
    (constants,) = (x for x in model.metadata_props if x.key == "constants")
    model.metadata_props.remove(constants)
    onnx.save(model, path)
    assert f"{path}: expected the constants of a loss, got KeyError" in refusal(capsys, path)


def test_a_wrong_seed_is_refused(capsys):
    assert "--seed: expected 0 or more, got -1" in refusal(capsys, "--seed", "-1")
