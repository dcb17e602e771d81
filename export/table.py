"""The README's table of runtimes, from what `python -m compiled_loss export verify --json` wrote.

    python -m export.table FOLDER     # adds FOLDER/*.json to runtimes.json, and writes the table into README.md
    python -m export.table            # only writes the table

A later run of the same graph in the same form and the same version of a runtime replaces an earlier one.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS, PAGE = HERE / "runtimes.json", HERE / "README.md"
BEGIN, END = "<!-- runtimes, by export/table.py -->\n", "<!-- end of runtimes -->\n"
GRAPHS = ("assignment", "loss", "gradients", "decoding")
NAMES = {
    "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "reference": "onnx.reference", "iree": "IREE", "tvm": "TVM",
    "torch": "torch (.pt2)", "executorch": "ExecuTorch (.pt2)", "litert": "LiteRT (.pt2)",
}  # fmt: skip
# Kinds of batches: without rows, with broken predictions, the others.
KINDS = ("empty", "broken", "usual")
KEYS = ("runtime", "version", "task", "graph", "form")
USUAL = [64, 96]  # rows and columns of pixels


def condensed(report: dict[str, Any]) -> dict[str, Any]:
    """What the table needs of a report: of every kind of batches how many came out how, and the first reason."""
    counts: dict[str, dict[str, int]] = {kind: {} for kind in KINDS}
    for x in report["verdicts"]:
        kind = "empty" if x["rows"] == 0 else "broken" if "NaN" in x["batch"] else "usual"
        counts[kind][x["verdict"]] = counts[kind].get(x["verdict"], 0) + 1
    reason = next((f"{x['verdict']}: {x['reason']}" for x in report["verdicts"] if x["reason"]), "")
    reason = re.sub(r"/\S*/", "", reason)  # folders in which the runtime was built
    version = report["version"].split("-")[0]  # of OpenVINO without the commit that it was built from
    task = report["task"] + (", end to end" if report["end_to_end"] else "")
    return {"runtime": report["runtime"], "version": version, "task": task, "graph": report["graph"],
            "form": form(report["graph"], report["setting"]), "written_with": report["versions"],
            "counts": counts, "reason": reason}  # fmt: skip


def form(graph: str, setting: dict[str, Any]) -> str:
    """What is special about a file of the same graph: image size, planned pages or tiles, slots of rows, no best k."""
    size = setting["image_size"]
    words = ["any size"] if size is None else [] if size == USUAL else ["x".join(map(str, size))]
    words += ["planned"] if setting["pages"] or setting["mask_tiles"] else []
    words += ["slots"] if setting["slots"] else []
    words += ["every anchor"] if graph == "decoding" and setting["k"] is None else []
    words += ["for ONNX Runtime"] if setting["for_onnx_runtime"] else []
    return " ".join(words) or "usual"


def table(results: list[dict[str, Any]]) -> str:
    """The rows, one for each runtime and task, and below what runtimes said where they did not run a graph."""
    lines = [f"| runtime | task | {' | '.join(GRAPHS)} | N = 0 | NaN | forms |"]
    lines.append(f"| --- | --- {'| ---: ' * 6}| --- |")
    for runtime, version, task in sorted({(x["runtime"], x["version"], x["task"]) for x in results}, key=_order):
        own = [x for x in results if (x["runtime"], x["version"], x["task"]) == (runtime, version, task)]
        graphs = [[x for x in own if x["graph"] == graph] for graph in GRAPHS]
        cells = [_cell(found, "usual") for found in graphs] + [_cell(own, kind) for kind in ("empty", "broken")]
        cells.append(", ".join(sorted({x["form"] for x in own}, key=lambda x: (x != "usual", x))))
        lines.append(f"| {NAMES.get(runtime, runtime)} {version} | {task} | {' | '.join(cells)} |")
    reasons: dict[tuple[str, str], list[str]] = {}
    for x in sorted(results, key=_order):
        if x["reason"]:
            told = f"{NAMES.get(x['runtime'], x['runtime'])} {x['version']}", x["reason"][:240].replace("|", "\\|")
            where = f"{x['task']} {x['graph']}" + (f", {x['form']}" if x["form"] != "usual" else "")
            reasons.setdefault(told, []).append(where)
    notes = [f"- {name} ({'; '.join(where)}): `{reason}`" for (name, reason), where in reasons.items()]
    return "\n".join([*lines, *([""] if notes else []), *notes]) + "\n"


def _cell(found: Iterable[dict[str, Any]], kind: str) -> str:
    """How many batches of a kind are right of how many, and how the others came out."""
    counts: dict[str, int] = {}
    for x in found:
        for verdict, number in x["counts"][kind].items():
            counts[verdict] = counts.get(verdict, 0) + number
    if not counts:
        return ""
    others = [f"{number} {verdict}" for verdict, number in sorted(counts.items()) if verdict != "right"]
    right = f"{counts.get('right', 0)} of {sum(counts.values())}"
    return right if not others else f"{right} ({', '.join(others)})"


def _order(x: Any) -> tuple[str, ...]:
    return tuple(x[key] for key in KEYS) if isinstance(x, dict) else x


def page(text: str, results: list[dict[str, Any]]) -> str:
    """The README with the table between its marks.

    Raises:
        ValueError: for a README without them.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"README.md: expected one line {BEGIN.strip()} and one {END.strip()}")
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{table(results)}\n{END}{rest.split(END)[1]}"


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0, 2 for a wrong argument."""
    parser = argparse.ArgumentParser(prog="python -m export.table", description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("folder", nargs="?", help="folder with verdicts to add, *.json")
    given = parser.parse_args(arguments)
    results = {_order(x): x for x in (json.loads(RESULTS.read_text()) if RESULTS.exists() else [])}
    paths = sorted(Path(given.folder).glob("*.json")) if given.folder else []
    if given.folder and not paths:
        parser.error(f"folder: expected one with *.json, got {given.folder}")
    try:
        results |= {_order(x): x for x in (condensed(json.loads(path.read_text())) for path in paths)}
        text = page(PAGE.read_text(), list(results.values()))
    except (ValueError, KeyError) as error:
        parser.error(f"{type(error).__name__}: {error}")
    RESULTS.write_text(json.dumps([results[key] for key in sorted(results)], indent=1) + "\n")
    PAGE.write_text(text)
    print(f"{len(results)} graphs in runtimes.json, {len(paths)} of them new")
    return 0


if __name__ == "__main__":
    sys.exit(main())
