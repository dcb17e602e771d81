"""Pictures of a run: what was found in held-out pictures, and which anchors each object was given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from compiled_loss import Assignment
from compiled_loss.grid import make_anchors
from demo import drawing
from demo.detections import Detections
from demo.drawing import KEYS, PALETTE
from demo.labels import Info, Labels
from demo.matching import ENOUGH, match
from demo.model import STRIDES

SHOWN_SCORE = 0.3
PANEL_POINTS = 250
MISSED = drawing.sign("v", "#e0002d", "missed: nothing found is this object")
FALSE_ALARM = drawing.sign("X", "#e0002d", f"false alarm: overlaps no labelled object of its class by {ENOUGH}")


def predictions(
    path: Path, info: Info, pictures: Sequence[tuple[np.ndarray, Labels]], found: Sequence[Detections]
) -> None:
    """Held-out pictures in pairs: as labelled above, as found below, with misses and false alarms marked."""
    columns = len(pictures)
    figure = Figure(figsize=(max(3.2 * columns, 6.4), 7.4), layout="constrained")
    panels = figure.subplots(2, columns, squeeze=False)
    shown = [one.take(one.scores >= SHOWN_SCORE) for one in found]
    by_class = _class_colours(
        info, [x for (_, labels), one in zip(pictures, shown, strict=True) for x in (labels, one)]
    )
    marks: list[Line2D] = []
    for (image, labels), best, (upper, lower) in zip(pictures, shown, panels.T, strict=True):
        partner, missed, false = match(info, labels, best, len(image))
        drawing.picture(upper, image)
        drawing.picture(lower, image)
        if best.keypoints is not None:
            best = best._replace(keypoints=_with_flags(best.keypoints))
        above, below = _colours(labels, best, partner, by_class)
        drawing.objects(upper, info, labels, above)
        drawing.objects(lower, info, best, below, best.scores)
        for panel, objects, which, kind in ((upper, labels, missed, MISSED), (lower, best, false, FALSE_ALARM)):
            for outline in drawing.outlines(objects)[which]:
                drawing.mark(panel, outline, kind)
            marks += [kind] if which.any() and kind not in marks else []
        count = len(best.scores)
        told = f"{count} found" + "".join(
            f", {n} {word}" for n, word in ((missed.sum(), "missed"), (false.sum(), "false")) if n
        )
        lower.set_xlabel(told if count else "nothing found", fontsize=9)
    panels[0, 0].set_ylabel("labelled", fontsize=12)
    panels[1, 0].set_ylabel(f"found (score ≥ {SHOWN_SCORE})", fontsize=12)
    figure.suptitle(f"Held-out pictures: {info.name}", fontsize=13, parse_math=False)
    classes: list[Artist] = [Patch(facecolor=c, edgecolor="grey", label=info.classes[k]) for k, c in by_class.items()]
    handles = [*classes[:KEYS], *_keypoint_keys(info), *marks]
    drawing.keys(figure, handles, more=len(classes[KEYS:]))
    figure.savefig(path, dpi=110)


def assignment(path: Path, image: np.ndarray, labels: Labels, assigned: Assignment) -> None:
    """The picture with its boxes, then per level the anchors that each object was given, sized by target score."""
    real = labels.take(~labels.crowd)
    side = image.shape[0]
    grid_sizes = [(side // s, side // s) for s in STRIDES]
    points, strides = (x.numpy() for x in make_anchors(grid_sizes, STRIDES))
    xy = points * strides[:, None]
    valid = assigned.valid.cpu().numpy()
    anchor, row, score = (x.cpu().numpy()[valid] for x in (assigned.anchor, assigned.row, assigned.score))
    colours = drawing.colours_of(len(real.boxes))
    figure = Figure(figsize=(3.6 * (1 + len(STRIDES)), 4.7), layout="constrained")
    first, *levels = figure.subplots(1, 1 + len(STRIDES))
    drawing.picture(first, image)
    count = len(real.boxes)
    first.set_title(f"{count} object" if count == 1 else f"{count} objects", fontsize=11)
    for panel, stride in zip(levels, STRIDES, strict=True):
        drawing.picture(panel, image // 3)
        here, chosen = strides == stride, strides[anchor] == stride
        panel.scatter(*xy[here].T, s=2, color="#8a8a8a", linewidths=0)
        at = xy[anchor[chosen]]
        size = _dot_size(score[chosen], stride / side)
        panel.scatter(*at.T, s=size, c=np.array(colours)[row[chosen]], edgecolors="black", linewidths=0.5)
        panel.set_title(f"stride {stride}: {chosen.sum()} of {here.sum()} anchors", fontsize=11)
    for panel in (first, *levels):
        if panel is first:
            drawing.tint(panel, real.masks(), colours)
        for outline, colour in zip(drawing.outlines(real), colours, strict=True):
            drawing.box(panel, outline, colour, linewidth=1.6 if panel is first else 0.8)
    figure.suptitle(
        "Anchors given to each object, in its colour; on fine grids dots shrink to fit their cells", fontsize=12
    )
    handles: list[Artist] = [_dot(x, "#c8c8c8", f"target score {x:g}") for x in (0.1, 0.5, 1.0)]
    drawing.keys(figure, [*handles, _dot(None, "#8a8a8a", "anchor of nobody: background")])
    figure.savefig(path, dpi=110)


def _dot_size(score: np.ndarray | float, share: float) -> np.ndarray | float:
    """In square points; a full score all but fills the cell of the grid, which is this share of the picture."""
    return min(11.0, 0.9 * PANEL_POINTS * share) ** 2 * (0.06 + 0.94 * score)


def _dot(score: float | None, colour: str, label: str) -> Line2D:
    """A key of the size that the dots have on all but the finest grids."""
    size = 2**0.5 if score is None else _dot_size(score, 1.0) ** 0.5
    edge = {"markeredgecolor": "black", "markeredgewidth": 0.5 if score else 0}
    return Line2D([], [], linestyle="", marker="o", markersize=float(size), markerfacecolor=colour, label=label, **edge)


def _class_colours(info: Info, shown: Sequence[Labels | Detections]) -> dict[int, str]:
    """A colour for each class that is in the pictures, the most frequent first; none where there is one alone.

    Masks and poses of a single class have a colour for each object instead.
    """
    if len(info.classes) == 1:
        return {}
    often = Counter(int(k) for objects in shown for k in objects.classes)
    ranked = sorted(often, key=lambda k: (-often[k], k))
    return dict(zip(ranked, drawing.colours_of(len(ranked)), strict=True))


def _colours(
    labels: Labels, found: Detections, partner: np.ndarray, by_class: dict[int, str]
) -> tuple[list[str], list[str]]:
    """Of labelled and of found objects: by class, or by object, and then a found one has that of its labelled one."""
    if by_class:
        return [by_class[int(k)] for k in labels.classes], [by_class[int(k)] for k in found.classes]
    if drawing.shown_by_boxes(labels):
        return [PALETTE[0]] * len(labels.boxes), [PALETTE[0]] * len(found.boxes)
    several = [PALETTE[i % len(PALETTE)] for i in range(len(labels.boxes) + len(found.boxes))]
    own = iter(range(len(labels.boxes), len(several)))
    return several[: len(labels.boxes)], [several[i] if i >= 0 else several[next(own)] for i in partner.tolist()]


def _keypoint_keys(info: Info) -> list[Line2D]:
    """Of dots that only colour tells apart."""
    if not info.keypoints or info.limbs:
        return []
    inks = drawing.hues(len(info.keypoints))
    return [drawing.sign("o", ink, name) for ink, name in zip(inks, info.keypoints, strict=True)][:KEYS]


def _with_flags(keypoints: np.ndarray) -> np.ndarray:
    """Predicted keypoints with a flag in the place of their visibility: shown if more likely labelled than not."""
    return np.concatenate([keypoints[..., :2], keypoints[..., 2:] >= 0.5], axis=-1)
