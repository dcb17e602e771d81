"""The report as one self-contained page without scripts or requests; long parts are folded."""

import html
import linecache
import re
from collections.abc import Iterable, Mapping, Sequence

from compiled_loss.audit.findings import KINDS, Audited, Finding, Place

_AROUND = 5  # lines of source shown before and after
_MARKS = {"clean": "ok", "findings": "found", "incomplete": "stopped", "skipped": "skipped", "off": "off"}
_CONTROLS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")

_STYLE = """
:root{color-scheme:light dark;--page:#f6f5f2;--card:#fff;--sunk:#f9f8f5;--line:#e0ddd5;--ink:#22211e;--soft:#66635b;
--red:#b3261e;--red-wash:#fcecea;--green:#1e6b3a;--green-wash:#e8f4ec;--amber:#855300;--amber-wash:#fbf1dd;--link:#1c5a9c;
--mono:ui-monospace,"SF Mono",SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
@media (prefers-color-scheme:dark){:root{--page:#161614;--card:#1f1e1c;--sunk:#191917;--line:#3a3833;--ink:#ebe8e1;
--soft:#a8a49a;--red:#ff9a8f;--red-wash:#3b1f1c;--green:#86d3a0;--green-wash:#1b3324;--amber:#ecbc6a;--amber-wash:#3a2d14;
--link:#8fbdf0}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;text-size-adjust:100%}
body{margin:0;background:var(--page);color:var(--ink);font:1rem/1.6 system-ui,-apple-system,"Segoe UI",sans-serif;
overflow-wrap:anywhere}
header,main{max-width:60rem;margin:auto;padding:0 clamp(1rem,4vw,2.5rem)}
header{padding-top:clamp(2rem,6vw,4.5rem)}
main{padding-bottom:5rem}
h1,h2,h3,p,dl,dd,ul,pre{margin:0;padding:0}
h1{font-size:clamp(1.6rem,5vw,2.5rem);line-height:1.2;letter-spacing:-.02em;font-weight:650}
h2{font-size:1.3rem;letter-spacing:-.01em;margin:3.5rem 0 1rem;font-weight:650}
h3{font-size:1.05rem;line-height:1.45;font-weight:600}
code,pre,.mono{font-family:var(--mono);font-size:.875em;font-variant-ligatures:none}
h1 code{font-size:.9em}
a{color:var(--link);text-underline-offset:.2em}
:focus-visible{outline:2px solid var(--link);outline-offset:2px;border-radius:.3rem}
.over{color:var(--soft);font-size:.875rem;margin-bottom:.35rem}
.meta{color:var(--soft);margin-top:.5rem}
.verdict{margin-top:1.75rem;padding:1rem 1.25rem;border-radius:.75rem;border:1px solid}
.verdict strong{display:block;font-size:1.1rem}
.verdict ul{list-style:none;display:flex;flex-wrap:wrap;gap:.15rem 1.25rem;margin-top:.2rem}
.verdict a{color:inherit}
.red{color:var(--red);background:var(--red-wash)}
.green{color:var(--green);background:var(--green-wash)}
.amber{color:var(--amber);background:var(--amber-wash)}
.quiet{color:var(--soft);background:var(--sunk)}
.tag{display:inline-block;padding:.05rem .6rem;border-radius:1rem;font-size:.8125rem;line-height:1.6;font-weight:600;
white-space:nowrap}
.box{background:var(--card);border:1px solid var(--line);border-radius:.75rem;overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.9375rem;overflow-wrap:normal}
th,td{text-align:left;vertical-align:baseline;padding:.65rem 1rem;border-top:1px solid var(--line)}
thead th{border-top:0;color:var(--soft);font-weight:500;font-size:.8125rem}
tbody th{font-weight:600}
.num{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
th small{display:block;font-size:.875rem;font-weight:400;color:var(--soft);overflow-wrap:anywhere;min-width:7.5rem}
article{background:var(--card);border:1px solid var(--line);border-radius:.75rem;margin:0 0 1.5rem;
padding:clamp(1rem,3vw,1.5rem);scroll-margin-top:1rem}
article>*+*{margin-top:1.1rem}
details+details{margin-top:.4rem}
h3 .tag{margin-right:.5rem}
h3 .where{font-weight:500;font-size:.9375rem}
h3 .mono{font-size:.875rem}
pre{background:var(--sunk);border:1px solid var(--line);border-radius:.5rem;overflow-x:auto;line-height:1.65;
overflow-wrap:normal;tab-size:4}
pre.words{padding:.75rem 1rem}
.source code{display:block;width:max-content;min-width:100%;padding:.5rem 0;font-size:1em}
.row{display:block;padding-right:1rem;color:var(--soft)}
mark.row{background:var(--red-wash);color:var(--ink);font-weight:600}
.row i{display:inline-block;position:sticky;left:0;min-width:3.75em;padding:0 .9em;margin-right:.6em;text-align:right;
font-style:normal;font-weight:400;background:var(--sunk);color:var(--soft);user-select:none;-webkit-user-select:none}
details mark.row{background:var(--line)}
mark.row i{background:var(--red-wash);color:var(--red);box-shadow:inset 3px 0 var(--red)}
details mark.row i{background:var(--line);color:var(--ink);box-shadow:none}
dl{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:.35rem 1.1rem}
dt{color:var(--soft)}
.do{font-weight:600}
details>*+*{margin-top:.6rem}
summary{cursor:pointer;color:var(--soft);width:fit-content;max-width:100%;padding:.1rem 0}
summary:hover{color:var(--ink)}
details details{margin-left:1rem}
@media (max-width:32rem){dl{grid-template-columns:minmax(0,1fr);gap:0}dd+dt{margin-top:.6rem}
details details{margin-left:.25rem}th,td{padding:.6rem .5rem}th:first-child{padding-left:.9rem}}
@media print{article,.box{break-inside:avoid}}
"""


