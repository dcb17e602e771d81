"""Claims that a program checks and prints one by one; one that does not hold ends the program with status 1."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from common import EPOCH
from demo.engine import CompileLog

from compiled_loss import DenseLoss

WARM_UP = 2  # steps in which everything may compile


def claim(text: str, held: bool) -> None:
    """Print what holds; end the program where it does not."""
    if not held:
        sys.exit(f"FAILED  {text}")
    print(f"ok      {text}", flush=True)


class Record:
    """The losses of a run, and what `torch.compile` did in it."""

    def __init__(self) -> None:
        self.compiles, self.losses = CompileLog(), []

    def step(self, loss: float) -> None:
        """A step is over."""
        self.losses.append(float(loss))
        if len(self.losses) == WARM_UP:
            self.compiles.mark_warm()

    def prove(self, criterion: object, plain: Sequence[float], *, third: float = 1e-4) -> None:
        """Whose loss it was, that it is one graph, compiled once, and learns as a plain eager run on the same batches.

        Args:
            criterion: what the trained module calls.
            plain: losses of the plain run.
            third: how far apart, relatively, the first three losses may be.
        """
        losses, found = self.losses, self.compiles.summary()
        self.compiles.close()
        kind = type(criterion)
        claim(f"the criterion is {kind.__module__}.{kind.__name__}", isinstance(criterion, DenseLoss))
        one = (found["graphs"], found["graph_breaks"]) == (1, 0)
        claim(f"{found['graphs']} graph, {found['graph_breaks']} breaks", one)
        claim(f"{found['recompiles']} recompiles after {WARM_UP} of {len(losses)} steps", found["recompiles"] == 0)
        claim(f"{len(losses)} steps as in the plain run", len(losses) == len(plain) >= 2 * EPOCH)
        drift = [abs(ours - right) / abs(right) for ours, right in zip(losses, plain, strict=True)]
        claim(f"first loss {losses[0]:.5f} as in the plain run: off by {drift[0]:.1e}", drift[0] <= 1e-5)
        claim(
            f"the same up to step 3, off by {max(drift[:3]):.1e}; later by up to {max(drift):.1e}",
            max(drift[:3]) <= third,
        )
        first, last = (sum(part) / EPOCH for part in (losses[:EPOCH], losses[-EPOCH:]))
        claim(f"the loss falls from {first:.3f} to {last:.3f}", last < 0.9 * first)
