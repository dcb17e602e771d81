"""The fixture `graph_audit`, in a pytest of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

LONG = "長" * 100  # of three bytes each
TESTS = """
import pytest
import torch

QUICK = {"skip": ["device", "recompiles", "numbers", "cudagraphs", "gpu"]}


def clean(x):
    return x * 2


def breaks(x):
    return x * x.sum().item()


def refuses(*_, **__):
    raise OSError("the disk is full")


def test_clean(graph_audit):
    assert graph_audit(clean, [torch.ones(3)], **QUICK).ok


@pytest.mark.parametrize("size", ["two/2", "two-2", "Two-2"])
def test_breaks(graph_audit, size, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    graph_audit(breaks, [torch.ones(2)], **QUICK)


def test_%s(graph_audit):
    graph_audit(breaks, [torch.ones(2)], **QUICK)


def test_twice(graph_audit):
    with pytest.raises(pytest.fail.Exception):
        graph_audit(breaks, [torch.ones(2)], **QUICK)
    graph_audit(breaks, [torch.ones(2)], **QUICK)


def test_only_returns(graph_audit):
    report = graph_audit(breaks, [torch.ones(3)], check=False, **QUICK)
    assert report.counts() == {"graph-break": 1}


def test_allowed(graph_audit):
    graph_audit(breaks, [torch.ones(3)], allow={"graph-break": "once"}, **QUICK)


def test_stopped(graph_audit):
    graph_audit(lambda x: x.no_such_method(), [torch.ones(3)], **QUICK)


def test_page_cannot_be_written(graph_audit, monkeypatch):
    monkeypatch.setattr("pathlib.Path.write_text", refuses)
    graph_audit(breaks, [torch.ones(2)], **QUICK)


def test_wrong_use(graph_audit):
    with pytest.raises(ValueError, match="batches: expected at least one"):
        graph_audit(clean, [])


def batches():
    yield torch.ones(2)
    raise ValueError("no more data")


@pytest.mark.parametrize("options", [{"batches": batches}, {"batches": []}, {"skip": "brakes"}, {"backend": "none"}])
def test_mistake(graph_audit, options):
    graph_audit(clean, **{"batches": [torch.ones(2)], **options})


def test_broken_batches(graph_audit):
    graph_audit(clean, batches())
"""


@pytest.fixture(scope="module")
def session(tmp_path_factory) -> tuple[str, Path]:
    """What that pytest prints, and the folder of its pages."""
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "test_mine.py").write_text(TESTS % LONG, encoding="utf-8")
    pages = folder / "deep" / "pages"
    command = [sys.executable, "-m", "pytest", "-p", "compiled_loss.audit.pytest_plugin", "-p", "no:cacheprovider"]
    command += ["-W", "error", "-rA", "--graph-audit-html", "deep/pages", "--rootdir", str(folder), str(folder)]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    env = os.environ | {"PYTHONPATH": path, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=env, check=False)
    return done.stdout + done.stderr, pages


@pytest.mark.parametrize("name", ["test_clean", "test_only_returns", "test_allowed", "test_wrong_use"])
def test_these_pass(session, name):
    assert f"PASSED test_mine.py::{name}" in session[0]


def test_a_finding_fails_the_test_with_the_report_and_no_traceback(session):
    assert "FAILED test_mine.py::test_breaks[two/2]" in session[0]
    assert "return x * x.sum().item()" in session[0]
    assert "FAILED: 1 graph-break" in session[0]
    assert "pytest_plugin.py" not in session[0]


@pytest.mark.parametrize("number", range(4))
def test_a_mistake_in_a_call_shows_the_tests_own_lines_alone(session, number):
    told = session[0].partition(f"_ test_mistake[options{number}] _")[2].partition("\n____")[0]
    assert "graph_audit(clean, **" in told
    assert "E       ValueError: " in told
    assert "compiled_loss" not in told


def test_an_error_of_the_batches_shows_their_line(session):
    told = session[0].partition("_ test_broken_batches _")[2].partition("\n____")[0]
    assert 'raise ValueError("no more data")' in told
    assert "compiled_loss" not in told


def test_a_stage_that_had_to_stop_fails_the_test(session):
    assert "FAILED test_mine.py::test_stopped" in session[0]
    assert "INCOMPLETE: eager" in session[0]


def test_each_failing_audit_has_its_page(session):
    names = sorted(re.sub("-[0-9a-f]{8}", "-#", x.name) for x in session[1].iterdir())
    several = ["test_mine.py-test_breaks-Two-2-#.html", *["test_mine.py-test_breaks-two-2-#.html"] * 2]
    twice = ["test_mine.py-test_twice-#-2.html", "test_mine.py-test_twice-#.html"]
    assert names == [*several, "test_mine.py-test_stopped-#.html", *twice, f"{'長' * 50}-#.html"]
    pages = list(session[1].glob("test_mine.py-test_breaks*"))
    assert len({x.name.lower() for x in pages}) == 3
    assert all("<title>Failed: audit of breaks</title>" in x.read_text() for x in pages)
    assert all(f"page: {x}" in session[0] for x in pages)


def test_a_page_that_cannot_be_written_does_not_hide_the_report(session):
    report = session[0].partition("_ test_page_cannot_be_written _")[2].partition("\n____")[0]
    assert "FAILED: 1 graph-break" in report
    assert "page: not written: the disk is full" in report


NOTHING = """
import sys


def test_nothing():
    assert "compiled_loss.audit.pytest_plugin" in sys.modules
    heavy = {x.partition(".")[0] for x in sys.modules} & {"torch", "numpy", "rich", "onnx", "onnxruntime"}
    assert not heavy
"""


def test_a_session_that_audits_nothing_does_not_pay_for_torch(tmp_path):
    (tmp_path / "test_nothing.py").write_text(NOTHING)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "compiled_loss.audit.pytest_plugin",
        "-p",
        "no:cacheprovider",
    ]
    env = os.environ | {"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(
        [*command, "--graph-audit-html", "pages", "-W", "error", str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=env,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
