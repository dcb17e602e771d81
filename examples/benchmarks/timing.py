"""Timing of contenders in turn, in one process, and the tables that show it."""

import argparse
import itertools
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import metadata, util

import torch

# glibc gives large blocks back as soon as they are freed, and fresh ones cost a page fault for each 4 KiB.
KEEP_MEMORY = {"MALLOC_TRIM_THRESHOLD_": str(2**32), "MALLOC_MMAP_THRESHOLD_": str(2**32)}


def parser_of(description: str | None, rounds: int | None = None) -> argparse.ArgumentParser:
    """What every benchmark of losses may be told."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    if rounds is not None:
        parser.add_argument("--rounds", type=int, default=rounds, help="timed rounds (default %(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default %(default)s)")
    parser.add_argument("--keep-memory", action="store_true", help="use an allocator (glibc's) that keeps freed memory")
    return parser


def read_options(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The options; with `--keep-memory` a child process does the work, as the allocator reads its settings at start."""
    options, _ = parser.parse_known_args()
    if options.keep_memory and not _keeps_memory():
        sys.exit(subprocess.run([sys.executable, *sys.argv], env=os.environ | KEEP_MEMORY, check=False).returncode)
    return options


def _keeps_memory() -> bool:
    return KEEP_MEMORY.items() <= os.environ.items()


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


def cell(numbers: Mapping[str, float], name: str, reference: str = "", digits: int = 1) -> str:
    """A contender's number, if it took part; in brackets how many times smaller than the reference's, if that did."""
    if name not in numbers:
        return ""
    shown = f"{numbers[name]:.{digits}f}"
    if reference not in numbers:
        return shown
    ratio = numbers[reference] / numbers[name]
    return f"{shown} ({ratio:.{1 if ratio >= 1 else 2}f}x)"


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    return "\n".join(_lines(header, rows))


def print_table(header: list[str], rows: Iterable[list[str]]) -> None:
    """The same, each row as soon as it is there."""
    for line in _lines(header, rows):
        print(line, flush=True)


def _lines(header: list[str], rows: Iterable[list[str]]) -> Iterator[str]:
    for cells in itertools.chain([header, ["---"] + ["---:"] * (len(header) - 1)], rows):
        yield "| " + " | ".join(cells) + " |"


def available(package: str) -> bool:
    """Whether a peer is installed; says so where it is not."""
    found = util.find_spec(package) is not None
    if not found:
        print(f"({package} is not installed: comparisons with it are left out)\n")
    return found


def machine(*packages: str, device: str = "cpu") -> str:
    """The machine, the versions and an allocator that is not as it comes, one line."""
    versions = [f"{p} {metadata.version(p)}" for p in packages if util.find_spec(p.replace("-", "_")) is not None]
    on_gpu = torch.device(device).type == "cuda"
    where = torch.cuda.get_device_name(device) if on_gpu else f"{_processor()}, {torch.get_num_threads()} threads"
    kept = ["memory kept by the allocator"] if _keeps_memory() else []
    return ", ".join([where, f"Python {platform.python_version()}", *versions, *kept])


def _processor() -> str:
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
