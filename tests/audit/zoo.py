"""What the zoo's exhibits are: a function, its batches, and the faults that comments in its source mark.

A line that ends in `# fault: kind, kind` has to be named by exactly these findings.
"""

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass
class Exhibit:
    """One function of the zoo; `like` names the one of its room whose marked lines it reaches too."""

    function: Callable[..., Any]
    batches: Callable[[], list[Any]]
    options: dict[str, Any] = field(default_factory=dict)
    like: str = ""

    @property
    def name(self) -> str:
        return getattr(self.function, "__name__", type(self.function).__name__)


class Zoo(dict[str, Exhibit]):
    """Exhibits by name; `@zoo.add(batches)` puts a function in."""

    def add(self, batches: Callable[[], list[Any]] | None = None, like: str = "", **options: Any) -> Callable[..., Any]:
        def put(function: Any) -> Any:
            made = function() if isinstance(function, type) else function
            exhibit = Exhibit(made, batches or vectors(3, 3, 3), options, like)
            self[getattr(function, "__name__", exhibit.name)] = exhibit
            return function

        return put


def vectors(*sizes: int, learnt: bool = True) -> Callable[[], list[Any]]:
    """One vector a batch, of these sizes."""

    def make() -> list[Any]:
        generator = torch.Generator().manual_seed(0)
        return [torch.randn(n, generator=generator).requires_grad_(learnt) for n in sizes]

    return make


def faults_of(module: Any) -> dict[int, set[str]]:
    """Marked lines of a module's source: {line: kinds}."""
    marked = {}
    for number, line in enumerate(inspect.getsource(module).splitlines(), 1):
        if found := re.search(r"# fault: (.+)$", line):
            marked[number] = {x.strip() for x in found[1].split(",")}
    return marked


def faults_in(module: Any, name: str) -> set[tuple[str, int]]:
    """The marked faults (kind, line) between the exhibit before this one and its own end: helpers stand above."""
    ends = []
    for exhibit in module.FAULTY.values():
        source = exhibit.function if inspect.isfunction(exhibit.function) else type(exhibit.function)
        lines, first = inspect.getsourcelines(source)
        ends.append(first + len(lines) - 1)
    place = list(module.FAULTY).index(module.FAULTY[name].like or name)
    above = ends[place - 1] if place else 0
    return {(kind, line) for line, kinds in faults_of(module).items() if above < line <= ends[place] for kind in kinds}


class Doubled(torch.autograd.Function):
    """Twice its argument; each that derives from it has a backward of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2


@dataclass
class Losses:
    """What torch knows nothing of."""

    total: Tensor
    parts: dict[str, Tensor]


def mean_of_rows(x: Tensor) -> Tensor:
    """A helper that is clean."""
    return x.sum(0) / x.shape[0]