def render(report: Audited) -> str:
    """The report as HTML."""
    findings = sorted(report.findings, key=lambda x: (bool(x.allowed), list(KINDS).index(x.kind)))
    body = [
        _head(report, findings),
        "<main>",
        _section("Stages", _stages(report)),
        _section("Findings", *(_finding(i, x) for i, x in enumerate(findings))) if findings else "",
        _section("Compiled graphs", _graphs(report)) if report.graphs else "",
        _section("Largest errors", _errors(report)) if report.largest_errors else "",
        "</main>",
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_verdict(report)[0]}: audit of {_text(report.function)}</title>\n"
        f"<style>{_STYLE}</style>\n</head>\n<body>\n{''.join(body)}\n</body>\n</html>\n"
    )


def _head(report: Audited, findings: Sequence[Finding]) -> str:
    word, style, reasons = _verdict(report)
    first = {x.kind: i for i, x in reversed(list(enumerate(findings))) if not x.allowed}
    items = [
        f'<li><a href="#finding-{first[kind]}">{n} {_text(kind)}</a></li>' for kind, n in report.counts().items()
    ] + [f"<li>{_text(x)}</li>" for x in reasons]
    batches = "1 batch" if report.batches == 1 else f"{report.batches} batches"
    return (
        f'<header><p class="over">Graph-break audit</p><h1><code>{_text(report.function)}</code></h1>'
        f'<p class="meta">{batches} on {_text(report.device)}, torch {_text(report.torch_version)}</p>'
        f'<div class="verdict {style}"><strong>{word}</strong><ul>{"".join(items)}</ul></div></header>'
    )


def _verdict(report: Audited) -> tuple[str, str, list[str]]:
    """The verdict in a word, its colour, and its reasons."""
    allowed = len(report.findings) - len(report.failures)
    reasons = [f"{allowed} allowed"] if allowed else []
    if report.incomplete:
        names = ", ".join(x.name for x in report.incomplete)
        reasons.append(f"{names} had to stop; what they would have found is unknown")
    if report.failures:
        return "Failed", "red", reasons
    if report.incomplete:
        return "Incomplete", "amber", reasons
    if not report.ok:
        return "Nothing judged", "amber", ["No stage had anything to look at"]
    reasons += [f"{x.name} not judged" for x in report.unjudged] + [f"{x.name} turned off" for x in report.turned_off]
    return "Passed", "green", reasons or ["Nothing was found"]


def _stages(report: Audited) -> str:
    colours = {"clean": "green", "findings": "red", "incomplete": "amber"}
    return _table(
        "Stages",
        {"Stage": "", "Outcome": "", "Seconds": "num"},
        (
            f'<th scope="row">{_text(x.name)}{f"<small>{_text(x.note)}</small>" if x.note else ""}</th>'
            f'<td><span class="tag {colours.get(x.outcome, "quiet")}">{_MARKS[x.outcome]}</span></td>'
            f'<td class="num">{f"{x.seconds:.1f}" if x.seconds else ""}</td>'
            for x in report.stages
        ),
    )


