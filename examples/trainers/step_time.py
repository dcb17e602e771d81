"""A whole training step of Ultralytics' networks: forward, loss and backward, with three criteria in turn.

    python examples/trainers/step_time.py [--data FOLDER] [--tasks detect segment] [--heads 11 26] [--rounds 15]

All use the same batches: no criterion (a sum of the head's outputs), the model's own, ours, and ours compiled. The
table has medians, and the share of the loss, forward and backward, in the step. Batches have real pictures with --data,
else rendered ones, without augmentation.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ.setdefault("YOLO_CONFIG_DIR", tempfile.mkdtemp())

from yolo import operators  # isort: skip  # noqa: F401  (before torchvision)
import torch
from demo.folder import Folder
from demo.tasks import TASKS
from timed import BATCHES, batches_of, in_turn
from torch import Tensor
from ultralytics import YOLO  # pyright: ignore[reportMissingImports]
from yolo.runs import ENDINGS

from compiled_loss.data.rows import join_images
from compiled_loss.integrations.ultralytics import compiled_criterion

GAINS = {"box": 7.5, "cls": 0.5, "dfl": 1.5, "pose": 12.0, "kobj": 1.0, "rle": 1.0, "angle": 1.0}


def batch_of(pictures: Tensor, labels: list[Any]) -> dict[str, Tensor]:
    """A batch as the trainer has it."""
    rows = join_images([one.targets(pictures.shape[2]) for one in labels], "targets")
    boxes = rows.boxes if rows.angles is None else torch.cat([rows.boxes, rows.angles[:, None]], 1)
    batch = {"batch_idx": rows.batch_idx.float(), "cls": rows.labels[:, None].float(), "bboxes": boxes, "img": pictures}
    if rows.keypoints is not None:
        batch["keypoints"] = rows.keypoints
    if rows.index_map is not None:
        batch["masks"] = rows.index_map.float()
        batch["sem_masks"] = torch.zeros_like(rows.index_map, dtype=torch.int64)
    return batch


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


def step_of(network: Any, criterion: Callable[..., Any]) -> Callable[[dict[str, Tensor]], None]:
    """Forward and backward."""

    def step(batch: dict[str, Tensor]) -> None:
        criterion(network(batch["img"]), batch)[0].sum().backward()
        network.zero_grad()

    return step


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
        size, images = options.size, options.batch_size
        source = (
            Folder(options.data, "train", size, task)
            if options.data
            else TASKS[task].rendered(size, BATCHES * images, 0, 0)
        )
        batches = batches_of(source, images, batch_of)
        for head in options.heads:
            network = network_of(task, head, source.info)
            ours, compiled = compiled_criterion(network), compiled_criterion(network, compile=True, dynamic=True)
            criteria = {"none": no_criterion, "own": network.init_criterion(), "ours": ours, "compiled": compiled}
            steps = {name: step_of(network, criterion) for name, criterion in criteria.items()}
            times = in_turn(steps, batches, options.rounds)
            whole = {name: ms for name, (ms, _) in times.items()}
            rows = sum(len(batch["cls"]) for batch in batches) // len(batches)
            shown = " | ".join(f"{x:.0f}" for x in whole.values())
            shares = " | ".join(f"{1 - whole['none'] / whole[name]:.0%}" for name in ("own", "compiled"))
            ratio = f"{whole['own'] / whole['compiled']:.2f} | {shares} | {times['compiled'][1]:.0f} s"
            print(f"| yolo{head}n{ENDINGS[task]} | {rows} | {shown} | {ratio} |", flush=True)


if __name__ == "__main__":
    main()
