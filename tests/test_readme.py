"""The Python of every page runs as it stands, their links lead somewhere, and their table counts the tests."""

import itertools
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from tests.coverage import table

ROOT = Path(__file__).parents[1]
PAGES = [
    *ROOT.glob("*.md"),
    *ROOT.glob(".docs/*.md"),
    *ROOT.glob("examples/**/README.md"),
    ROOT / "export" / "README.md",
]
# Blocks that go on from the one before; those of other pages stand alone.
IN_TURN = ROOT / "examples" / "README.md"
NUMBERS = itertools.count()


def blocks_of(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL)


def names_of_a_page(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a block starts with: the names of a module that can be imported, as older tracers do, and keep."""
    module = ModuleType(f"page_{next(NUMBERS)}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module.__dict__


def test_the_readmes_blocks_are_one_graph(monkeypatch, capsys):
    torch.compiler.reset()
    counters.clear()
    blocks = blocks_of(ROOT / "README.md")
    assert len(blocks) >= 3
    for block in blocks:
        exec(block, names_of_a_page(monkeypatch))
    assert counters["stats"]["unique_graphs"] == 1
    assert len(capsys.readouterr().out.splitlines()) == 3


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # the tracer's own look
@pytest.mark.parametrize(
    "page", [p for p in PAGES if blocks_of(p) and p != ROOT / "README.md"], ids=lambda p: p.parent.name + "/" + p.name
)
def test_each_block_of_a_page_runs(page, monkeypatch, capsys):
    torch.compiler.reset()
    compiled = torch.compile

    def traced(function: Any, *, mode: Any = None, **options: Any) -> Any:
        """What C++ makes of these graphs is tested elsewhere."""
        return compiled(function, **{"backend": "aot_eager", **options})

    monkeypatch.setattr(torch, "compile", traced)
    names = names_of_a_page(monkeypatch)
    for block in blocks_of(page):
        exec(block, names)
        if page != IN_TURN:
            names = names_of_a_page(monkeypatch)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.parent.name + "/" + p.name)
def test_links_lead_to_files_and_headings_that_exist(page):
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if "://" in target:
            continue
        name, _, heading = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), target
        if heading:
            assert heading in [anchor(line) for line in path.read_text().splitlines() if line.startswith("#")], target


def anchor(line: str) -> str:
    """What a heading is called in links."""
    return re.sub(r"[^\w\- ]", "", line.lstrip("#").strip().lower()).replace(" ", "-")


def test_the_table_of_contributing_counts_the_tests():
    assert table() in (ROOT / "CONTRIBUTING.md").read_text(), "python -m tests.coverage"
