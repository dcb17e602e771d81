"""The graph-break audit: prove that a function is one graph, or name the lines that keep it from being so."""

from compiled_loss.audit.findings import KINDS, AuditReport, Finding, Graph, Place, Stage
from compiled_loss.audit.run import STAGES, audit

__all__ = ["KINDS", "STAGES", "AuditReport", "Finding", "Graph", "Place", "Stage", "audit"]
