"""The programs where a package that they need is not installed: one line that says what to do, `--help` too."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
# A module that is None cannot be imported, as one that is not there.
WITHOUT = "import runpy, sys; sys.modules[sys.argv.pop(1)] = None; sys.argv.pop(0); "
WITHOUT += "sys.path.insert(0, sys.argv[0].rpartition('/')[0]); runpy.run_path(sys.argv[0], run_name='__main__')"


def run_without(module: str, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT, module, str(EXAMPLES / program), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=EXAMPLES.parent)


@pytest.mark.parametrize(
    ("program", "module"),
    [
        ("train.py", "rich"),
        ("train.py", "matplotlib"),
        ("train.py", "faster_coco_eval"),
        ("compare_parts.py", "rich"),
        ("minimal.py", "PIL"),
    ],
)
def test_a_missing_package_is_named_with_the_line_that_installs_it(program, module):
    done = run_without(module, program, "--help")
    assert done.returncode != 0
    assert done.stdout == ""
    assert done.stderr == f"error: {module} is not installed; from the project's folder: pip install '.[demo]'\n"


def test_a_missing_module_of_the_programs_own_is_no_missing_package():
    done = run_without("demo.settings", "train.py", "--help")
    assert "Traceback" in done.stderr
    assert "pip install" not in done.stderr


def test_the_smallest_program_draws_without_numpy():
    lines = [
        "import sys",
        "sys.modules['numpy'] = None",
        f"sys.path.insert(0, {str(EXAMPLES)!r})",
        "import minimal, torch",
        "found = minimal.Detections(torch.ones(1, 1, 4), torch.ones(1, 1), *torch.zeros(2, 1, 1).long())",
        "print(minimal.draw(minimal.pictures(1)[0][0], found, 0).size)",
    ]
    command = [sys.executable, "-W", "ignore", "-c", "\n".join(lines)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=EXAMPLES.parent)
    assert done.stdout == "(128, 128)\n", done.stderr
