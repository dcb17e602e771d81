"""Fixtures of the command's tests."""

import sys

import pytest

from tests.audit.users_file import MINE


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A file of the user's, with a sibling that it imports; what is imported here is forgotten afterwards."""
    monkeypatch.setattr(sys, "path", sys.path[:])
    before = set(sys.modules)
    (tmp_path / "sibling.py").write_text("def double(x):\n    return x * 2\n")
    file = tmp_path / "mine.py"
    file.write_text(MINE)
    yield file
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]
