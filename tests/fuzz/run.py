"""Random batches of every loss, labels and functions, against what they must give.

    python -m tests.fuzz.run --mode eager --seed 0 --batches 1000

The i-th batch has the seed `SEED + i`, so that one alone is replayed by `--seed THAT --batches 1`. Prints each wrong
batch with the command that replays it, and at the end what was seen. Exits with 1 if a batch was wrong.

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


def replay(mode: str, seed: int) -> str:
    """The command for one batch."""
    return f"python -m tests.fuzz.run --mode {mode} --seed {seed} --batches 1"


def check(mode: str, seeds: range) -> list[str]:
    """What was wrong, with the command that replays it."""
    one = draw(mode)
    found = ((seed, *one(seed)) for seed in seeds)
    return [f"{replay(mode, seed)}\n  {words}\n  {verdict.wrong}" for seed, words, verdict in found if verdict.wrong]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mode", choices=[*MODES, *OTHERS], default="eager")
    parser.add_argument("--seed", type=int, default=0, help="of the first batch")
    parser.add_argument("--batches", type=int, default=1000)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    one, seen, begin = draw(options.mode), Counter[str](), time.monotonic()
    for done in range(1, options.batches + 1):
        seed = options.seed + done - 1
        words, verdict = one(seed)
        seen["wrong"] += bool(verdict.wrong)
        seen["positives"] += verdict.margins
        seen["margins"] += verdict.margins > 0
        seen["disturbed"] += verdict.disturbed
        if verdict.wrong or options.batches == 1:
            print(f"{replay(options.mode, seed)}\n  {words}\n  {verdict.wrong or 'right'}", flush=True)
        if done % 1000 == 0 or done == options.batches:
            told = f"{options.mode}: {done} batches from seed {options.seed} in {time.monotonic() - begin:.0f} s, "
            told += f"{seen['wrong']} wrong"
            if options.mode in MODES:
                told += f"; {seen['positives']} positives in {seen['margins']} batches by a margin of rounding, "
                told += f"numbers of {seen['disturbed']} batches by the spread of the disturbed reference"
            print(told, flush=True)
    return 1 if seen["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
