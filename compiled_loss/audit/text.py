"""The report as lines for a terminal, each with the style it may be shown in."""

import shutil
import textwrap
from collections.abc import Iterator

from compiled_loss.audit.findings import KINDS, Audited, Finding

_MARKS = {"clean": "ok", "findings": "FOUND", "incomplete": "STOPPED", "skipped": "-", "off": "off"}
_STYLES = {"clean": "green", "findings": "red", "incomplete": "yellow", "skipped": "dim", "off": "dim"}

Line = tuple[str, str]  # (text, style)


def render(report: Audited, width: int | None = None) -> list[Line]:
    """Lines of at most `width` columns; None asks the terminal."""
    width = max(40, width or min(shutil.get_terminal_size((100, 24)).columns, 120))
    return [*_head(report), ("", ""), *_stages(report, width), *_findings(report, width), *_verdict(report)]


def _head(report: Audited) -> Iterator[Line]:
    yield f"audit of {report.function}", "bold"
    yield (
        f"{report.batches} batch{'es' * (report.batches != 1)} on {report.device}, torch {report.torch_version}",
        "dim",
    )


def _stages(report: Audited, width: int) -> Iterator[Line]:
    for stage in report.stages:
        time = f"{stage.seconds:5.1f} s" if stage.seconds else " " * 7
        line = f"{_MARKS[stage.outcome]:>7}  {stage.name:<11}{time}  "
        yield from _wrapped(line, stage.note, width, _STYLES[stage.outcome])


def _findings(report: Audited, width: int) -> Iterator[Line]:
    for found in sorted(report.findings, key=lambda x: (bool(x.allowed), list(KINDS).index(x.kind))):
        yield "", ""
        yield from _finding(found, width)


def _finding(found: Finding, width: int) -> Iterator[Line]:
    backward = " in the backward" if found.phase == "backward" else ""
    yield f"{found.kind}{backward}  {found.place or ''}".rstrip(), "dim" if found.allowed else "bold red"
    if found.place and found.place.source:
        yield f"    {found.place.source}"[:width], "cyan"
    yield from _wrapped("  what: ", found.message, width, "")
    yield from _wrapped("  do:   ", found.advice, width, "green")
    others = [x for x in found.trace if x != found.place]
    if others:
        yield from _wrapped("  via:  ", ", ".join(f"{_short(x.file)}:{x.line}" for x in others[-4:]), width, "dim")
    batches = ", ".join(map(str, found.batches))
    times = f" ({found.count} times)" if found.count > len(found.batches) else ""
    yield from _wrapped("  in:   ", f"batch {batches}{times}; to allow it: {found.name}", width, "dim")
    if found.allowed:
        yield from _wrapped("  allowed: ", found.allowed, width, "yellow")


def _verdict(report: Audited) -> Iterator[Line]:
    yield "", ""
    counts = ", ".join(f"{n} {kind}" for kind, n in report.counts().items())
    allowed = len(report.findings) - len(report.failures)
    extra = f" ({allowed} allowed)" if allowed else ""
    if report.failures:
        yield f"FAILED: {counts}{extra}", "bold red"
    if report.incomplete:
        names = ", ".join(x.name for x in report.incomplete)
        yield f"INCOMPLETE: {names} had to stop; what they would have found is unknown", "bold yellow"
    if report.ok:
        names, off = (", ".join(x.name for x in y) for y in (report.unjudged, report.turned_off))
        words = f", but not judged: {names}" if names else ""
        yield f"PASSED{extra}{words}" + (f"; turned off: {off}" if off else ""), "bold green"
    elif not report.failures and not report.incomplete:
        yield "NOTHING JUDGED: no stage had anything to look at", "bold yellow"


def _wrapped(start: str, text: str, width: int, style: str) -> Iterator[Line]:
    lines = textwrap.wrap(text, max(20, width - len(start))) or [""]
    yield (start + lines[0]).rstrip(), style
    for line in lines[1:]:
        yield " " * len(start) + line, style


def _short(file: str) -> str:
    return "/".join(file.split("/")[-2:])
