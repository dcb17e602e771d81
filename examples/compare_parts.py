"""Average precision of one small detector trained with other parts: a table at equal steps.

    python examples/compare_parts.py --data FOLDER [--steps 150] [--image-size 192] [--seeds 0 1] [--only simota nwd]

Every row is a run of `train.py --task detect` from the same seeds and batches, eagerly; only the loss differs. A cell
holds the AP of each seed, in percent. So few steps show which parts learn quickly, not which are best in the end.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
import time
from pathlib import Path

from demo.needs import end_without

try:
    from demo.parts import ASSIGNERS, CLASS_TERMS, UPRIGHT
    from demo.run import run
    from demo.settings import parse
    from rich.console import Console
except ModuleNotFoundError as error:
    end_without(error)

HEADER = ["", "AP", "AP at 0.50", "seconds"]


def variants() -> dict[str, list[str]]:
    """Arguments of `train.py` by row: every assigner, then each other term beside the default assigner."""
    first, *_ = ASSIGNERS
    found = {name: ["--assigner", name] for name in ASSIGNERS}
    found |= {name: ["--box-term", name] for name in UPRIGHT}
    return found | {name: ["--class-term", name] for name in CLASS_TERMS} | {first: []}


def main(arguments: list[str] | None = None) -> None:
    """Print the table, each row as soon as it is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, metavar="FOLDER", help="FOLDER/labels.json and FOLDER/images/")
    parser.add_argument("--steps", type=int, default=150, help="default: %(default)s")
    parser.add_argument("--image-size", type=int, default=192, help="default: %(default)s")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="default: 0")
    parser.add_argument("--only", nargs="+", choices=tuple(variants()), help="measure only these rows; default: all")
    given = parser.parse_args(arguments)
    print("| " + " | ".join(HEADER) + " |\n| --- | ---: | ---: | ---: |", flush=True)
    for name in given.only or variants():
        begin, results = time.perf_counter(), []
        for seed in given.seeds:
            with tempfile.TemporaryDirectory() as out:
                words = ["--task", "detect", "--data", given.data, "--no-compile", "--timing-rounds", "0", "--out", out]
                words += ["--steps", str(given.steps), "--image-size", str(given.image_size), "--seed", str(seed)]
                status = run(parse([*words, *variants()[name]]), Console(file=io.StringIO()))
                if status:
                    sys.exit(status)
                results.append(json.loads((Path(out) / "results.json").read_text()))
        cells = (", ".join(f"{100 * (x[key] or 0):.1f}" for x in results) for key in ("ap", "ap50"))
        print(f"| {name} | {' | '.join(cells)} | {time.perf_counter() - begin:.0f} |", flush=True)


if __name__ == "__main__":
    main()
