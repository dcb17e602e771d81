"""Build the distributions, check them, and use each in an empty environment away from this folder.

    python tests/packaging.py OUT

builds a wheel and an sdist into OUT, looks at both with twine and check-wheel-contents, installs each with its extras
in a new environment, and there, in an empty folder, runs the commands below and every Python block of the README. Exits
with 1 at the first that fails. `make package` runs it.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
EXTRAS = "audit,export"
AUDITED = """
import torch


def batches():
    return [torch.ones(3), torch.ones(4), torch.ones(5)]


def step(x):
    return x.sin().sum()
"""
COMMANDS = (
    ("-c", "import compiled_loss; print('compiled_loss', compiled_loss.__version__)"),
    ("-m", "compiled_loss", "--help"),
    ("-m", "compiled_loss", "audit", "audited.py:step"),
)


def run(*command: str | Path, cwd: Path = ROOT) -> None:
    """A command that must succeed."""
    print("+", *command, flush=True)
    subprocess.run([str(x) for x in command], cwd=cwd, check=True)


def build(out: Path) -> list[Path]:
    """The wheel and the sdist, checked."""
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("compiled_loss-*"):
        old.unlink()
    run(sys.executable, "-m", "build", "--outdir", out, ".")
    made = sorted(out.glob("compiled_loss-*"))
    run(sys.executable, "-m", "twine", "check", "--strict", *made)
    run(sys.executable, "-m", "check_wheel_contents", *out.glob("*.whl"))
    return made


def use(distribution: Path) -> None:
    """Install it in an empty environment and run what a reader would."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    with tempfile.TemporaryDirectory() as name:
        folder, environment = Path(name) / "empty", Path(name) / "environment"
        folder.mkdir()
        venv.create(environment, with_pip=True)
        python = environment / "bin" / "python"
        constraints = ROOT / "constraints.txt"
        run(python, "-m", "pip", "install", "--quiet", "-c", constraints, f"{distribution}[{EXTRAS}]", cwd=folder)
        (folder / "audited.py").write_text(AUDITED)
        for command in COMMANDS:
            run(python, *command, cwd=folder)
        for i, block in enumerate(blocks):
            (folder / f"block_{i}.py").write_text(block)
            run(python, f"block_{i}.py", cwd=folder)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out.resolve()
    try:
        for distribution in build(out):
            use(distribution)
    except subprocess.CalledProcessError as error:
        print(f"failed with {error.returncode}: {' '.join(error.cmd)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
