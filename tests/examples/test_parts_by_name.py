"""Parts of a loss by name on the command line: each trains, and what does not go together is one line."""

import json
from typing import Any

import pytest
import torch
from compare_parts import main as compare
from compare_parts import variants
from demo import checkpoint
from demo.parts import ASSIGNERS, CLASS_TERMS, ORIENTED, UPRIGHT, options_of
from demo.run import one_branch, prepare
from demo.settings import parse
from rich.console import Console
from train import main

from compiled_loss import DetectionLoss, OrientedLoss, Predictions, Scheduled, Targets

TINY = ["--no-compile", "--image-size", "32", "--batch-size", "2", "--workers", "0", "--timing-rounds", "0"]
NAMES = [*((DetectionLoss, x) for x in UPRIGHT), *((OrientedLoss, x) for x in ORIENTED)]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Few figures and no pictures of the run."""
    monkeypatch.setattr("demo.run.RENDERED_TRAIN", 6)
    monkeypatch.setattr("demo.run.RENDERED_HELD_OUT", 2)
    monkeypatch.setattr("demo.report.draw", lambda *_: [])


@pytest.mark.parametrize("assigner", ASSIGNERS)
def test_every_assigner_trains(assigner, tmp_path):
    words = ["--task", "detect", "--steps", "3", "--assigner", assigner, "--box-term", "wiou", "--out", str(tmp_path)]
    assert main([*TINY, *words, "--image-size", "96"]) == 0  # the squares of ATSS are larger than a smaller picture
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["overflow"] == 0
    state = checkpoint.read(tmp_path / "checkpoint.pt")
    assert 0 < state["criterion"]["box_term.mean"] != 1
    assert all(torch.tensor(state["progress"]["losses"]).isfinite().flatten())
    if assigner == "scheduled":
        assert state["criterion"]["assigner.second"]


@pytest.mark.parametrize(("kind", "name"), NAMES)
def test_every_box_term_and_class_term_is_part_of_a_loss(kind, name):
    classes = list(CLASS_TERMS)[len(name) % len(CLASS_TERMS)]
    loss = kind(2, (8, 16), **options_of(kind, "task-aligned", name, classes, 32, end_to_end=False))
    maps: dict[str, Any] = {"angles": torch.zeros(1, 1, 20)} if kind is OrientedLoss else {}
    rows: dict[str, Any] = {"angles": torch.zeros(1)} if kind is OrientedLoss else {}
    predictions = Predictions(torch.zeros(1, 64, 20), torch.zeros(1, 2, 20), ((4, 4), (2, 2)), **maps)
    terms = loss(predictions, Targets(torch.tensor([0]), torch.tensor([1]), torch.full((1, 4), 0.5), **rows)).terms
    assert terms["box"] > 0
    assert terms["cls"] > 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--task", "obb", "--assigner", "simota"], "--assigner simota: is for upright boxes, not for --task obb"),
        (["--task", "detect", "--assigner", "atss", "--head", "end2end"], "--assigner atss: --head end2end has one-to"),
        (["--task", "detect", "--box-term", "kld"], "--box-term: expected one of iou, giou, diou, ciou, eiou, siou, "),
        (["--task", "obb", "--box-term", "siou"], "--box-term: expected one of probiou, kfiou, gwd, kld for oriented"),
    ],
)
def test_parts_that_do_not_go_together_end_in_one_line(words, message, tmp_path, capsys):
    assert main([*TINY, "--steps", "1", "--out", str(tmp_path), *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_schedule_goes_on_after_a_third_of_the_run_and_in_a_resumed_one(tmp_path):
    words = [*TINY, "--task", "detect", "--steps", "9", "--assigner", "scheduled", "--out", str(tmp_path)]
    this = prepare(parse(words), Console(quiet=True))
    assigner = one_branch(this.step.criterion).assigner
    assert isinstance(assigner, Scheduled)
    turns = []
    for step in (0, 2, 3, 8, 1):
        this.schedule(step)
        turns.append(bool(assigner.second))
    assert turns == [False, False, True, True, False]
    assert this.plan.region == one_branch(this.step.criterion).region


def test_the_table_has_a_row_for_each_part_that_is_asked_for(tmp_path, capsys, monkeypatch):
    seen = []

    def record(settings, console):
        seen.append((settings.assigner, settings.box_term, settings.class_term, settings.seed, settings.steps))
        with open(f"{settings.out}/results.json", "w") as file:
            json.dump({"ap": 0.25 + settings.seed / 100, "ap50": None}, file)
        return 0

    monkeypatch.setattr("compare_parts.run", record)
    only = ["atss", "siou", "varifocal", "task-aligned"]
    compare(["--data", "folder", "--steps", "7", "--seeds", "0", "1", "--only", *only])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[:3] for line in lines[2:]] == [[f"| {x}", "25.0, 26.0", "0.0, 0.0"] for x in only]
    assert seen[::2] == [
        ("atss", "", "bce", 0, 7),
        ("task-aligned", "siou", "bce", 0, 7),
        ("task-aligned", "", "varifocal", 0, 7),
        ("task-aligned", "", "bce", 0, 7),
    ]
    assert {*ASSIGNERS, *UPRIGHT, *CLASS_TERMS} == {*variants()}
