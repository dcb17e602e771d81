"""The command: every way not to run has status 2 and says why."""

import sys

import pytest
import torch

from compiled_loss import __version__
from compiled_loss.__main__ import main
from compiled_loss.audit.command import FAILED
from tests.audit.users_file import run


def test_a_stage_that_had_to_stop_gives_status_2_with_the_report(mine, capsys):
    assert run(f"{mine}:raises") == FAILED
    out = capsys.readouterr().out
    assert "RuntimeError: never works" in out
    assert "INCOMPLETE" in out


def test_a_function_that_leaves_python_is_no_clean_function(mine, capsys):
    assert run(f"{mine}:leaves") == FAILED
    out = " ".join(capsys.readouterr().out.split())
    assert "it ends the process (SystemExit: 0)" in out
    assert "INCOMPLETE" in out


@pytest.mark.parametrize(
    ("target", "more", "message"),
    [
        ("{mine}", (), "expected FILE.py:FUNCTION or PACKAGE.MODULE:FUNCTION, got"),
        ("quiet", (), "expected FILE.py:FUNCTION or PACKAGE.MODULE:FUNCTION, got 'quiet'"),
        ("{mine}:", (), "has no ''; it has scaled, clean, quiet"),
        ("{mine}:quite", (), "has no 'quite'; it has scaled, clean, quiet, breaks, raises"),
        ("{mine}:quiet.missing", (), "has no 'quiet.missing'"),
        ("{mine}:Scaled", (), "Scaled is a class: name a function, or an instance made in the file"),
        ("{mine}:limit", (), "limit is int, expected a callable"),
        ("there/is/none.py:f", (), "there is no file there/is/none.py"),
        ("there_is_no_module:f", (), "cannot import there_is_no_module:\nModuleNotFoundError: No module named"),
        ("{mine}:quiet", ("--batches", "bathces"), "has no 'bathces'; it has scaled"),
        ("{mine}:quiet", ("--batches", "bathces"), "--batches NAME says which function yields the batches"),
        ("{mine}:quiet", ("--batches", "limit"), "limit yields no batches:\nTypeError: 'int' object is not iterable"),
        ("{mine}:quiet", ("--batches", "nothing"), "batches: expected at least one, got none"),
        ("{mine}:quiet", ("--batches", "one_tensor"), "batches: expected a sequence of batches, got one Tensor"),
        ("{mine}:quiet", ("--batches", "one_dict"), "batches: expected a sequence of batches, got one dict"),
        ("{mine}:quiet", ("--batches", "broken_batches"), "RuntimeError: no more data"),
        ("{mine}:quiet", ("--backend", "inductr"), "compiled_loss: --backend: expected a backend of torch.compile"),
        ("{mine}:quiet", ("--warmup", "0"), "compiled_loss: --warmup: expected at least 1, got 0"),
        ("{mine}:quiet", ("--allow", "snyc=typo"), "compiled_loss: --allow: expected a kind among"),
        ("{mine}:quiet", ("--allow", "sync= "), "compiled_loss: --allow: expected a reason for 'sync'"),
        ("{mine}:quiet", ("--html", "{mine}/x.html"), "cannot write: [Errno 20] Not a directory"),
        ("{mine}:quiet", ("--json", "{mine}/x.json"), "cannot write: [Errno 20] Not a directory"),
    ],
)
def test_what_cannot_run_gives_status_2_and_the_reason(mine, capsys, target, more, message):
    assert run(target.format(mine=mine), *(x.format(mine=mine) for x in more)) == FAILED
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err


def test_wrong_batches_stop_the_eager_stage(mine, capsys):
    assert run(f"{mine}:quiet", "--batches", "pairs") == FAILED
    assert "TypeError: quiet() takes 1 positional argument but 2 were given" in capsys.readouterr().out.replace(
        "\n" + " " * 29, " "
    )


@pytest.mark.parametrize("option", ["--html", "--json"])
def test_a_folder_that_is_missing_is_told_before_the_audit(mine, tmp_path, capsys, option):
    assert run(f"{mine}:quiet", option, tmp_path / "none" / "x") == FAILED
    err = capsys.readouterr().err
    assert "cannot write: [Errno 2] No such file or directory" in err
    assert "eager:" not in err


@pytest.mark.parametrize(
    ("text", "last"),
    [
        ("import torch\n\n1 / 0\n", "ZeroDivisionError: division by zero"),
        ("def f(:\n", "SyntaxError: invalid syntax"),
        ("import sys\n\nsys.exit(0)\n", "SystemExit: 0"),
        ("import no_such_library\n", "ModuleNotFoundError: No module named 'no_such_library'"),
    ],
)
def test_a_file_that_fails_on_import_shows_its_own_traceback_alone(mine, tmp_path, capsys, text, last):
    file = tmp_path / "failing.py"
    file.write_text(text)
    assert run(f"{file}:f") == FAILED
    err = capsys.readouterr().err
    assert err.startswith(f"compiled_loss: cannot import {file}:\n")
    assert f'File "{file}", line' in err
    assert err.strip().splitlines()[-1] == last
    assert "importlib" not in err
    assert "command.py" not in err
    assert "failing" not in sys.modules


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["adit"],
        ["audit"],
        ["audit", "f", "--skip", "x"],
        ["audit", "f", "--allow", "sync"],
        ["audit", "f", "--warmup", "x"],
    ],
)
def test_a_wrong_command_line_gives_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == FAILED
    assert "usage: python -m compiled_loss" in capsys.readouterr().err


def test_the_version_is_told(capsys):
    with pytest.raises(SystemExit) as left:
        main(["--version"])
    assert not left.value.code
    assert capsys.readouterr().out == f"compiled_loss {__version__}, torch {torch.__version__}\n"
