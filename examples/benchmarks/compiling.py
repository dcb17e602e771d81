"""How long the detection loss takes to compile, with nothing kept from before and with the caches of an earlier run.

    python examples/benchmarks/compiling.py [--rounds 1] [--device cuda]

Every figure is the first forward and backward of `compiled_criterion(model, compile=True)` in a new process, 48 rows,
batch 8, 640x640, 80 classes, less what the step takes later. Importing torch is not counted, its compiler is.
"""

import itertools
import json
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


def first_step(device: str) -> tuple[float, float]:
    """Seconds that compiling adds to the first forward and to the first backward of this process."""
    preds = make_preds(HEADS["detect"], BATCH, device)
    batch = make_batch(rows_of(48, MIXED).to(device))
    loss = criteria(HEADS["detect"], preds, batch, with_reference=False)["criterion, compiled"]
    wait = torch.cuda.synchronize if preds["boxes"].is_cuda else lambda: None
    marks = []
    for _ in range(2):
        marks.append(time.perf_counter())
        total = loss()
        wait()
        marks.append(time.perf_counter())
        total.backward()
        wait()
        marks.append(time.perf_counter())
    spans = [end - begin for begin, end in itertools.pairwise(marks)]
    return spans[0] - spans[3], spans[1] - spans[4]


def in_child(device: str, cache: str) -> list[float]:
    """The same in a new process with a cache of its own."""
    command = [sys.executable, __file__, "--here", "--device", device]
    environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": cache}
    return json.loads(subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout)


def main() -> None:
    """Print the table."""
    parser = parser_of(__doc__, rounds=1)
    parser.add_argument("--here", action="store_true", help="measure this process, print JSON")
    options = read_options(parser)
    if options.here:
        print(json.dumps(first_step(options.device)))
        return
    seconds: dict[str, list[list[float]]] = {"cold": [], "warm": []}
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as cache:
            for spans in seconds.values():
                spans.append(in_child(options.device, cache))
    rows = []
    for name, spans in seconds.items():
        forward, backward = (statistics.median(x) for x in zip(*spans, strict=True))
        rows.append([name, f"{forward:.1f}", f"{backward:.1f}", f"{forward + backward:.1f}"])
    print(table(["compile time, s", "forward", "backward", "both"], rows))
    print(f"\n{machine('torch', device=options.device)}, median of {options.rounds}")


if __name__ == "__main__":
    main()
