"""Run the programs of this folder, each in an environment of its own: `make trainers`.

    python examples/trainers/run.py [NAME ...] [--environments FOLDER]

A program NAME.py (or NAME_run.py, where NAME.py would hide the package that it imports) with requirements in NAME.txt
gets an environment with these; a program without them runs in the interpreter that runs this one. NAME.alone.txt lists
packages to install without their own requirements. pip chooses the build of torch (PIP_INDEX_URL and others).
Exit status 1 if a program's claims fail or its environment cannot be built.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import time
import venv
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
OTHERS = {
    "claims",
    "common",
    "equal_ap",
    "libreyolo_time",
    "processes",
    "run",
    "same_steps",
    "step_time",
    "timed",
    "ultralytics_ddp",
}
LIMIT = 1800  # seconds for a program


def programs() -> dict[str, Path]:
    """The program of each trainer."""
    return {p.stem.removesuffix("_run"): p for p in sorted(HERE.glob("*.py")) if p.stem not in OTHERS}


def requirements(name: str) -> list[list[str]]:
    """Arguments of each `pip install`: torch before all else, so that nothing pulls another build of it."""
    listed = HERE / f"{name}.txt"
    torch = [line for line in listed.read_text().split() if line.startswith(("torch==", "torchvision=="))]
    alone = HERE / f"{name}.alone.txt"
    return [torch, ["-r", str(listed)], *([["--no-deps", "-r", str(alone)]] if alone.exists() else [])]


def interpreter(name: str, environments: Path) -> str:
    """The Python to run a program with, its environment built where it is not there or its requirements changed.

    Raises:
        subprocess.CalledProcessError: for an environment that cannot be built.
    """
    files = [path for path in (HERE / f"{name}.txt", HERE / f"{name}.alone.txt") if path.exists()]
    if not files:
        return sys.executable
    folder, stamp = environments / name, hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
    python, ready = folder / "bin" / "python", folder / "ready"
    if not ready.exists() or ready.read_text() != stamp:
        print(f"{name}: building {folder}", flush=True)
        venv.create(folder, clear=True, with_pip=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        for arguments in requirements(name):
            subprocess.run([*pip, *arguments], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        ready.write_text(stamp)
    return str(python)


def run(name: str, program: Path, environments: Path) -> str:
    """Run one program; "" or what went wrong."""
    try:
        python = interpreter(name, environments)
    except subprocess.CalledProcessError as error:
        lines = [line for line in error.stderr.splitlines() if line.startswith("ERROR")]
        return f"NOT RUN, its environment could not be built: {(lines or ['pip failed'])[-1]}"
    settings = os.environ | {"PYTHONPATH": str(ROOT)}
    try:
        status = subprocess.run([python, str(program)], env=settings, timeout=LIMIT).returncode
    except subprocess.TimeoutExpired:
        return f"FAILED, not done after {LIMIT} s"
    return f"FAILED with status {status}" if status else ""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(programs())}; default: all")
    parser.add_argument("--environments", type=Path, default=ROOT / "build" / "trainers")
    options = parser.parse_args(arguments)
    known = programs()
    if unknown := [name for name in options.names if name not in known]:
        parser.error(f"no such trainer: {', '.join(unknown)}; there are {', '.join(known)}")
    results = {}
    for name in options.names or known:
        print(f"== {name}", flush=True)
        begin = time.monotonic()
        failed = run(name, known[name], options.environments)
        results[name] = failed or f"passed in {time.monotonic() - begin:.0f} s"
    print("\n".join(f"{name}: {result}" for name, result in results.items()))
    good = sum(result.startswith("passed") for result in results.values())
    print(f"{good} passed, {len(results) - good} failed")
    return int(good < len(results))


if __name__ == "__main__":
    sys.exit(main())
