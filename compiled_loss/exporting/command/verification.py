"""The command that verifies a file in a runtime."""

import argparse
import json
import os
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from compiled_loss.exporting.command.naming import by_option
from compiled_loss.exporting.verifying.compare import TOLERANCE, VERDICTS, Verdict
from compiled_loss.exporting.verifying.runtimes import RUNTIMES
from compiled_loss.exporting.verifying.verify import Report, verify

_TEXT = """\
Run an exported file in a runtime over random and edge batches, and compare every output with that of eager torch,
rebuilt from the metadata in the file. The runtime runs in a process of its own. A batch is right, wrong, refused (the
runtime raised an error) or ended (its process died or took too long).
Exit status: 0 all batches are right, 1 one is not, 2 the file cannot be read or the runtime is not installed."""


def add_verification(commands: Any) -> None:
    """Add the command to the subcommands of a parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "verify",
        help="run a file in a runtime and compare it with eager torch",
        description=_TEXT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("file", help=".onnx, .pt2 or .aoti.pt2")
    add("--runtime", choices=RUNTIMES, help="runtime to use; default: onnxruntime for .onnx files, else torch")
    add("--python", default=sys.executable, metavar="PATH", help="interpreter of an environment that has the runtime")
    add("--node", default=".", metavar="FOLDER", help="for a Node.js runtime, the folder with its node_modules")
    add("--limit", type=float, default=120.0, metavar="SECONDS", help="limit for loading, and for a batch (120)")
    add(
        "--json",
        metavar="FILE",
        help="write the verdicts as JSON; - writes them to standard output instead of the text",
    )
    parser.set_defaults(run=partial(_run, parser))


def _run(parser: argparse.ArgumentParser, given: Any) -> int:
    try:
        if given.json not in (None, "-"):
            os.scandir(Path(given.json).parent).close()
        report = verify(
            given.file, given.runtime, python=given.python, modules=given.node, limit=given.limit, progress=_Progress()
        )
        text = json.dumps(report.plain(), indent=1)
        if given.json not in (None, "-"):
            Path(given.json).write_text(f"{text}\n")
    except (ValueError, ImportError, OSError) as error:
        parser.error(by_option(error, given, "file"))
    sys.stdout.write(f"{text if given.json == '-' else summary(report)}\n")
    return 0 if report.right else 1


def summary(report: Report) -> str:
    """A line for every output, and the number of batches with each verdict."""
    width = max(len(name) for name in report.outputs)
    title = f"{report.graph} of task {report.task} in {report.runtime} {report.version}"
    lines = [title, f"{'output':{width}}  {'largest error':>13}  in"]
    for name in report.outputs:
        error, batch = report.worst(name)
        told = "none" if error is None else f"{error:.1e}"
        lines.append(f"{name:{width}}  {told:>13}  {batch}{'' if (error or 0) <= TOLERANCE else '  WRONG'}".rstrip())
    counts = Counter(x.verdict for x in report.verdicts)
    told = ", ".join(f"{counts[x]} {x}" for x in VERDICTS if counts[x])
    wrong = sorted({name for x in report.verdicts for name in x.wrong})
    end = "all outputs agree" if report.right else f"{told}; FAILED" + (f" in {', '.join(wrong)}" if wrong else "")
    return "\n".join([*lines, f"{len(report.verdicts)} batches: {end}"])


class _Progress:
    """Prints every batch that is not right as soon as it is judged; of several with the same reason only the first."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def __call__(self, verdict: Verdict) -> None:
        told = verdict.reason or ", ".join(verdict.wrong)
        if verdict.verdict != "right" and told not in self._told:
            self._told.add(told)
            sys.stderr.write(f"{verdict.batch}: {verdict.verdict}: {told}\n")
