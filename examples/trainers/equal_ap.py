"""Equal AP: Ultralytics' trainer with the model's own criterion and with ours, on real data, several seeds each.

    python examples/trainers/equal_ap.py --set detect FOLDER [--set pose FOLDER ...] --epochs 50 --out runs/equal_ap

A FOLDER has labels.json in COCO style and images/. Every finished run becomes a line of OUT/runs.jsonl, and is skipped
if you start the program again. OUT/table.md has the table of all runs. AP is that of the last epoch on the val split.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ.setdefault("YOLO_CONFIG_DIR", tempfile.mkdtemp())

from yolo import operators  # isort: skip  # noqa: F401  (before torchvision)
from ultralytics import YOLO  # pyright: ignore[reportMissingImports]
from yolo.folder import write_folder
from yolo.runs import ENDINGS

from compiled_loss.integrations.criterion import Criterion
from compiled_loss.integrations.ultralytics import install

METRICS = {"detect": "B", "pose": "P", "obb": "B", "segment": "M"}  # which AP the trainer tells of a task
CRITERIA = ("own", "ours")
SETTING = ("data", "task", "head", "epochs", "size", "batch_size")  # what the runs in one line of the table share


def run(case: dict[str, Any], file: Path, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Train once; the case with its AP, in percent, and its minutes."""
    model, seen = YOLO(f"yolo{case['head']}n{ENDINGS[case['task']]}.yaml"), {}

    def note(trainer: Any) -> None:
        if trainer.epoch < options.epochs:  # once more for the best weights, when all is over
            key = f"metrics/mAP50-95({METRICS[case['task']]})"
            seen.update(ap=100 * float(trainer.metrics[key]), criterion=type(trainer.model.criterion))

    model.add_callback("on_fit_epoch_end", note)
    settings = {"data": str(file), "epochs": options.epochs, "imgsz": options.size, "batch": options.batch_size}
    settings |= {"seed": case["seed"], "workers": options.workers, "device": options.device, "verbose": False}
    # A mirrored animal has its left paw on the right. A step for every batch, and one validation, after the last epoch.
    settings |= {"nbs": options.batch_size, "val": False, "fliplr": 0.0, "plots": False, "exist_ok": True}
    settings["project"] = str(folder.resolve() / "runs")
    begin = time.perf_counter()
    with install(model, compile=options.compile) if case["criterion"] == "ours" else nullcontext():
        model.train(**settings)
    assert issubclass(seen["criterion"], Criterion) is (case["criterion"] == "ours")
    return {**case, "ap": seen["ap"], "minutes": (time.perf_counter() - begin) / 60}


def table(runs: list[dict[str, Any]]) -> str:
    """Mean AP of each criterion, with the lowest and the highest of its seeds, and how far the means are apart."""
    lines = [
        "| data | head | epochs, px, batch | seeds | AP, own criterion | ours | ours - own | spread of own | minutes |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for setting in dict.fromkeys(tuple(x[key] for key in SETTING) for x in runs):
        data, task, head, *numbers = setting
        mine = [x for x in runs if tuple(x[key] for key in SETTING) == setting]
        both = [[x for x in mine if x["criterion"] == name] for name in CRITERIA]
        if not all(both):
            continue
        aps = [[x["ap"] for x in each] for each in both]
        means = [statistics.mean(each) for each in aps]
        minutes = " / ".join(f"{statistics.mean(x['minutes'] for x in each):.1f}" for each in both)
        shown = " | ".join(f"{m:.1f} ({min(x):.1f} to {max(x):.1f})" for m, x in zip(means, aps, strict=True))
        seeds = " / ".join(str(len(x)) for x in aps)
        spread = max(aps[0]) - min(aps[0])
        difference = f"{means[1] - means[0]:+.1f} | {spread:.1f} | {minutes} |"
        how = ", ".join(str(number) for number in numbers)
        lines.append(f"| {data}, {task} | yolo{head}n | {how} | {seeds} | {shown} | {difference}")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", nargs=2, action="append", required=True, metavar=("TASK", "FOLDER"), dest="sets")
    parser.add_argument("--heads", nargs="*", default=["11", "26"])
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--size", type=int, default=320, help="side of the square pictures")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument(
        "--pictures", type=int, nargs=2, default=(10**6, 10**6), help="most pictures for training and for validation"
    )
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true", help="compile our criterion")
    parser.add_argument("--out", type=Path, default=Path("runs/equal_ap"))
    options = parser.parse_args()
    if unknown := [task for task, _ in options.sets if task not in METRICS]:
        parser.error(f"--set: {', '.join(unknown)}: tasks are {', '.join(METRICS)}")
    options.out.mkdir(parents=True, exist_ok=True)
    log = options.out / "runs.jsonl"
    runs = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    for task, source in options.sets:
        folder = options.out / f"{Path(source).name}-{task}-{options.size}"
        file = write_folder(folder, task, options.size, options.pictures, Path(source))
        for seed in options.seeds:  # a seed of all before the next, so that a short run has something to show
            for head in options.heads:
                for criterion in CRITERIA:
                    case = {"data": Path(source).name, "task": task, "head": head, "seed": seed}
                    case |= {"criterion": criterion, "epochs": options.epochs, "size": options.size}
                    case |= {"batch_size": options.batch_size}
                    if any(case.items() <= done.items() for done in runs):
                        continue
                    runs.append(run(case, file, folder, options))
                    with log.open("a") as lines:
                        lines.write(json.dumps(runs[-1]) + "\n")
                    (options.out / "table.md").write_text(table(runs))
    print(table(runs))


if __name__ == "__main__":
    main()
