"""Timing of contenders in turn, in one process, and the tables that show it."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from importlib import metadata, util

import torch


def in_turn(contenders: Mapping[str, Callable[[], object]], rounds: int, warmup: int = 3) -> dict[str, float]:
    """Median milliseconds of each contender; every round runs each of them, so that noise hits all alike.

    The first of two calls in a row is not timed: it pays for memory that the contender before it gave back.
    """
    for run in contenders.values():
        for _ in range(warmup):
            run()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            run()
            begin = time.perf_counter()
            run()
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


def machine(*packages: str) -> str:
    """The machine and the versions, one line."""
    versions = [f"{p} {metadata.version(p)}" for p in packages if util.find_spec(p.replace("-", "_")) is not None]
    return (
        f"{_processor()}, {torch.get_num_threads()} threads, Python {platform.python_version()}, {', '.join(versions)}"
    )


def _processor() -> str:
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
