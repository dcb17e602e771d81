"""The README's Python runs as it stands."""

import re
from pathlib import Path

import torch
from torch._dynamo.utils import counters

from tests.coverage import table

README = Path(__file__).parents[1] / "README.md"


def test_each_of_the_readmes_python_blocks_runs_by_itself(capsys):
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    assert len(blocks) >= 3
    torch.compiler.reset()
    counters.clear()
    for block in blocks:
        exec(block, {"__name__": "readme"})
    assert counters["stats"]["unique_graphs"] == 1
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_the_readmes_table_counts_the_tests():
    assert table() in README.read_text(), "python -m tests.coverage"
