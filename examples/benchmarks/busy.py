"""The criterion on a busy machine: another process takes one core, as data loaders do in training.

    python examples/benchmarks/busy.py [--rounds 9] [--spinning 1] [--device cuda]

Detection, forward and backward, batch 8, 640x640, 80 classes, 480 mixed rows. In brackets: how many times faster than
the reference beside it. `kept` is the share of the quiet machine's ratio that is left. Threads that wait passively
(`OMP_WAIT_POLICY=passive`) leave the core to others between two parallel loops. The variable is read when a process
starts, so each setting runs in a process of its own.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeAlias

import torch
from batches import BATCH, MIXED, rows_of
from heads import HEADS, criteria, leaves_of, make_batch, make_preds, make_steps
from timing import available, cell, in_turn, machine, parser_of, print_table, read_options

Milliseconds: TypeAlias = dict[str, float]
POLICIES = {"default": {}, "passive": {"OMP_WAIT_POLICY": "passive"}}
COLUMNS = ("criterion, compiled", "criterion, eager")


@contextmanager
def spinning(count: int) -> Iterator[None]:
    """So many processes that never rest."""
    loop = "print(flush=True)\nwhile True: pass"
    others = [subprocess.Popen([sys.executable, "-c", loop], stdout=subprocess.PIPE) for _ in range(count)]
    try:
        for other in others:
            assert other.stdout is not None
            other.stdout.readline()  # it runs now
        yield
    finally:
        for other in others:
            other.kill()
            other.communicate()


def measure(options: argparse.Namespace) -> dict[str, Milliseconds]:
    """Median milliseconds of every contender, quiet and busy, in this process."""
    torch.manual_seed(0)
    preds = make_preds(HEADS["detect"], BATCH, options.device)
    leaves, batch = leaves_of(preds), make_batch(rows_of(480, MIXED).to(options.device))
    steps = make_steps(criteria(HEADS["detect"], preds, batch, options.with_reference), leaves)
    found = {"quiet": in_turn(steps, options.rounds, device=options.device)}
    with spinning(options.spinning):
        return found | {"busy": in_turn(steps, options.rounds, device=options.device)}


def in_child(options: argparse.Namespace, environment: dict[str, str]) -> dict[str, Milliseconds]:
    """The same in a new process."""
    command = [sys.executable, *sys.argv, "--here", *["--with-reference"] * options.with_reference]
    return json.loads(subprocess.run(command, env=os.environ | environment, stdout=subprocess.PIPE, check=True).stdout)


def rows(options: argparse.Namespace) -> Iterator[list[str]]:
    """The cells of both states under each way of waiting."""
    for policy, environment in POLICIES.items():
        found = in_child(options, environment)
        for state, ms in found.items():
            shown = [cell(ms, "reference"), *(cell(ms, name, "reference") for name in COLUMNS)]
            kept = f"{_ratio(ms) / _ratio(found['quiet']):.0%}" if "reference" in ms and state == "busy" else ""
            yield [f"{state}, threads waiting: {policy}", *shown, kept]


def _ratio(ms: Milliseconds) -> float:
    return ms["reference"] / ms["criterion, compiled"]


def main() -> None:
    """Print the table."""
    parser = parser_of(__doc__, rounds=9)
    parser.add_argument(
        "--spinning", type=int, default=1, help="number of spinning processes to run beside (default %(default)s)"
    )
    parser.add_argument("--here", action="store_true", help="measure in this process, and print JSON")
    parser.add_argument("--with-reference", action="store_true", help="with --here: also measure the reference")
    options = read_options(parser)
    if options.here:
        print(json.dumps(measure(options)))
        return
    options.with_reference = available("ultralytics")
    print_table(["ms, 480 mixed rows (reference / it)", "reference, eager", *COLUMNS, "kept, compiled"], rows(options))
    print(f"\n{machine('torch', 'ultralytics', device=options.device)}, {options.spinning} spinning beside", end=", ")
    print(f"median of {options.rounds} rounds in turn")


if __name__ == "__main__":
    main()
