"""Random functions made of lines that are known to be sound or faulty, through the audit."""

import importlib.util
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from compiled_loss.audit import audit


class Fragment(NamedTuple):
    """Lines that turn a vector x into another; what must be found on the marked line, and what may be there too."""

    lines: str
    faults: frozenset[str] = frozenset()
    perhaps: frozenset[str] = frozenset()


def faulty(lines: str, *faults: str, perhaps: tuple[str, ...] = ()) -> Fragment:
    """The line at fault ends in `#`."""
    return Fragment(lines, frozenset(faults), frozenset(perhaps))


SOUND = tuple(
    map(
        Fragment,
        (
            "x = x.sin() + 1",
            "x = torch.where(x > 0, x, 0.1 * x)",
            "x = x * torch.arange(x.shape[0], device=x.device)",
            "x = x.cumsum(0) / x.shape[0]",
            "x = x / (1 + x.abs().max())",
            "x = x.clamp(min=-2.0, max=2.0)",
            "for i in range(3):\n    x = x + i",
            "best, places = x.topk(2)\nx = x + (best * places).sum()",
            "x = torch.cat([x[:1], x[1:].flip(0)])",
            "x = x + torch.zeros_like(x).scatter_add(0, x.argsort(), x.cos())",
            "if x.dim() == 1:\n    x = x * 0.5",
        ),
    )
)
# For vectors of one size: a branch that depends on values may take another way in another batch.
FAULTY = (
    faulty("x = x / (1 + x.abs().max().item())  #", "sync", "graph-break"),
    faulty("if x.abs().sum() >= 0:  #\n    x = x + 1", "sync", "graph-break"),
    faulty("x = x + x[x > 0].sum()  #", "dynamic-size", "graph-break", perhaps=("recompile",)),
    faulty("x = x * x.detach().gt(0).nonzero().shape[0]  #", "dynamic-size", "graph-break", perhaps=("recompile",)),
    faulty("torch._dynamo.graph_break()  #", "graph-break"),
    faulty("bias = torch.zeros(x.shape[0])\nx = x + bias  #", "device"),
    faulty("x = x * 2\nx[0] = 0.0  #", "sync"),
    faulty("x = torch.where(x > 0, x, torch.tensor(0.0))  #", "sync"),
    faulty("x = x * torch.tensor([1.0, 2.0, 3.0], device=x.device)  #", "sync"),
    faulty("x = x * len(x.detach().tolist())  #", "sync", "graph-break"),
)
# For vectors of many sizes. The guard of a second branch on a size would be that of the first.
SIZED = (
    faulty("if x.shape[0] > 20:  #\n    x = x.cos()", "recompile"),
    faulty("bias = torch.zeros(x.shape[0])\nx = x + bias  #", "device"),
    faulty("x = torch.where(x > 0, x, torch.tensor(0.0))  #", "sync"),
)


def one(seed: int) -> tuple[str, str]:
    """The source of a function, and what the audit said of it that is not so."""
    rng = random.Random(seed)
    sized = rng.random() < 0.25
    kinds = SIZED if sized else FAULTY
    chosen = [rng.choice(kinds) if rng.random() < 0.4 else rng.choice(SOUND) for _ in range(rng.randrange(1, 6))]
    chosen = [x for i, x in enumerate(chosen) if "recompile" not in x.faults or x not in chosen[:i]]
    source, must, may = _written(chosen)
    sizes = (7, 5, 9, 40) if sized else (3, 3, 3)
    generator = torch.Generator().manual_seed(seed)
    batches = [torch.randn(n, generator=generator).requires_grad_() for n in sizes]
    with tempfile.TemporaryDirectory() as folder:
        function = _imported(Path(folder) / f"drawn_{seed}.py", source)
        torch._dynamo.reset()
        report = audit(function, batches, backend="aot_eager")
    sys.modules.pop(f"drawn_{seed}", None)
    if report.incomplete:
        return source, f"a stage had to stop: {report}"
    found = {(x.kind, x.place.line if x.place else None) for x in report.findings}
    missing, more = must - found, found - must - may
    wrong = [f"missing {sorted(missing)}"] * bool(missing) + [f"found besides {more}"] * bool(more)
    return source, "; ".join(wrong)


def _written(fragments: list[Fragment]) -> tuple[str, set[tuple[str, int]], set[tuple[str, int]]]:
    """The module, and (kind, line) of what must be found and of what may be."""
    lines, must, may = ["import torch", "", "", "def drawn(x):"], set(), set()
    for fragment in fragments:
        for line in fragment.lines.splitlines():
            lines.append(f"    {line}")
            if line.endswith("#"):
                must |= {(kind, len(lines)) for kind in fragment.faults}
                may |= {(kind, len(lines)) for kind in fragment.perhaps}
    return "\n".join([*lines, "    return x.sum()", ""]), must, may


def _imported(path: Path, source: str) -> Callable[[Tensor], Any]:
    path.write_text(source)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module.drawn
