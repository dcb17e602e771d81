"""Timing of contenders in turn, in one process, and the tables that show it."""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from importlib import metadata, util

import torch


def parser_of(description: str | None, rounds: int) -> argparse.ArgumentParser:
    """What every benchmark of losses may be told."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=rounds, help="timed rounds (default %(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default %(default)s)")
    return parser


def in_turn(
    contenders: Mapping[str, Callable[[], object]], rounds: int, warmup: int = 3, device: str = "cpu"
) -> dict[str, float]:
    """Median milliseconds of each contender; every round runs each of them, so that noise hits all alike.

    The first of two calls in a row is not timed: it pays for memory that the contender before it gave back. A GPU has
    to be done with its work before the clock is read.
    """
    wait = torch.cuda.synchronize if torch.device(device).type == "cuda" else lambda: None
    for run in contenders.values():
        for _ in range(warmup):
            run()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            run()
            wait()
            begin = time.perf_counter()
            run()
            wait()
            seconds[name].append(time.perf_counter() - begin)
    return {name: statistics.median(times) * 1e3 for name, times in seconds.items()}


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def available(package: str) -> bool:
    """Whether a peer is installed; says so where it is not."""
    found = util.find_spec(package) is not None
    if not found:
        print(f"({package} is not installed: its columns are left out)")
    return found


def machine(*packages: str, device: str = "cpu") -> str:
    """The machine and the versions, one line."""
    versions = [f"{p} {metadata.version(p)}" for p in packages if util.find_spec(p.replace("-", "_")) is not None]
    on_gpu = torch.device(device).type == "cuda"
    where = torch.cuda.get_device_name(device) if on_gpu else f"{_processor()}, {torch.get_num_threads()} threads"
    return f"{where}, Python {platform.python_version()}, {', '.join(versions)}"


def _processor() -> str:
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