def _finding(number: int, found: Finding) -> str:
    phase = " in the backward" if found.phase == "backward" else ""
    where = (
        f'<span class="where mono">{_text(found.place)}</span>'
        if found.place
        else '<span class="where">no single line</span>'
    )
    rows = {"What": _prose(found.message), "Do": f'<span class="do">{_prose(found.advice)}</span>'}
    if found.allowed:
        rows["Allowed"] = _text(found.allowed)
    if found.batches:
        rows["Batches" if len(found.batches) > 1 else "Batch"] = ", ".join(map(str, found.batches))
    if not found.allowed:
        rows["Allow it as"] = f"<code>{_text(found.name)}</code>"
    listed = "".join(f"<dt>{key}</dt><dd>{value}</dd>" for key, value in rows.items())
    return (
        f'<article id="finding-{number}"><h3><span class="tag {"amber" if found.allowed else "red"}">'
        f"{_text(found.kind)}{phase}</span>{where}</h3>"
        f"{_source(found.place) if found.place else ''}<dl>{listed}</dl>{_trace(found)}{_words(found)}</article>"
    )


def _source(place: Place) -> str:
    """The lines around a place; only the line itself if the file is gone or has changed; nothing without a file."""
    if not place.source:
        return ""
    lines = {}
    for i in range(max(1, place.line - _AROUND), place.line + _AROUND + 1):
        lines[i] = linecache.getline(place.file, i)
    if lines.get(place.line, "").strip() != place.source.strip():
        lines = {place.line: place.source}
    last = max((i for i, x in lines.items() if x), default=place.line)
    rows = []
    for i, line in lines.items():
        if i <= last:
            tag = "mark" if i == place.line else "span"
            rows.append(f'<{tag} class="row"><i>{i}</i>{_text(line.rstrip())}</{tag}>')
    label = _text(f"Source of {place.file} around line {place.line}")
    return f'<pre class="source" tabindex="0" role="region" aria-label="{label}"><code>{"".join(rows)}</code></pre>'


def _trace(found: Finding) -> str:
    others = [x for x in found.trace if x != found.place]
    if not others:
        return ""
    folded = (
        f'<details><summary><span class="mono">{_text(x)}</span> in <span class="mono">{_text(x.function)}</span>'
        f"</summary>{_source(x)}</details>"
        for x in others
    )
    lines = "1 line" if len(others) == 1 else f"{len(others)} lines"
    return f"<details><summary>Reached through {lines}, outermost first</summary>{''.join(folded)}</details>"


def _words(found: Finding) -> str:
    if not found.detail.strip():
        return ""
    words = (
        f'<pre class="words" tabindex="0" role="region" aria-label="torch\'s words">{_text(found.detail.strip())}</pre>'
    )
    return f"<details><summary>In torch's own words</summary>{words}</details>"


def _graphs(report: Audited) -> str:
    return _table(
        "Compiled graphs",
        {"Function": "", "Phase": "", "Operators": "num", "Seconds": "num", "Batch": "num"},
        (
            f'<th scope="row"><code>{_text(x.function)}</code></th><td>{_text(x.phase)}</td>'
            f'<td class="num">{x.operators}</td><td class="num">{x.seconds:.1f}</td><td class="num">{x.batch}</td>'
            for x in report.graphs
        ),
    )


def _errors(report: Audited) -> str:
    return _table(
        "Largest errors",
        {"Tensor": "", "Error, relative to the largest entry": "num"},
        (
            f'<th scope="row"><code>{_text(name)}</code></th><td class="num">{error:.1e}</td>'
            for name, error in report.largest_errors.items()
        ),
    )


def _section(title: str, *parts: str) -> str:
    return f"<section><h2>{title}</h2>{''.join(parts)}</section>"


def _table(label: str, columns: Mapping[str, str], rows: Iterable[str]) -> str:
    """A table; `columns` maps the titles of its columns to their CSS classes."""
    head = "".join(f'<th scope="col" class="{style}">{x}</th>' for x, style in columns.items())
    body = "".join(f"<tr>{x}</tr>" for x in rows)
    return (
        f'<div class="box" tabindex="0" role="region" aria-label="{label}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _text(value: object) -> str:
    """The text escaped for HTML, without control characters, colour codes and lone surrogates."""
    return html.escape(_CONTROLS.sub("", str(value)))


def _prose(text: str) -> str:
    """The text escaped for HTML, with parts between backticks as code."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", _text(text))
