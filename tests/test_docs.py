"""The reference builds without a warning, and the page of sources names every paper that a docstring does."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAPER = re.compile(r"\b\d{4}\.\d{5}\b")


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    out = tmp_path_factory.mktemp("docs")
    subprocess.run([sys.executable, ".docs/build.py", str(out)], cwd=ROOT, check=True)
    return out


def test_every_public_name_has_its_place(pages):
    import compiled_loss  # noqa: PLC0415  (loads torch)

    page = (pages / "compiled_loss.html").read_text()
    names = {name for name in compiled_loss.__all__ if not inspect.ismodule(getattr(compiled_loss, name))}
    assert [name for name in sorted(names) if f'id="{name}"' not in page] == []


def test_links_lead_to_pages_that_exist(pages):
    dead = []
    for page in pages.rglob("*.html"):
        for link in re.findall(r'href="([^"#]+)', page.read_text()):
            if "://" not in link and "${" not in link and not (page.parent / link).exists():
                dead.append((page.name, link))
    assert dead == []


def test_every_paper_of_a_docstring_is_among_the_sources():
    code = "".join(path.read_text() for path in (ROOT / "compiled_loss").rglob("*.py"))
    sources = (ROOT / ".docs" / "provenance.md").read_text()
    assert set(PAPER.findall(code)) - set(PAPER.findall(sources)) == set()
