"""The pytest fixture `graph_audit`: fails a test whose function is not one graph without waits."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from compiled_loss.audit.findings import AuditReport


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where pages of failing reports go."""
    group = parser.getgroup("compiled_loss")
    group.addoption("--graph-audit-html", metavar="DIR", help="write each failing graph audit as a page into DIR")


def pytest_configure(config: pytest.Config) -> None:
    """Lets a warning of torch about itself pass, which would stop it from compiling functions with own gradients."""
    config.addinivalue_line("filterwarnings", "ignore:.*should not be instantiated:DeprecationWarning")


@pytest.fixture
def graph_audit(request: pytest.FixtureRequest) -> Callable[..., AuditReport]:
    """`compiled_loss.audit.audit` that fails the test unless the report is ok; `check=False` only returns it.

    Example:
        def test_my_loss_is_one_graph(graph_audit):
            graph_audit(my_loss, [(predictions, targets)])
    """

    def run(function: Callable[..., Any], batches: Iterable[Any], *, check: bool = True, **options: Any) -> AuditReport:
        __tracebackhide__ = True
        from compiled_loss.audit.run import audit  # noqa: PLC0415  (loaded by the tests that audit)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own, which must not stop a stage where warnings are errors
            report = audit(function, batches, **options)
        if not check or report.ok:
            return report
        folder = request.config.getoption("--graph-audit-html")
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            page = report.to_html(Path(folder) / _file_name(request.node.nodeid))
            pytest.fail(f"{report}\npage: {page}", pytrace=False)
        pytest.fail(f"{report}", pytrace=False)

    return run


def _file_name(test: str) -> str:
    """A test's id as the name of a file."""
    return re.sub(r"[^\w.]+", "-", test).strip("-")[-200:] + ".html"
