"""`index.html` of a run: its results, its pictures and how to go on from it, in one page without a script."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

STYLE = """
:root { color-scheme: light dark; --line: light-dark(#d9dee5, #3a424d); --soft: light-dark(#59636e, #a0a8b3); }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.5rem; }
p.soft, figcaption { color: var(--soft); }
b.large { font-size: 2rem; }
table { border-collapse: collapse; } td, th { padding: .2rem 1rem .2rem 0; border-bottom: 1px solid var(--line); }
th { text-align: left; font-weight: 500; } td.number { text-align: right; font-variant-numeric: tabular-nums; }
figure { margin: 1rem 0 2rem; } img { max-width: 100%; background: white; border: 1px solid var(--line); }
div.side { display: flex; flex-wrap: wrap; gap: 1rem 4rem; }
pre { overflow-x: auto; padding: .6rem .8rem; border: 1px solid var(--line); border-radius: .3rem; }
"""


def write(
    path: Path,
    title: str,
    about: str,
    metric: str,
    results: Mapping[str, Any],
    settings: Mapping[str, Any],
    pictures: Sequence[tuple[str, str]],
) -> None:
    """Write the page.

    Args:
        path: of the page; what it links to lies beside it.
        title: of the run.
        about: the run in a sentence.
        metric: what average precision is of.
        results: as in `results.json`.
        settings: what the run was made with.
        pictures: file name and caption of each.
    """
    ap = results["ap"]
    told = f"No {escape(metric)}: nothing to find is labelled."
    if ap is not None and not math.isnan(ap):
        told = f'<b class="large">{ap:.3f}</b> {escape(metric)}'
    by_class = sorted(results.get("ap_by_class", {}).items(), key=lambda pair: -pair[1])
    classes = _table("By class", [(name, _number(x)) for name, x in by_class]) if len(by_class) > 1 else ""
    numbers = [(label, _number(results[name])) for name, label in LABELS.items() if name in results]
    used = [(f"--{name.replace('_', '-')}", str(value)) for name, value in settings.items() if value not in ("", 0)]
    figures = "".join(
        f'<figure><a href="{escape(name)}"><img src="{escape(name)}" alt="{escape(caption)}"></a>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
        for name, caption in pictures
    )
    path.write_text(
        f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{escape(title)}</title><style>{STYLE}</style></head><body>
<h1>{escape(title)}</h1>
<p class="soft">{escape(about)}</p>
<p>{told}</p>
<div class="side">{_table("Results", numbers)}{classes}{_table("Settings", used)}</div>
<h2>Pictures</h2>
{figures}
<h2>Files</h2>
<p><a href="results.json">results.json</a>: every number of this page.
<a href="checkpoint.pt">checkpoint.pt</a>: weights, their moving average, and all that a run needs to go on:</p>
<pre>python examples/train.py --resume {escape(str(path.parent / "checkpoint.pt"))}</pre>
</body></html>
""",
        encoding="utf-8",
    )


LABELS = {
    "ap50": "average precision at 0.50",
    "ap75": "average precision at 0.75",
    "steps": "steps",
    "seconds": "seconds in all",
    "graphs": "graphs compiled",
    "graph_breaks": "graph breaks",
    "recompiles": "recompiles after warm-up",
    "step_ms_loss_compiled": "step with the loss compiled inside, ms",
    "step_ms_loss_eager": "step with the loss eager, ms",
    "overflow": "times that the plan was too small",
}


def _number(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "none"
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if value > 1 else f"{value:.3f}"


def _table(title: str, rows: Sequence[tuple[str, str]]) -> str:
    lines = "".join(f'<tr><th>{escape(name)}</th><td class="number">{escape(value)}</td></tr>' for name, value in rows)
    return f"<div><h2>{escape(title)}</h2><table>{lines}</table></div>"
