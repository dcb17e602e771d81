"""LibreYOLO: YOLOv9-t trained from scratch by the package's own trainer, with its own loss and with ours.

    python examples/trainers/libreyolo_run.py [--data FOLDER]

FOLDER/data.yaml says where pictures and labels are, in the package's form; without --data, rectangles are rendered.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch._dynamo.utils import counters

from compiled_loss.integrations.libre_criteria import Criterion
from compiled_loss.integrations.libreyolo import install

PARSER = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
PARSER.add_argument("--data", type=Path, help="FOLDER/data.yaml; else rendered")
PARSER.add_argument("--steps", type=int, default=32)
PARSER.add_argument("--size", type=int, default=128, help="side of the square pictures, a multiple of 32")
PARSER.add_argument("--batch-size", type=int, default=8)
PARSER.add_argument("--backend", default="inductor", help="backend of torch.compile")
PARSER.add_argument("--device", default="cpu")
OPTIONS = PARSER.parse_args()
try:
    import cv2  # type: ignore[import-not-found]
    from libreyolo import LibreYOLO9  # type: ignore[import-not-found]
    from libreyolo.models.yolo9.trainer import YOLO9Trainer  # type: ignore[import-not-found]
except ModuleNotFoundError:
    sys.exit("libreyolo is not installed: pip install -r examples/trainers/libreyolo.txt")

EPOCHS, WARM_UP, WINDOW = 2, 2, 8


def render(folder: Path) -> Path:
    """Pictures of rectangles of two colours, and their labels."""
    generator, side = np.random.default_rng(0), OPTIONS.size
    for name in ("images", "labels"):
        (folder / name).mkdir()
    for i in range(OPTIONS.steps // EPOCHS * OPTIONS.batch_size):
        picture, lines = generator.integers(0, 128, (side, side, 3), dtype=np.uint8), []
        for _ in range(generator.integers(0, 6)):
            sides = generator.uniform(0.03, 0.5, 2)
            low, label = generator.uniform(0, 1 - sides), int(generator.integers(2))
            corners = [(x * side).astype(int).tolist() for x in (low, low + sides)]
            cv2.rectangle(picture, *corners, [(255, 0, 0), (0, 255, 0)][label], -1)
            lines.append(f"{label} " + " ".join(f"{x:.6f}" for x in (*(low + sides / 2), *sides)))
        cv2.imwrite(str(folder / "images" / f"{i}.png"), picture)
        (folder / "labels" / f"{i}.txt").write_text("\n".join(lines))
    yaml = f"path: {folder}\ntrain: images\nval: images\nnc: 2\nnames: [blue, green]\n"
    (folder / "data.yaml").write_text(yaml)
    return folder


@contextlib.contextmanager
def recorded() -> Iterator[tuple[list[dict[str, float]], list[int]]]:
    """Losses of every step of a trainer, and the graphs there are after it."""
    losses, graphs, own = [], [], YOLO9Trainer._forward_train
    inherited = "_forward_train" not in vars(YOLO9Trainer)

    def step(trainer: Any, *given: Any) -> Any:
        out = own(trainer, *given)
        losses.append({name: float(out[name].detach()) for name in ("total_loss", "box", "dfl", "cls")})
        graphs.append(counters["stats"]["unique_graphs"])
        return out

    YOLO9Trainer._forward_train = step
    try:
        yield losses, graphs
    finally:
        YOLO9Trainer._forward_train = own
        if inherited:
            del YOLO9Trainer._forward_train


def train(folder: Path, work: Path) -> None:
    """As anyone would."""
    names = {"project": str(work), "name": "run", "exist_ok": True, "eval_interval": 100}
    size = {"epochs": EPOCHS, "batch": OPTIONS.batch_size, "imgsz": OPTIONS.size, "warmup_epochs": 1}
    torch.manual_seed(0)  # the trainer seeds the data, not the weights
    model = LibreYOLO9(None, size="t", nb_classes=2, device=OPTIONS.device)
    model.train(str(folder / "data.yaml"), workers=0, amp=False, device=OPTIONS.device, **size, **names)


def claim(text: str, held: bool) -> None:
    if not held:
        sys.exit(f"FAILED  {text}")
    print(f"ok      {text}", flush=True)


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        folder = OPTIONS.data or render(work)
        with recorded() as (theirs, _):
            train(folder, work)
        counters.clear()
        with install(YOLO9Trainer, compile=True, backend=OPTIONS.backend) as ours, recorded() as (losses, graphs):
            train(folder, work)
    trained = [x for x in ours.criteria if isinstance(x, Criterion)]
    claim(f"the criterion is {type(trained[0]).__qualname__} of both heads", len(trained) == 2)  # one is auxiliary
    found = graphs[-1], sum(counters["graph_break"].values())
    # The heads' losses hold no weights, so that the second may run the graph of the first.
    claim(f"{found[0]} graphs for two heads, {found[1]} breaks", found[0] in (1, 2) and found[1] == 0)
    claim(f"no recompile after {WARM_UP} of {len(graphs)} steps", graphs[WARM_UP - 1] == graphs[-1])
    claim(f"{len(losses)} steps as with its own loss", len(losses) == len(theirs) >= 16)
    drift = [max(abs(a[k] - b[k]) / b["total_loss"] for k in b) for a, b in zip(losses, theirs, strict=True)]
    claim(f"first losses as its own, {losses[0]['total_loss']:.4f}: off by {drift[0]:.1e}", drift[0] <= 1e-5)
    claim(
        f"the same up to step 3: off by {max(drift[:3]):.1e}; later by up to {max(drift):.1e}", max(drift[:3]) <= 1e-3
    )
    last, right = (sum(x["total_loss"] for x in each[-WINDOW:]) / WINDOW for each in (losses, theirs))
    claim(f"last {WINDOW} losses {last:.3f} on average, with its own {right:.3f}", abs(last - right) < 0.2 * right)
    claim("nothing of ours is left in its class", "on_setup" not in vars(YOLO9Trainer))


if __name__ == "__main__":
    main()
