"""The corpus: what is expected agrees with the reference's recorded answers, and any reader of its format reads it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from compiled_loss.exporting.corpus import golden
from compiled_loss.exporting.corpus.answers import answers
from compiled_loss.exporting.corpus.golden import cases
from compiled_loss.exporting.verifying.compare import TOLERANCE, error_of
from export.consumers.corpus import run
from tests.export.programs import export
from tests.reference.flow import LearntDensity

RUNNER = Path(run.__file__)
CASES = list(cases())


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """The corpus as a folder."""
    folder = tmp_path_factory.mktemp("corpus") / "new"
    assert export("corpus", "--out", folder) == 0
    return folder


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_is_expected_agrees_with_what_the_reference_answered(case):
    found = answers(case)
    if case.ties:
        assert not torch.equal(found["positives"], case.reference["positives"])
        return
    for name, x in case.reference.items():
        # Each of the two rounds by itself. An item without positives is a rounding of zero.
        small = name.startswith("loss_") and (found[name] - x).abs() <= 1e-6
        assert small or error_of(found[name], x) <= 2 * TOLERANCE, name
    assert {name for name in found if name.startswith("grad_")} == {
        name for name in case.reference if name.startswith("grad_")
    }


def test_the_formula_of_the_flow_is_that_of_the_recording():
    errors = torch.randn(100, 2, dtype=torch.float64)
    x, y = errors[:, 0] - 0.1 * errors[:, 1], 0.2 * errors[:, 0] + 0.8 * errors[:, 1]
    told = (torch.exp(-(x**2 + y**2) / 2) + torch.exp(-((x - 0.5) ** 2 + (y + 0.25) ** 2) / 18)).log() - 2
    torch.testing.assert_close(golden.flow(errors), told)
    torch.testing.assert_close(golden.flow(errors), LearntDensity().log_prob(errors).detach())


def test_every_file_holds_its_tensors_and_the_table_lists_it(corpus):
    table = json.loads((corpus / "corpus.json").read_text())
    assert [x["name"] for x in table["cases"]] == [case.name for case in CASES]
    assert (corpus / "README.md").is_file()
    for facts, case in zip(table["cases"], CASES, strict=True):
        tensors = run.read(corpus / facts["file"])
        assert facts["inputs"] == list(case.inputs)
        for name, x in case.inputs.items():
            np.testing.assert_array_equal(tensors[f"input/{name}"], x.numpy())
        for name, x in case.reference.items():
            np.testing.assert_array_equal(tensors[f"reference/{name}"], x.numpy())
        assert tensors["expected/positives"].shape == (tensors["expected/num_positives"], 3)
        assert len(tensors["input/pred_boxes" if facts["shares"] is None else "input/one_boxes"]) == facts["images"]


def test_a_reader_of_the_format_reads_the_files(corpus):
    numpy = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed")
    for path in corpus.rglob("*.safetensors"):
        theirs, ours = numpy.load_file(path), run.read(path)
        assert theirs.keys() == ours.keys()
        for name, x in ours.items():
            np.testing.assert_array_equal(theirs[name], x)


def test_a_folder_that_holds_something_is_refused(corpus, capsys):
    with pytest.raises(SystemExit) as end:
        export("corpus", "--out", corpus)
    assert end.value.code == 2
    assert "--out: expected an empty folder or a new one, got" in capsys.readouterr().err


@pytest.mark.slow
def test_the_runner_passes_on_graphs_and_fails_on_a_wrong_one(corpus, tmp_path):
    small = ("--image-size", "64", "64", "--classes", "3")
    paths = [tmp_path / name for name in ("assignment.onnx", "loss.onnx")]
    assert export("assignment", *small, "--out", paths[0]) == 0
    assert export("loss", *small, "--gradients", "--out", paths[1]) == 0

    def ended(*graphs):
        command = [sys.executable, RUNNER, corpus, *graphs]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    done = ended(*paths)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "detect/crowded: 2 outputs right" in done.stdout
    assert "detect/crowded: 7 outputs right" in done.stdout
    model = onnx.load(paths[1])
    for x in model.graph.initializer:
        values = onnx.numpy_helper.to_array(x)
        if values.dtype == np.float32 and values.size == 1 and values.item() == 7.5:
            x.CopyFrom(onnx.numpy_helper.from_array(values * np.float32(1.001), x.name))
    onnx.save(model, tmp_path / "wrong.onnx")
    done = ended(tmp_path / "wrong.onnx")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "WRONG in loss, loss_box, grad_pred_boxes" in done.stdout
