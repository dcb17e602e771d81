"""The training step as generated code, model and loss in one graph, gives every parameter the eager gradient.

A loss that passes alone is not enough: the code generator chooses layouts and orders for the graph as a whole.
"""

import pytest
from demo.run import prepare
from demo.settings import parse
from rich.console import Console

CASES = [("obb", "end2end"), ("pose", "dense"), ("segment", "dense")]


@pytest.mark.slow
@pytest.mark.thorough
@pytest.mark.parametrize(("task", "head"), CASES)
def test_every_parameter_gets_the_eager_gradient(tmp_path, monkeypatch, task, head):
    monkeypatch.setattr("demo.run.RENDERED_TRAIN", 8)
    monkeypatch.setattr("demo.run.RENDERED_HELD_OUT", 1)
    arguments = ["--task", task, "--head", head, "--batch-size", "4", "--steps", "1", "--out", str(tmp_path)]
    run = prepare(parse(arguments), Console(quiet=True))
    step, batch = run.step, run.batches.batch(0)
    step.model.train()

    def gradients(form):
        run.step.optimizer.zero_grad()
        form(*batch).total.backward()
        return {name: p.grad.double() for name, p in step.model.named_parameters() if p.grad is not None}

    expected, got = gradients(step._forward_loss), gradients(step.forward_loss)
    assert set(got) == set(expected) == {name for name, _ in step.model.named_parameters()}
    # A head without positives has no gradient at all.
    scales = {name: x.abs().max().clamp(min=1e-9) for name, x in expected.items()}
    errors = {name: ((got[name] - x).abs().max() / scales[name]).item() for name, x in expected.items()}
    # Batch norms take sums over all pixels away from each other, in float32.
    assert not {name: error for name, error in errors.items() if not error < 1e-3}
