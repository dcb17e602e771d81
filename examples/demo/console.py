"""Progress for a person: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import time
from collections import deque

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

LINE_EVERY = 50


class Display:
    """Shows steps done, the loss terms (mean of the last steps) and images per second.

    Use as a context manager; `console.print` works beside the bar.
    """

    def __init__(self, console: Console, done: int, total: int):
        self.console, self.done, self.total = console, done, total
        self._clock: deque[tuple[float, int]] = deque(maxlen=20)
        self._images = 0
        self._bar = Progress(
            TextColumn("[bold]{task.completed}[/]/{task.total}"),
            BarColumn(bar_width=24),
            TextColumn("{task.description}"),
            TimeRemainingColumn(compact=True),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("compiling the step, once ...", total=total, completed=done)

    def __enter__(self) -> Display:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def step(self, images: int, names: list[str], losses: list[list[float]]) -> None:
        """One more step of so many images; `losses` are those known so far."""
        self.done += 1
        self._images += images
        self._clock.append((time.perf_counter(), self._images))
        text = self._text(names, losses)
        self._bar.update(self._task, completed=self.done, description=text)
        if not self.console.is_terminal and (self.done % LINE_EVERY == 0 or self.done == self.total):
            self.console.print(f"step {self.done}/{self.total}  {text}", highlight=False, soft_wrap=True)

    def _text(self, names: list[str], losses: list[list[float]]) -> str:
        recent = losses[-10:]
        means = [sum(column) / len(recent) for column in zip(*recent, strict=True)]
        parts = [f"{name} {mean:.2f}" for name, mean in zip(names, means, strict=False)]
        (first, before), (last, after) = self._clock[0], self._clock[-1]
        if last > first:
            parts.append(f"{(after - before) / (last - first):.0f} images/s")
        return "  ".join(parts)
