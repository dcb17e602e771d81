"""The graph-break audit: prove that a function is one graph, or name the lines that prevent it."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compiled_loss.audit.findings import KINDS, Finding, Graph, Place, Stage
    from compiled_loss.audit.report import AuditReport
    from compiled_loss.audit.run import STAGES, audit

__all__ = ["KINDS", "STAGES", "AuditReport", "Finding", "Graph", "Place", "Stage", "audit"]
_HOMES = {"STAGES": "run", "audit": "run", "AuditReport": "report"}


def __getattr__(name: str) -> Any:
    # Loaded on demand, since it imports torch: pytest imports this package for the plugin in every session.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(f"{__name__}.{_HOMES.get(name, 'findings')}"), name)
    globals()[name] = found
    return found
