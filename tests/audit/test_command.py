"""The command: what it audits, and what it writes where."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from compiled_loss.__main__ import main
from compiled_loss.audit.command import CLEAN, FAILED, FOUND
from tests.audit.users_file import MINE, QUICK, run

ROOT = Path(__file__).parents[2]


def test_a_clean_function_gives_status_0_and_the_report(mine, capsys):
    assert run(f"{mine}:quiet") == CLEAN
    out, err = capsys.readouterr()
    assert out.startswith("audit of quiet\n2 batches on cpu")
    assert out.endswith("\nPASSED; turned off: device, recompiles, numbers, cudagraphs, gpu\n")
    assert err.splitlines()[:2] == ["making batches", "eager: the function itself, uncompiled ..."]


def test_findings_give_status_1_and_their_line(mine, capsys):
    assert run(f"{mine}:breaks") == FOUND
    line = MINE[: MINE.index(".item()")].count("\n") + 1
    assert f"graph-break  {mine}:{line}\n    return x * x.sum().item()" in capsys.readouterr().out


def test_an_allowance_turns_findings_into_status_0(mine, capsys):
    assert run(f"{mine}:breaks", "--allow", "graph-break@breaks:*=once a = day") == CLEAN
    assert "allowed: once a = day" in capsys.readouterr().out


def test_what_the_audited_code_prints_stays_out_of_standard_output(mine, capsys):
    run(f"{mine}:clean")
    out, err = capsys.readouterr()
    assert "noise\n" not in out
    assert "noise\n" in err


def test_an_instance_and_a_list_of_batches_will_do(mine, capsys):
    assert run(f"{mine}:scaled", "--batches", "few", "--quiet") == CLEAN
    out, err = capsys.readouterr()
    assert out.startswith("audit of Scaled\n2 batches")
    assert err == ""


def test_batches_may_come_from_another_file(mine, tmp_path, capsys):
    (tmp_path / "data.py").write_text("import torch\n\n\ndef some():\n    return [torch.ones(1)]\n")
    assert run(f"{mine}:quiet", "--batches", f"{tmp_path / 'data.py'}:some") == CLEAN
    assert "\n1 batch on cpu" in capsys.readouterr().out


def test_a_module_that_can_be_imported_will_do(mine, tmp_path, capsys):
    sys.path.insert(0, str(tmp_path))
    assert run("mine:quiet") == CLEAN
    assert "audit of quiet" in capsys.readouterr().out


def test_a_file_inside_a_package_imports_its_neighbours(mine, tmp_path, capsys):
    package = tmp_path / "outer_pack" / "inner"
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").touch()
    (package / "near.py").write_text("def half(x):\n    return x / 2\n")
    (package / "loss.py").write_text(
        "import torch\n\nfrom .near import half\n\nbatches = [torch.ones(2)]\n\n\ndef loss(x):\n    return half(x)\n"
    )
    assert run(f"{package / 'loss.py'}:loss") == CLEAN
    assert "outer_pack.inner.loss" in sys.modules


def test_a_file_named_like_a_library_is_still_the_one_that_is_loaded(mine, tmp_path, capsys):
    file = tmp_path / "json.py"
    file.write_text(MINE)
    assert run(f"{file}:quiet") == CLEAN
    assert sys.modules["json"] is json


def test_json_goes_to_standard_output_alone_or_to_a_file(mine, tmp_path, capsys):
    assert run(f"{mine}:breaks", "--json", "-") == FOUND
    printed = json.loads(capsys.readouterr().out)
    assert (printed["ok"], printed["counts"]) == (False, {"graph-break": 1})
    file = tmp_path / "report.json"
    assert run(f"{mine}:breaks", "--json", file) == FOUND
    assert json.loads(file.read_text())["counts"] == {"graph-break": 1}
    assert "FAILED: 1 graph-break" in capsys.readouterr().out


def test_the_page_is_written(mine, tmp_path, capsys):
    file = tmp_path / "report.html"
    assert run(f"{mine}:breaks", "--html", file) == FOUND
    assert "<title>Failed: audit of breaks</title>" in file.read_text()
    assert f"written: {file}" in capsys.readouterr().err


def test_every_option_reaches_the_audit(mine, monkeypatch, capsys):
    given = {}

    class TakenError(Exception):
        pass

    def taken(function, batches, **options):
        given.update(options, function=function, batches=len(batches))
        raise TakenError

    monkeypatch.setattr("compiled_loss.audit.command.audit", taken)
    switches = "--no-backward --exportable --static --quiet --warmup 1 --backend aot_eager --tolerance 1e-3"
    repeated = "--skip gpu --skip export --package a --package b.c --allow"
    assert main(["audit", f"{mine}:quiet", *switches.split(), *repeated.split(), "sync=read once"]) == FAILED
    assert given.pop("function").__name__ == "quiet"
    assert given == {
        "batches": 2,
        "backward": False,
        "exportable": True,
        "warmup": 1,
        "backend": "aot_eager",
        "dynamic": False,
        "tolerance": 1e-3,
        "skip": ["gpu", "export"],
        "allow": {"sync": "read once"},
        "packages": ["a", "b.c"],
        "progress": None,
    }
    assert "TakenError" in capsys.readouterr().err


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_a_terminal_gets_colours_unless_no_color_is_set(mine, monkeypatch, no_color, coloured):
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("TERM", "xterm-256color")
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    assert run(f"{mine}:quiet", "--quiet") == CLEAN
    assert ("\x1b[1;32mPASSED" in screen.getvalue()) == coloured
    assert ("\x1b" in screen.getvalue()) == coloured


def test_a_terminal_without_rich_gets_plain_text(mine, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setitem(sys.modules, "rich.console", None)
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    assert run(f"{mine}:quiet", "--quiet") == CLEAN
    assert screen.getvalue().endswith("\nPASSED; turned off: device, recompiles, numbers, cudagraphs, gpu\n")
    assert "\x1b" not in screen.getvalue()


def test_piped_from_the_shell_it_prints_plain_text_and_exits_with_1(mine):
    command = [sys.executable, "-m", "compiled_loss", "audit", f"{mine}:breaks", *QUICK]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == FOUND
    assert done.stdout.startswith("audit of breaks\n")
    assert done.stdout.endswith("FAILED: 1 graph-break\n")
    assert "\x1b" not in done.stdout
