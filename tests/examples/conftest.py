"""Puts the examples on the path, and small settings and folders for their tests."""

import sys
from pathlib import Path

import pytest

from tests.examples.editing import make_folder

EXAMPLES = Path(__file__).parents[2] / "examples"
sys.path[:0] = [str(EXAMPLES), str(EXAMPLES / "benchmarks")]


@pytest.fixture
def folder(tmp_path):
    """A COCO-style folder: 6 pictures of 96x64 in two splits, one object of every task in each."""
    return make_folder(tmp_path)


@pytest.fixture(autouse=True)
def forgotten(monkeypatch):
    """What a test imports from a file of its own called mine.py is not there for the next."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield
    sys.modules.pop("mine", None)
