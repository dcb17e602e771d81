"""How a run went: the terms of the loss, and average precision after some of the steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

SMOOTHED_SHARE = 0.05
COLUMNS = 4


def curves(
    path: Path,
    names: Sequence[str],
    rows: Sequence[Sequence[float]],
    metric: str,
    measured: Sequence[tuple[int, float]],
    final: float,
) -> None:
    """A panel for average precision, one for the total and one for each term, per image, with a running mean.

    Args:
        path: to write.
        names: of the total and the terms.
        rows: their values in every step.
        metric: what average precision is of.
        measured: step and average precision on some of the held-out pictures.
        final: that on all of them at the end; NaN where there is none.
    """
    # A term that the task's head has no output for is 0 throughout.
    values = np.array(rows)
    used = np.flatnonzero(values.any(0)).tolist()
    names, values = [names[i] for i in used], values[:, used]
    count = 1 + len(names)
    figure = Figure(figsize=(13, 2.6 * -(-count // COLUMNS)), layout="constrained")
    first, *panels = figure.subplots(-(-count // COLUMNS), COLUMNS, squeeze=False).ravel()
    _precision(first, len(rows), metric, measured, final)
    steps = np.arange(1, len(rows) + 1)
    for name, column, panel in zip(names, values.T, panels, strict=False):
        window = 1 + 2 * int(SMOOTHED_SHARE * len(column) / 2)
        smooth = np.convolve(column, np.ones(window) / window, mode="valid")
        panel.plot(steps, column, color="#9db8d6", linewidth=0.7, label="each step")
        panel.plot(
            steps[window // 2 : window // 2 + len(smooth)], smooth, color="#1f4e8c", linewidth=1.8, label="running mean"
        )
        # The first steps tower over all others: the scale is that of the rest, from zero.
        panel.set_ylim(0, 1.05 * np.quantile(column, 0.98))
        panel.set_title(f"loss: {name}", fontsize=11, loc="left", fontweight="bold")
        _tidy(panel)
    panels[0].legend(fontsize=8, frameon=False)
    for panel in panels[len(names) :]:
        panel.set_axis_off()
    figure.supxlabel("step", fontsize=9)
    figure.suptitle("Average precision, and the loss per image", fontsize=12)
    figure.savefig(path, dpi=120)


def _precision(panel: Axes, steps: int, metric: str, measured: Sequence[tuple[int, float]], final: float) -> None:
    if measured:
        panel.plot(
            *zip(*measured, strict=True),
            color="#2c7a3f",
            linewidth=1.8,
            marker="o",
            markersize=3,
            label="some held-out",
        )
    if not math.isnan(final):
        panel.plot([steps], [final], color="#2c7a3f", marker="D", markersize=6, linestyle="", label="all held-out")
        panel.annotate(f"{final:.3f}", (steps, final), (-6, 4), textcoords="offset points", ha="right", fontsize=9)
    highest = max([final if final == final else 0.0, *(ap for _, ap in measured)], default=0.0)
    panel.set(xlim=(0, 1.03 * steps), ylim=(0, max(1.15 * highest, 0.01)))
    panel.set_title(metric, fontsize=11, loc="left", fontweight="bold")
    if panel.get_legend_handles_labels()[0]:
        panel.legend(fontsize=8, frameon=False, loc="upper left")
    else:
        panel.text(0.5, 0.5, "nothing to find is labelled", transform=panel.transAxes, ha="center", fontsize=9)
    _tidy(panel)


def _tidy(panel: Axes) -> None:
    panel.spines[["top", "right"]].set_visible(False)
    panel.tick_params(labelsize=8)
