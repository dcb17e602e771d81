"""How long the detection loss takes to compile, without caches and with the caches of an earlier run.

    python examples/benchmarks/compiling.py [--rounds 1] [--device cuda]

Every figure is the first forward and backward of `compiled_criterion(model, compile=True)` in a new process, 48 rows,
batch 8, 640x640, 80 classes, minus the time of a later step. Importing torch is not counted, importing its compiler is.
"""

import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time

import torch
from batches import BATCH, MIXED, rows_of
from heads import HEADS, criteria, make_batch, make_preds
from timing import machine, parser_of, read_options, table


def first_step(device: str) -> float:
    """Seconds that compiling adds to the first step of this process, forward and backward."""
    preds = make_preds(HEADS["detect"], BATCH, device)
    batch = make_batch(rows_of(48, MIXED).to(device))
    loss = criteria(HEADS["detect"], preds, batch, with_reference=False)["criterion, compiled"]
    marks = [time.perf_counter()]
    for _ in range(2):
        loss().backward()
        if preds["boxes"].is_cuda:
            torch.cuda.synchronize()
        marks.append(time.perf_counter())
    first, later = (end - begin for begin, end in itertools.pairwise(marks))
    return first - later


def in_child(device: str, cache: str) -> float:
    """The same in a new process with a cache of its own."""
    command = [sys.executable, __file__, "--here", "--device", device]
    environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": cache}
    return float(subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout)


def main() -> None:
    """Print the table."""
    parser = parser_of(__doc__, rounds=1)
    parser.add_argument("--here", action="store_true", help="measure in this process, and print seconds")
    options = read_options(parser)
    if options.here:
        print(first_step(options.device))
        return
    seconds: dict[str, list[float]] = {"cold": [], "warm": []}
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as cache:
            for found in seconds.values():
                found.append(in_child(options.device, cache))
    rows = [[name, f"{statistics.median(found):.1f}"] for name, found in seconds.items()]
    print(table(["compile time of forward and backward", "s"], rows))
    print(f"\n{machine('torch', device=options.device)}, median of {options.rounds}")


if __name__ == "__main__":
    main()
