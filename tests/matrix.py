"""The tests under several versions of torch, each in an environment of its own, and the table of what they gave.

    python tests/matrix.py [2.11.0 2.13.0 2.14.1] [--groups losses audit contract export pages] [--out FOLDER]

Environments and results stand in FOLDER, build/matrix by default, and are used again. A group is run in one process,
without what is marked slow or thorough. `make matrix` runs it. Exits with 1 if a test failed.
"""

import argparse
import os
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[1]
VERSIONS = ("2.11.0", "2.13.0", "2.14.1")
GROUPS = {
    "losses": ["tests/assign", "tests/data", "tests/geometry", "tests/losses", "tests/terms", "tests/test_numerics.py"],
    "audit": ["tests/audit"],
    "contract": ["tests/contract"],
    "export": ["tests/exporting", "tests/export"],
    "pages": ["tests/test_readme.py"],
}


def python_of(version: str, folder: Path) -> Path:
    """The interpreter of an environment with this torch; it is built where it is missing."""
    environment = folder / version
    python, ready = environment / "bin" / "python", environment / ".ready"
    if not ready.exists():
        venv.create(environment, with_pip=True, clear=True)
        # The other packages as everywhere.
        lines = (ROOT / "constraints.txt").read_text().splitlines()
        others = folder / "constraints.txt"
        others.write_text("\n".join(line for line in lines if not line.startswith("torch==")))
        wanted = [f"torch=={version}", "--constraint", others, "--editable", f"{ROOT}[dev]"]
        subprocess.run([python, "-m", "pip", "install", "--quiet", *wanted], check=True)
        ready.touch()
    return python


def run(version: str, group: str, folder: Path) -> Path:
    """The results of a group, as pytest writes them."""
    report = folder / f"{version}-{group}.xml"
    options = ["-q", "-m", "not slow and not thorough", f"--junitxml={report}", "-p", "no:cacheprovider"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [python_of(version, folder), "-m", "pytest", *options, *GROUPS[group]]
    subprocess.run(command, cwd=ROOT, env=environment, check=False)
    return report


def counted(report: Path) -> tuple[int, int, list[str]]:
    """How many passed and how many were skipped, and the names of those that failed."""
    cases = list(ElementTree.parse(report).iter("testcase"))
    failed = [
        f"{case.get('classname')}::{case.get('name')}"
        for case in cases
        if case.find("failure") is not None or case.find("error") is not None
    ]
    skipped = sum(case.find("skipped") is not None for case in cases)
    return len(cases) - skipped - len(failed), skipped, failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("versions", nargs="*", default=VERSIONS)
    parser.add_argument("--groups", nargs="+", default=list(GROUPS), choices=GROUPS)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "matrix")
    options = parser.parse_args()
    folder, broken = options.out.resolve(), []
    folder.mkdir(parents=True, exist_ok=True)

    def cells(version: str) -> Iterator[str]:
        for group in options.groups:
            passed, skipped, failed = counted(run(version, group, folder))
            broken.extend(f"{version}  {name}" for name in failed)
            yield f"{passed} passed, {len(failed)} failed, {skipped} skipped"

    rows = [f"| {version} | {' | '.join(cells(version))} |" for version in options.versions]
    print(f"| torch | {' | '.join(options.groups)} |", f"| --- |{' --- |' * len(options.groups)}", *rows, sep="\n")
    print(*broken, sep="\n")
    return bool(broken)


if __name__ == "__main__":
    sys.exit(main())
