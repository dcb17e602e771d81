"""The programs of examples/trainers: their form, their page, and DistributedDataParallel run for real."""

import os
import re
import runpy
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "trainers"
PROGRAMS = sorted(runpy.run_path(str(FOLDER / "run.py"))["programs"]().values())
PAGE = (FOLDER / "README.md").read_text()


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment, timeout=500)


def name_of(program: Path) -> str:
    return program.stem.removesuffix("_run")


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.stem)
def test_a_program_is_short_and_tells_how_it_is_run(program):
    text = program.read_text()
    assert len(text.splitlines()) <= 130
    assert f"python examples/trainers/{program.name}" in text
    assert f"`{name_of(program)}`" in PAGE


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.stem)
def test_help_works_without_the_trainer_or_says_what_is_missing(program):
    done = run(program, "--help")
    missing = re.search(r"is not installed: |^ModuleNotFoundError: No module named", done.stderr, flags=re.MULTILINE)
    assert "--data" in done.stdout if done.returncode == 0 else missing, done.stderr


@pytest.mark.parametrize("module", ["lightning", "accelerate", "luxonis_train", "libreyolo"])
def test_a_missing_trainer_is_named(module):
    if find_spec(module) is not None:
        pytest.skip(f"{module} is installed here")
    done = run(FOLDER / f"{module.removesuffix('_train')}_run.py")
    assert done.returncode == 1
    assert " is not installed: " in done.stderr, done.stderr


@pytest.mark.parametrize("listed", sorted(FOLDER.glob("*.txt")), ids=lambda p: p.stem)
def test_every_requirement_is_pinned(listed):
    lines = [line for line in listed.read_text().splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+(\[[\w,]+\])?==[\w.]+", line) for line in lines)
    name = listed.name.removesuffix(".txt").removesuffix(".alone")
    assert name in {name_of(p) for p in PROGRAMS}


def test_two_processes_learn_as_one():
    done = run(FOLDER / "ddp.py", "--backend", "aot_eager", "--steps", "8")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 graph, 0 breaks" in done.stdout
    assert "0 recompiles" in done.stdout


def test_a_claim_that_does_not_hold_ends_the_program():
    code = f"import sys; sys.path.insert(0, {str(FOLDER)!r}); from claims import claim; claim('it holds', 1 > 2)"
    done = run("-c", code)
    assert done.returncode == 1
    assert done.stderr == "FAILED  it holds\n"


def test_what_cannot_be_built_is_said(tmp_path):
    code = (
        f"import sys; sys.path.insert(0, {str(FOLDER)!r}); import run; from pathlib import Path;"
        "run.HERE = Path(sys.argv[1]); sys.exit(run.main(['sample', '--environments', sys.argv[1]]))"
    )
    (tmp_path / "sample.py").write_text("raise SystemExit(3)\n")
    done = run("-c", code, tmp_path)
    assert done.returncode == 1
    assert done.stdout.splitlines()[-2:] == ["sample: FAILED with status 3", "0 passed, 1 failed"]
    (tmp_path / "sample.txt").write_text("torch==0.0.0.0\n")
    done = run("-c", code, tmp_path)
    assert done.returncode == 1
    assert "sample: NOT RUN, its environment could not be built: ERROR: " in done.stdout
    (tmp_path / "sample.txt").unlink()
    (tmp_path / "sample.py").write_text("print('fine')\n")
    assert run("-c", code, tmp_path).returncode == 0
    done = run(FOLDER / "run.py", "nothing")
    assert "no such trainer: nothing; there are accelerate" in done.stderr
