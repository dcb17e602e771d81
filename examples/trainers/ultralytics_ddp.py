"""Ultralytics' trainer in two processes, with DistributedDataParallel around its network.

    python examples/trainers/ultralytics_ddp.py [--data FOLDER] [--backend none]

It starts itself twice under torchrun, over gloo on a CPU. There the trainer shares out the pictures by itself, but
unlike on GPUs it neither starts the process group nor wraps the network, so a callback here does both.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ["YOLO_CONFIG_DIR"] = tempfile.mkdtemp()

try:
    from ultralytics import YOLO  # pyright: ignore[reportMissingImports]
    from yolo import operators  # noqa: F401  (before torchvision)
except ModuleNotFoundError:
    sys.exit("ultralytics is not installed: see examples/trainers/ultralytics.txt and ultralytics.alone.txt")
import torch
import torch.distributed as dist
from claims import claim
from demo.engine import CompileLog
from processes import under_torchrun
from torch.nn.parallel import DistributedDataParallel
from yolo.folder import write_folder
from yolo.runs import BATCH, SIZE, Run

from compiled_loss.integrations.criterion import Criterion
from compiled_loss.integrations.ultralytics import install

CONFIG, PROCESSES = "yolo11n.yaml", 2


def wrap(trainer: Any) -> None:
    """Average gradients over the processes."""
    trainer.model = DistributedDataParallel(trainer.model)
    trainer.final_eval = lambda: None  # asks for a GPU wherever there is a process group


def train(folder: Path, name: str, options: dict[str, Any] | None) -> Run:
    """With its own criterion, or with ours."""
    model = YOLO(CONFIG)
    model.add_callback("on_pretrain_routine_end", wrap)
    with nullcontext() if options is None else install(model, **options):
        # Beside a process group it turns mixed precision on, with a scaler for GPUs.
        return Run(model, folder, f"{name}{dist.get_rank()}", amp=False).train()


def spread(run: Run) -> float:
    """How far the processes' weights are apart at the end."""
    weights = torch.cat([x.detach().flatten() for x in run.network.parameters()])
    least, most = weights.clone(), weights.clone()
    dist.all_reduce(least, dist.ReduceOp.MIN)
    dist.all_reduce(most, dist.ReduceOp.MAX)
    return float((most - least).max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="FOLDER/labels.json in COCO style and FOLDER/images/; else rendered")
    parser.add_argument("--backend", default="inductor", help="backend of torch.compile; none leaves that part out")
    options = parser.parse_args()
    under_torchrun(PROCESSES)
    dist.init_process_group("gloo")
    with tempfile.TemporaryDirectory() as scratch:
        write_folder(Path(scratch), "detect", SIZE, (8 * BATCH, BATCH), options.data)
        own, ours = train(Path(scratch), "own", None), train(Path(scratch), "ours", {})
        claim("the criterion that trained is ours", isinstance(ours.criterion, Criterion))
        off = float(((ours.losses[0] - own.losses[0]).abs() / own.losses[0]).max())
        claim(f"rank {dist.get_rank()}: first losses {ours.losses[0].tolist()} off by {off:.1e}", off <= 1e-5)
        runs, log = [own, ours], CompileLog()
        if options.backend != "none":
            runs.append(
                train(Path(scratch), "compiled", {"compile": True, "backend": options.backend, "dynamic": True})
            )
            graphs, breaks = (log.summary()[name] for name in ("graphs", "graph_breaks"))
            claim(f"compiled: {graphs} graph, {breaks} breaks", (graphs, breaks) == (1, 0))
        runs.append(train(Path(scratch), "joined", {"distributed": True}))
        log.close()
    for run in runs:
        apart = spread(run)
        first, last = (float(torch.stack(run.losses[part]).sum(1).mean()) for part in (slice(4), slice(-4, None)))
        claim(
            f"{len(run.losses)} steps, losses {first:.3f} to {last:.3f}, weights of the ranks {apart} apart", apart == 0
        )
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
