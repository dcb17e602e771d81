"""The report of an audit, as text, JSON and a page."""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

from compiled_loss.audit import page, text
from compiled_loss.audit.findings import Audited


@dataclass(frozen=True)
class AuditReport(Audited):
    """The result of an audit; check `ok`, not the truth value of the report.

    Example:
        >>> from compiled_loss.audit import Stage
        >>> report = AuditReport("step", "2.13.0", "cpu", 3, (), (Stage("breaks", "clean"),), ())
        >>> report.ok
        True
    """

    def raise_if_failed(self) -> None:
        """Raise unless `ok`.

        Raises:
            AssertionError: with the report as its message.
        """
        if not self.ok:
            raise AssertionError(f"\n{self}")

    def to_json(self) -> str:
        """The whole report as JSON; an infinite error is null."""
        errors = {name: x if math.isfinite(x) else None for name, x in self.largest_errors.items()}
        values = asdict(self) | {"ok": self.ok, "counts": self.counts(), "largest_errors": errors}
        return json.dumps(values, indent=2, allow_nan=False)

    def to_html(self, path: str | Path) -> Path:
        """Write the report as one self-contained page, with the source around each finding."""
        path = Path(path)
        path.write_text(page.render(self), encoding="utf-8")
        return path

    def __str__(self) -> str:
        return "\n".join(line for line, _ in text.render(self))
