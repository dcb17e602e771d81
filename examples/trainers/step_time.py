"""A whole training step of Ultralytics' networks: forward, loss and backward, with three criteria in turn.

    python examples/trainers/step_time.py [--data FOLDER] [--tasks detect segment] [--heads 11 26] [--rounds 15]

The same batches for no criterion (a sum of what the head gives), the model's own, ours, and ours compiled; medians,
and the share of the loss, forward and backward, in the step. Batches are of real pictures with --data, else rendered,
without augmentation.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ.setdefault("YOLO_CONFIG_DIR", tempfile.mkdtemp())

from yolo import operators  # isort: skip  # noqa: F401  (before torchvision)
import torch
from demo.folder import Folder
from demo.labels import image_tensor
from demo.tasks import TASKS
from torch import Tensor
from ultralytics import YOLO  # pyright: ignore[reportMissingImports]
from yolo.runs import ENDINGS

from compiled_loss.data.rows import join_images
from compiled_loss.integrations.ultralytics import compiled_criterion

GAINS = {"box": 7.5, "cls": 0.5, "dfl": 1.5, "pose": 12.0, "kobj": 1.0, "rle": 1.0, "angle": 1.0}


def batches_of(options: argparse.Namespace, task: str) -> tuple[list[dict[str, Tensor]], Any]:
    """Batches as the trainer has them, and what the data is about."""
    size, images = options.size, options.batch_size
    source = Folder(options.data, "train", size, task) if options.data else TASKS[task].rendered(size, 3 * images, 0, 0)
    batches = []
    for begin in range(0, min(len(source), 3 * images) - images + 1, images):
        samples = [source.sample(i) for i in range(begin, begin + images)]
        rows = join_images([labels.targets(size) for _, labels in samples], "targets")
        boxes = rows.boxes if rows.angles is None else torch.cat([rows.boxes, rows.angles[:, None]], 1)
        batch = {"batch_idx": rows.batch_idx.float(), "cls": rows.labels[:, None].float(), "bboxes": boxes}
        batch["img"] = torch.stack([image_tensor(picture) for picture, _ in samples])
        if rows.keypoints is not None:
            batch["keypoints"] = rows.keypoints
        if rows.index_map is not None:
            batch["masks"] = rows.index_map.float()
            batch["sem_masks"] = torch.zeros_like(rows.index_map, dtype=torch.int64)
        batches.append(batch)
    return batches, source.info


def network_of(task: str, head: str, info: Any) -> Any:
    """A network with random weights for the data's classes and keypoints, and the trainer's default gains."""
    model = YOLO(f"yolo{head}n{ENDINGS[task]}.yaml").model
    given = {**model.yaml, "nc": len(info.classes)}
    if info.keypoints:
        given["kpt_shape"] = [len(info.keypoints), 3]
    torch.manual_seed(0)
    network = type(model)(given, verbose=False)
    network.args = SimpleNamespace(**GAINS, overlap_mask=True, epochs=100)
    return network.train()


def no_criterion(output: Any, _batch: dict[str, Tensor]) -> tuple[Tensor, None]:
    """The sum of what a head gives: a step without a loss."""
    if isinstance(output, Tensor):
        return output.sum(), None
    parts = [x for key, x in output.items() if key != "feats"] if isinstance(output, dict) else list(output)
    return sum((no_criterion(x, _batch)[0] for x in parts if x is not None), torch.zeros(())), None


def step(network: Any, criterion: Callable[..., Any], batch: dict[str, Tensor]) -> float:
    """Milliseconds of a step."""
    begin = time.perf_counter()
    criterion(network(batch["img"]), batch)[0].sum().backward()
    network.zero_grad()
    return 1e3 * (time.perf_counter() - begin)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="FOLDER/labels.json in COCO style and FOLDER/images/; else rendered")
    parser.add_argument("--tasks", nargs="*", default=["detect"], choices=list(ENDINGS))
    parser.add_argument("--heads", nargs="*", default=["11"])
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    print(f"{options.batch_size} pictures of {options.size}, {torch.get_num_threads()} threads")
    print(
        "| network | rows | no loss, ms | own | ours | compiled | own / compiled | share of own | of compiled | first |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for task in options.tasks:
        batches, info = batches_of(options, task)
        for head in options.heads:
            network = network_of(task, head, info)
            ours, compiled = compiled_criterion(network), compiled_criterion(network, compile=True, dynamic=True)
            criteria = {"none": no_criterion, "own": network.init_criterion(), "ours": ours, "compiled": compiled}
            first = [step(network, criterion, batches[0]) / 1e3 for criterion in criteria.values()][-1]
            times: dict[str, list[float]] = {name: [] for name in criteria}
            for turn in range(options.rounds + 1):
                for name, criterion in criteria.items():
                    times[name].append(step(network, criterion, batches[turn % len(batches)]))
            whole = {name: statistics.median(t[1:]) for name, t in times.items()}
            rows = sum(len(batch["cls"]) for batch in batches) // len(batches)
            shown = " | ".join(f"{x:.0f}" for x in whole.values())
            shares = " | ".join(f"{1 - whole['none'] / whole[name]:.0%}" for name in ("own", "compiled"))
            ratio = f"{whole['own'] / whole['compiled']:.2f} | {shares} | {first:.0f} s"
            print(f"| yolo{head}n{ENDINGS[task]} | {rows} | {shown} | {ratio} |", flush=True)


if __name__ == "__main__":
    main()
