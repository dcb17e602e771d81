"""Progress for a person: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import threading
import time
from collections import deque

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

LINE_EVERY = 50
# Lines of a log that come sooner, counted from where a run begins.
EARLY_LINES = (1, 2, 5, 10, 20)
STILL_EVERY = 10.0
COMPILING = "compiling forward, loss and backward into one graph, the optimizer step into another"
USUAL = "a minute or two on two free cores, less where torch has them in its cache from a run before"


class Display:
    """Shows steps done, the loss terms (mean of the last steps) and images per second.

    Use as a context manager; `say` prints beside the bar. The first step takes long where it is compiled: until it is
    done a log has a line now and then too.
    """

    def __init__(self, console: Console, done: int, total: int, compiled: bool):
        self.console, self.begun, self.done, self.total = console, done, done, total
        self._clock: deque[tuple[float, int]] = deque(maxlen=20)
        self._images = 0
        self._compiling = compiled and done < total
        self._first_step = threading.Event()
        self._bar = Progress(
            TextColumn("[bold]{task.completed}[/]/{task.total}"),
            BarColumn(bar_width=24),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(compact=True),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("compiling ..." if compiled else "first step ...", total=total, completed=done)

    def __enter__(self) -> Display:
        self._start = time.perf_counter()
        if self._compiling:
            self.say(f"{COMPILING}: {USUAL} ...", step=False)
            if not self.console.is_terminal:
                self._waiting = threading.Thread(target=self._wait, daemon=True)
                self._waiting.start()
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._first_step.set()
        self._bar.stop()

    def say(self, text: str, step: bool = True) -> None:
        """A line; what was done for it is no part of the steps' time."""
        self._clock.clear()
        self._print(f"step {self.done}/{self.total}  {text}" if step else text)

    def step(self, images: int, names: list[str], losses: list[list[float]]) -> None:
        """One more step of so many images; `losses` are those known so far."""
        self.done += 1
        self._images += images
        self._clock.append((time.perf_counter(), self._images))
        text = self._text(names, losses, images)
        self._bar.update(self._task, completed=self.done, description=text)
        first = not self._first_step.is_set()
        self._first_step.set()
        if first and self._compiling:
            text += f"  compiled in {time.perf_counter() - self._start:.0f} s"
        due = self.done % LINE_EVERY == 0 or self.done == self.total or self.done - self.begun in EARLY_LINES
        if due and not self.console.is_terminal:
            self._print(f"step {self.done}/{self.total}  {text}")

    def _print(self, text: str) -> None:
        self.console.print(escape(text), highlight=False, soft_wrap=True)

    def _wait(self) -> None:
        while not self._first_step.wait(STILL_EVERY):
            self.say(f"  {time.perf_counter() - self._start:.0f} s, still compiling ...", step=False)

    def _text(self, names: list[str], losses: list[list[float]], images: int) -> str:
        recent = losses[-10:]
        means = [sum(column) / len(recent) for column in zip(*recent, strict=True)]
        parts = [f"{name} {mean:.2f}" for name, mean in zip(names, means, strict=False)]
        (first, before), (last, after) = self._clock[0], self._clock[-1]
        if last > first:
            speed = (after - before) / (last - first)
            parts.append(f"{speed:.0f} images/s")
            if not self.console.is_terminal:  # where the bar says it
                parts.append(f"{(self.total - self.done) * images / speed:.0f} s left")
        return "  ".join(parts)
