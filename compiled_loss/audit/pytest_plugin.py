"""The pytest fixture `graph_audit`: fails a test whose function is not one graph without waits."""

from __future__ import annotations

import itertools
import re
import warnings
import zlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from compiled_loss.audit.report import AuditReport


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that says where to write the pages of failing reports."""
    group = parser.getgroup("compiled_loss")
    group.addoption("--graph-audit-html", metavar="DIR", help="write each failing graph audit as a page into DIR")


def pytest_configure(config: pytest.Config) -> None:
    """Ignore a warning of torch about itself, which would prevent compiling functions with custom gradients."""
    config.addinivalue_line("filterwarnings", "ignore:.*should not be instantiated:DeprecationWarning")


@pytest.fixture
def graph_audit(request: pytest.FixtureRequest) -> Callable[..., AuditReport]:
    """`compiled_loss.audit.audit` that fails the test unless the report is ok; `check=False` only returns it.

    Example:
        def test_my_loss_is_one_graph(graph_audit):
            graph_audit(my_loss, [(predictions, targets)])
    """

    pages = itertools.count(1)

    def run(function: Callable[..., Any], batches: Iterable[Any], *, check: bool = True, **options: Any) -> AuditReport:
        __tracebackhide__ = True
        from compiled_loss.audit.run import audit  # noqa: PLC0415  (loaded by the tests that audit)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own warnings must not stop a stage where warnings are errors
            report = audit(function, batches, **options)
        if not check or report.ok:
            return report
        told = str(report)
        if folder := request.config.getoption("--graph-audit-html"):
            # Relative to where pytest was started, even if the test has changed the folder.
            path = request.config.invocation_params.dir / folder / _file_name(request.node.nodeid, next(pages))
            told += f"\npage: {_written(report, path)}"
        pytest.fail(told, pytrace=False)

    return run


def _written(report: AuditReport, path: Path) -> str:
    """Write the page and return its path, or the reason if it cannot be written: that must not hide the report."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return str(report.to_html(path))
    except OSError as error:
        return f"not written: {error}"


def _file_name(test: str, number: int) -> str:
    """A file name for a test's id: its readable part, and a mark that separates it from ids that look the same.

    A name may have at most 255 bytes, and some file systems do not distinguish `a` from `A`.
    """
    words = re.sub(r"[^\w.]+", "-", test).strip("-").encode()[-150:].decode(errors="ignore")
    mark = zlib.crc32(test.encode(errors="replace"))
    return f"{words}-{mark:08x}{f'-{number}' if number > 1 else ''}.html"
