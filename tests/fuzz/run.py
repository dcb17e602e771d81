"""Random batches of every loss, labels and functions, against what they must give.

    python -m tests.fuzz.run --mode eager --seed 0 --batches 1000

The i-th batch has the seed `SEED + i STEP`, so that one alone is replayed by `--seed THAT --batches 1`. Prints each
wrong batch with the command that replays it, and at the end what was seen. Exits with 1 if a batch was wrong.

Modes: `eager`, `compiled`, `exported` and `onnx` run losses; `labels` and `folders` read label formats, sound and
damaged; `functions` audits functions with known faults.
"""

import argparse
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable

import torch

from tests.fuzz.judge import Verdict
from tests.fuzz.losses import Losses
from tests.fuzz.modes import MODES

Draw = Callable[[int], tuple[str, Verdict]]
OTHERS = ("labels", "folders", "functions")


def draw(mode: str) -> Draw:
    """A function of a seed that tells what was tried, and the verdict."""
    if mode in MODES:
        return Losses(mode)
    # The examples and the audit load what losses do not need.
    if mode == "labels":
        from tests.fuzz.labels import one  # noqa: PLC0415
    elif mode == "folders":
        from tests.fuzz.folders import one  # noqa: PLC0415
    else:
        from tests.fuzz.functions import one  # noqa: PLC0415

    def judged(seed: int) -> tuple[str, Verdict]:
        words, wrong = one(seed)
        return words, Verdict(wrong)

    return judged


class Run:
    """Many batches in one mode."""

    def __init__(self, mode: str) -> None:
        self.mode = mode
        self.draw = draw(mode)
        self.seen: Counter[str] = Counter()

    def one(self, seed: int) -> str:
        """What was wrong, with the command that replays it."""
        words, verdict = self.draw(seed)
        self.seen["wrong"] += bool(verdict.wrong)
        self.seen["positives"] += verdict.margins
        self.seen["margins"] += verdict.margins > 0
        self.seen["disturbed"] += verdict.disturbed
        command = f"python -m tests.fuzz.run --mode {self.mode} --seed {seed} --batches 1"
        return f"{command}\n  {words}\n  {verdict.wrong}" if verdict.wrong else ""

    def summary(self) -> str:
        """How many were wrong, and how many right up to rounding."""
        told, seen = f"{self.seen['wrong']} wrong", self.seen
        if self.mode not in MODES:
            return told
        told += f"; {seen['positives']} positives in {seen['margins']} batches by a margin of rounding"
        return f"{told}, numbers of {seen['disturbed']} batches by the spread of the disturbed reference"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mode", choices=[*MODES, *OTHERS], nargs="+", default=["eager"])
    parser.add_argument("--seed", type=int, default=0, help="of the first batch")
    parser.add_argument("--batches", type=int, default=1000)
    parser.add_argument("--step", type=int, default=1, help="between seeds: as many as there are setups keeps to one")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    runs, begin = [Run(mode) for mode in options.mode], time.monotonic()
    for done in range(1, options.batches + 1):
        for run in runs:
            wrong = run.one(options.seed + (done - 1) * options.step)
            if wrong or options.batches == 1:
                print(wrong or "right", flush=True)
            if done % 1000 == 0 or done == options.batches:
                took = f"{done} batches from seed {options.seed} in {time.monotonic() - begin:.0f} s"
                print(f"{run.mode}: {took}, {run.summary()}", flush=True)
    return 1 if any(run.seen["wrong"] for run in runs) else 0


if __name__ == "__main__":
    sys.exit(main())
