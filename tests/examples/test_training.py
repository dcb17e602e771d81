"""Short runs of the training example: the loop, checkpoints, Ctrl-C and bad input."""

import functools
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from demo import checkpoint
from demo.batches import Batches, plan_run
from demo.blobs import Blobs
from demo.figures import Figures
from demo.labels import DataError
from demo.report import keep
from demo.run import prepare
from demo.settings import parse
from demo.tasks import PROTOTYPES, make_model
from rich.console import Console
from train import main

from compiled_loss import DetectionLoss, EndToEndLoss

ROOT = Path(__file__).parents[2]
TINY = ["--no-compile", "--image-size", "32", "--batch-size", "2", "--workers", "0"]
PICTURES = {"curves.png", "predictions.png", "assignment.png"}


@pytest.fixture(autouse=True)
def quick(monkeypatch, request):
    """Few figures, and pictures of the run only in the test that looks for them."""
    monkeypatch.setattr("demo.run.RENDERED_TRAIN", 12)
    monkeypatch.setattr("demo.run.RENDERED_HELD_OUT", 4)
    if "draws" not in request.node.name:
        monkeypatch.setattr("demo.report.draw", lambda *_: [])


def test_a_short_run_reports_draws_and_keeps_its_state(tmp_path, capsys):
    out = tmp_path / "run"
    assert main([*TINY, "--steps", "3", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "OKS-AP on 4 held-out pictures" in printed
    assert "step 3/3" in printed
    assert {*PICTURES, "checkpoint.pt", "results.json", "index.html"} == {path.name for path in out.iterdir()}
    assert json.loads((out / "results.json").read_text())["steps"] == 3


@pytest.mark.slow
@pytest.mark.parametrize(("task", "head"), [("obb", "end2end"), ("segment", "dense")])
def test_every_task_and_head_is_two_graphs_that_serve_every_batch(tmp_path, monkeypatch, task, head):
    # Traced and differentiated as ever, without the minutes of generating code.
    monkeypatch.setattr("torch.compile", functools.partial(torch.compile, backend="aot_eager"))
    arguments = ["--image-size", "32", "--batch-size", "2", "--workers", "0", "--timing-rounds", "0", "--epochs", "2"]
    assert main([*arguments, "--task", task, "--head", head, "--out", str(tmp_path)]) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["steps"] == 12
    assert (results["graphs"], results["graph_breaks"], results["recompiles"]) == (2, 0, 0)


@pytest.mark.slow
def test_the_compiled_step_is_two_graphs_that_serve_every_batch_and_equal_eager(tmp_path):
    arguments = ["--image-size", "32", "--batch-size", "2", "--workers", "0", "--timing-rounds", "0", "--steps", "5"]
    assert main([*arguments, "--out", str(tmp_path / "compiled")]) == 0
    assert main([*arguments, "--out", str(tmp_path / "eager"), "--no-compile"]) == 0
    results = json.loads((tmp_path / "compiled" / "results.json").read_text())
    assert (results["graphs"], results["graph_breaks"], results["recompiles"]) == (2, 0, 0)
    compiled, eager = (checkpoint.read(tmp_path / name / "checkpoint.pt") for name in ("compiled", "eager"))
    assert compiled["progress"]["names"] == eager["progress"]["names"]
    ours, reference = compiled["progress"]["losses"], eager["progress"]["losses"]
    assert len(ours) == len(reference) == 5
    # Before the first update: after it Adam turns the rounding of near-zero gradients into whole steps.
    assert ours[0] == pytest.approx(reference[0], rel=1e-4, abs=1e-5)


METRICS = {"detect": "AP", "pose": "OKS-AP", "obb": "AP of rotated boxes as polygons", "segment": "mask AP"}


@pytest.mark.parametrize("head", ["dense", "end2end"])
@pytest.mark.parametrize("task", METRICS)
def test_a_folder_can_be_trained_on_for_every_task_and_head(folder, tmp_path, capsys, task, head):
    assert (
        main([*TINY, "--task", task, "--head", head, "--data", str(folder), "--steps", "2", "--out", str(tmp_path)])
        == 0
    )
    assert f"\n{METRICS[task]} on 2 held-out pictures" in capsys.readouterr().out


@pytest.mark.parametrize(("task", "head"), [("obb", "dense"), ("segment", "end2end")])
def test_every_kind_of_rendered_picture_is_trained_on_and_draws(tmp_path, task, head):
    assert main([*TINY, "--task", task, "--head", head, "--steps", "2", "--out", str(tmp_path)]) == 0
    assert {path.name for path in tmp_path.iterdir()} > PICTURES


def test_the_share_of_the_second_branch_follows_the_epochs(tmp_path):
    settings = parse([*TINY, "--head", "end2end", "--task", "detect", "--steps", "24", "--out", str(tmp_path)])
    run = prepare(settings, Console(quiet=True))
    assert run.epochs == 4  # of 12 pictures, two a step
    criterion, shares = run.step.criterion, []
    assert isinstance(criterion, EndToEndLoss)
    for step in range(24):
        run.schedule(step)
        shares.append(round(criterion.share.item(), 3))
    assert shares == [s for s in (0.8, 0.567, 0.333, 0.1) for _ in range(6)]


def test_an_end_to_end_model_trains_two_branches_and_evaluates_the_second(tmp_path):
    model = make_model("segment", Blobs(32, 1).info, end_to_end=True)
    images = torch.rand(2, 3, 32, 32)
    many, one = model(images)
    one.scores.sum().backward()
    assert all(p.grad is None for p in model.stem.parameters())
    assert all(p.grad is None for p in model.branches[0].parameters())
    assert not one.prototypes.requires_grad
    assert many.coefficients.shape == one.coefficients.shape == (2, PROTOTYPES, 21)
    assert many.prototypes.shape == (2, PROTOTYPES, 8, 8)
    assert len(model.eval()(images)) == 1


def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path, monkeypatch):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert main([*TINY, "--steps", "6", "--out", str(whole)]) == 0
    press_at = 4

    def press(self, images, names, losses):
        self.done += 1
        if self.done == press_at:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr("demo.console.Display.step", press)
        assert main([*TINY, "--steps", "6", "--out", str(cut)]) == 130
    stopped = checkpoint.read(cut / "checkpoint.pt")
    assert stopped["progress"]["steps"] == press_at
    assert main(["--no-compile", "--workers", "0", "--resume", str(cut / "checkpoint.pt")]) == 0
    assert_equal(checkpoint.read(whole / "checkpoint.pt"), checkpoint.read(cut / "checkpoint.pt"))


def assert_equal(a, b):
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_equal(a[key], b[key])
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    else:
        assert a == b


def test_ctrl_c_on_the_whole_process_group_saves_and_says_how_to_go_on(folder, tmp_path):
    out = tmp_path / "run"
    command = [sys.executable, str(ROOT / "examples" / "train.py"), *TINY, "--workers", "1", "--steps", "2000"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [*command, "--data", str(folder), "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    assert process.stdout is not None
    while not process.stdout.readline().startswith("step 50/"):
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    printed, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "--resume" in printed
    assert "Traceback" not in errors
    assert checkpoint.read(out / "checkpoint.pt")["progress"]["steps"] >= 50


def test_batches_depend_on_the_step_alone_and_visit_every_picture_once_an_epoch():
    figures = Figures(32, 10)
    batches = Batches(figures, 4, plan_run(figures, 4, DetectionLoss(1), 3), seed=0)
    visited = [place for step in range(5) for place in batches.pictures(step)]
    assert sorted(visited) == [(i, e) for i in range(10) for e in range(2)]
    images, targets = batches.batch(3)
    again, same = batches.batch(3)
    assert torch.equal(images, again)
    assert torch.equal(targets.boxes, same.boxes)
    assert targets.boxes.shape == batches.batch(0)[1].boxes.shape
    first = batches.batch(0)[1].pages
    assert isinstance(targets.pages, torch.Tensor)
    assert isinstance(first, torch.Tensor)
    assert len(targets.pages) == len(first)


def test_bad_input_is_one_line_that_names_it_and_exit_status_2(folder, tmp_path, capsys):
    (folder / "images" / "1.png").write_bytes(b"no picture")
    (tmp_path / "bad.pt").write_bytes(b"no checkpoint")
    for arguments, message in (
        ([*TINY, "--data", str(tmp_path / "none")], "none: no such folder"),
        ([*TINY, "--data", str(folder), "--steps", "4", "--out", str(tmp_path / "run")], "1.png: not a readable"),
        (["--resume", str(tmp_path / "bad.pt")], "bad.pt: not a readable checkpoint"),
        (["--resume", str(tmp_path / "no.pt")], "no.pt: no such checkpoint"),
        (["--image-size", "100"], "--image-size: expected a positive multiple of 32, got 100"),
        (["--steps", "-3"], "--steps: expected a positive number, got -3"),
        (["--steps", "0"], "--steps: expected a positive number, got 0"),
        (["--epochs", "0"], "--epochs: expected a positive number, got 0"),
        (["--steps", "4", "--epochs", "2"], "--steps and --epochs: give only one of them"),
        (["--seed", str(2**64)], f"--seed: expected 0 or more, below 2**63, got {2**64}"),
        ([*TINY[:3], "--batch-size", "1"], "--batch-size 1: at --image-size 32 batch norm has one value"),
        (["--data", ""], "--data: expected a path, got ''"),
        (["--resume", ""], "--resume: expected a path, got ''"),
        ([*TINY, "--lr", "1e9", "--steps", "3", "--out", str(tmp_path / "run")], "the loss became nan by step"),
        (["--save-every", "0"], "--save-every: expected a positive number, got 0"),
        (["--workers", "-1"], "--workers: expected 0 or more, got -1"),
        (["--ema", "2"], "--ema: expected a number from 0 up to 1, got 2.0"),
        (["--lr", "nan"], "--lr: expected a positive number, got nan"),
    ):
        assert main(arguments) == 2
        errors = capsys.readouterr().err
        assert errors.startswith("error: ")
        assert message in errors
        assert "Traceback" not in errors


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_named(capsys):
    assert main([*TINY, "--device", "cuda"]) == 2
    assert "--device cuda: torch finds no CUDA device here" in capsys.readouterr().err


def test_a_resumed_run_refuses_other_settings(tmp_path):
    assert main([*TINY, "--steps", "1", "--out", str(tmp_path)]) == 0
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(DataError, match=r"made with --batch-size 2, the command line says 3"):
        parse(["--resume", str(path), "--batch-size", "3"])
    state = checkpoint.read(path)
    state["settings"]["colour"] = state["settings"].pop("ema")
    torch.save(state, path)
    with pytest.raises(DataError, match=r"was made by another version of this program \(colour, ema\)"):
        parse(["--resume", str(path)])


def test_ctrl_c_after_training_loses_nothing_and_before_it_says_so(tmp_path, monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert main([*TINY, "--steps", "2", "--out", str(whole)]) == 0
    with monkeypatch.context() as patch:
        patch.setattr("demo.evaluate.detect", interrupt)
        assert main([*TINY, "--steps", "2", "--out", str(cut)]) == 130
    assert "nothing is lost. Go on with\n  python examples/train.py --resume" in capsys.readouterr().out
    assert main(["--no-compile", "--resume", str(cut / "checkpoint.pt")]) == 0
    assert (cut / "results.json").read_text() == (whole / "results.json").read_text()
    with monkeypatch.context() as patch:
        patch.setattr("demo.run.plan_run", interrupt)
        assert main([*TINY, "--out", str(cut)]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_ctrl_c_while_the_last_steps_are_saved_loses_none(tmp_path, monkeypatch, capsys):
    save = checkpoint.save

    def interrupted(*arguments):
        os.kill(os.getpid(), signal.SIGINT)
        save(*arguments)

    monkeypatch.setattr("demo.checkpoint.save", interrupted)
    assert main([*TINY, "--steps", "2", "--out", str(tmp_path)]) == 130
    assert "Interrupted after step 2 of 2; nothing is lost." in capsys.readouterr().out
    assert checkpoint.read(tmp_path / "checkpoint.pt")["progress"]["steps"] == 2


def test_a_file_that_cannot_be_written_is_named_and_leaves_the_one_before(tmp_path, capsys):
    arguments = [*TINY, "--steps", "1", "--out", str(tmp_path)]
    assert main(arguments) == 0
    before = {name: (tmp_path / name).read_bytes() for name in ("checkpoint.pt", "results.json")}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20, limits[1]))
        assert main(arguments) == 2
        assert "checkpoint.pt: the checkpoint cannot be written; is the disk full?" in capsys.readouterr().err
        with pytest.raises(OSError, match="too large"):
            keep(tmp_path, {"steps": 1, "ap": 0.123456789})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {name: (tmp_path / name).read_bytes() for name in before} == before


def test_compiles_are_counted_in_runs_of_one_step_and_of_none_left(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.compile", functools.partial(torch.compile, backend="eager"))
    arguments = ["--image-size", "32", "--batch-size", "2", "--workers", "0", "--timing-rounds", "0"]
    assert main([*arguments, "--steps", "1", "--out", str(tmp_path)]) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert (results["graphs"], results["graph_breaks"], results["recompiles"]) == (2, 0, 0)
    assert main(["--workers", "0", "--timing-rounds", "0", "--resume", str(tmp_path / "checkpoint.pt")]) == 0
    assert "graphs" not in json.loads((tmp_path / "results.json").read_text())
