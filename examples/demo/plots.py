"""Pictures of a run: loss curves, what was found in held-out pictures, and which anchors each object was given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import hsv_to_rgb, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Polygon

from compiled_loss import Assignment
from compiled_loss.grid import make_anchors
from demo.detections import Detections
from demo.labels import Info, Labels
from demo.model import STRIDES
from demo.rotated import corners

# Light and far apart, so that they read on any picture and beside each other.
PALETTE = ("#ffd92f", "#4dd2ff", "#ff6ec7", "#7dff6b", "#ff9248", "#b79bff", "#2ee6c5", "#ff5a5a", "#ffffff", "#c8a06a")
SHOWN_SCORE = 0.3
SMOOTHED_SHARE = 0.05
PANEL_POINTS = 250


def losses(path: Path, names: Sequence[str], rows: Sequence[Sequence[float]]) -> None:
    """One panel for the total and one for each term, per image, with a running mean."""
    # A term that the task's head has no output for is 0 throughout.
    values = np.array(rows)
    used = np.flatnonzero(values.any(0)).tolist()
    names, values = [names[i] for i in used], values[:, used]
    columns = 3
    figure = Figure(figsize=(10, 2.6 * -(-len(names) // columns)), layout="constrained")
    panels = figure.subplots(-(-len(names) // columns), columns, squeeze=False).ravel()
    steps = np.arange(1, len(rows) + 1)
    for name, column, panel in zip(names, values.T, panels, strict=False):
        window = 1 + 2 * int(SMOOTHED_SHARE * len(column) / 2)
        smooth = np.convolve(column, np.ones(window) / window, mode="valid")
        panel.plot(steps, column, color="#9db8d6", linewidth=0.7)
        panel.plot(steps[window // 2 : window // 2 + len(smooth)], smooth, color="#1f4e8c", linewidth=1.8)
        # The first steps tower over all others: the scale is that of the rest, from zero.
        panel.set_ylim(0, 1.05 * np.quantile(column, 0.98))
        panel.set_title(name, fontsize=11, loc="left", fontweight="bold")
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=8)
    for panel in panels[len(names) :]:
        panel.set_axis_off()
    figure.supxlabel("step", fontsize=9)
    figure.suptitle("Loss per image, and its running mean", fontsize=12)
    figure.savefig(path, dpi=120)


def predictions(
    path: Path, info: Info, pictures: Sequence[tuple[np.ndarray, Labels]], found: Sequence[Detections]
) -> None:
    """Held-out pictures in pairs: as labelled above, as found below."""
    columns = len(pictures)
    figure = Figure(figsize=(3.2 * columns, 6.9), layout="constrained")
    panels = figure.subplots(2, columns, squeeze=False)
    for (image, labels), detections, (upper, lower) in zip(pictures, found, panels.T, strict=True):
        _picture(upper, image)
        _objects(upper, info, labels, np.arange(len(labels.boxes)))
        _picture(lower, image)
        best = detections.take(detections.scores >= SHOWN_SCORE)
        # Found objects take the colour of the labelled one they lie nearest to.
        apart = np.abs(best.boxes[:, None] - labels.boxes).sum(-1)
        nearest = apart.argmin(1) if len(labels.boxes) else np.arange(len(best.boxes))
        if best.keypoints is not None:
            best = best._replace(keypoints=_with_flags(best.keypoints))
        _objects(lower, info, best, nearest, best.scores)
        if len(best.scores) == 0:
            lower.set_xlabel("nothing found", fontsize=9)
    panels[0, 0].set_ylabel("labelled", fontsize=12)
    panels[1, 0].set_ylabel(f"found (score ≥ {SHOWN_SCORE})", fontsize=12)
    figure.suptitle(f"Held-out pictures: {info.name}", fontsize=13, parse_math=False)
    if 1 < len(info.classes) <= len(PALETTE) and _coloured_by_class(pictures[0][1]):
        pairs = zip(PALETTE, info.classes, strict=False)
        keys = [Patch(facecolor=colour, edgecolor="grey", label=name) for colour, name in pairs]
        legend = figure.legend(handles=keys, loc="outside lower center", ncols=5, fontsize=9, frameon=False)
        for text in legend.get_texts():
            text.set_parse_math(False)
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
    colours = np.array([PALETTE[i % len(PALETTE)] for i in range(len(real.boxes))])
    figure = Figure(figsize=(3.6 * (1 + len(STRIDES)), 4.3), layout="constrained")
    first, *levels = figure.subplots(1, 1 + len(STRIDES))
    _picture(first, image)
    count = len(real.boxes)
    first.set_title(f"{count} object" if count == 1 else f"{count} objects", fontsize=11)
    for panel, stride in zip(levels, STRIDES, strict=True):
        _picture(panel, image // 3)
        here, chosen = strides == stride, strides[anchor] == stride
        panel.scatter(*xy[here].T, s=2, color="#8a8a8a", linewidths=0)
        at = xy[anchor[chosen]]
        # In points; a full score all but fills the cell of the grid.
        widest = min(11.0, 0.9 * PANEL_POINTS * stride / side)
        panel.scatter(
            *at.T,
            s=widest**2 * (0.06 + 0.94 * score[chosen]),
            c=colours[row[chosen]],
            edgecolors="black",
            linewidths=0.5,
        )
        panel.set_title(f"stride {stride}: {chosen.sum()} of {here.sum()} anchors", fontsize=11)
    for panel in (first, *levels):
        if panel is first:
            _tint(panel, real.masks(), colours)
        for outline, colour in zip(_outlines(real), colours, strict=True):
            _box(panel, outline, colour, linewidth=1.6 if panel is first else 0.8)
    figure.suptitle("Anchors given to each object: colour = object, size = target score", fontsize=12)
    figure.savefig(path, dpi=110)


def _picture(panel: Axes, image: np.ndarray) -> None:
    side = image.shape[0]
    panel.imshow(image, extent=(0, side, side, 0), interpolation="nearest")
    panel.set(xlim=(0, side), ylim=(side, 0), xticks=[], yticks=[])


def _objects(
    panel: Axes, info: Info, objects: Labels | Detections, ranks: np.ndarray, scores: np.ndarray | None = None
) -> None:
    """Boxes coloured by class, or by rank where there are masks or keypoints, which are joined by limbs."""
    side, masks, keypoints = panel.get_xlim()[1], objects.masks(), objects.keypoints
    plain = _coloured_by_class(objects)
    colours = [PALETTE[i % len(PALETTE)] for i in (objects.classes if plain else ranks)]
    _tint(panel, masks, colours)
    for i, (outline, colour) in enumerate(zip(_outlines(objects), colours, strict=True)):
        _box(panel, outline, colour, linewidth=1.2 if plain else 0.6)
        words = [info.classes[objects.classes[i]]] if keypoints is None and len(info.classes) > 1 else []
        words += [f"{scores[i]:.2f}"] if scores is not None else []
        if words and len(colours) <= 10:
            left, top = outline.min(0)
            panel.text(
                *(max(left, 0.01 * side), max(top, 0.055 * side) - 0.01 * side, " ".join(words)),
                **{"fontsize": 6, "color": "black", "va": "bottom", "clip_on": True, "parse_math": False},
                bbox={"facecolor": colour, "edgecolor": "none", "pad": 0.6},
            )
        if keypoints is not None:
            _pose(panel, info, keypoints[i], colour)


def _coloured_by_class(objects: Labels | Detections) -> bool:
    masks = objects.index_map if isinstance(objects, Labels) else objects.runs
    return masks is None and objects.keypoints is None


def _tint(panel: Axes, masks: np.ndarray | None, colours: Sequence[str] | np.ndarray) -> None:
    """Masks `[n, side, side]` over the picture, the earlier above the later."""
    if masks is None or len(masks) == 0:
        return
    side = masks.shape[1]
    overlay = np.zeros((side, side, 4))
    for mask, colour in zip(masks[::-1], list(colours)[::-1], strict=True):
        padded = np.pad(mask, 1)
        inner = mask & padded[2:, 1:-1] & padded[:-2, 1:-1] & padded[1:-1, 2:] & padded[1:-1, :-2]
        overlay[inner] = (*to_rgb(colour), 0.45)
        overlay[mask & ~inner] = (*to_rgb(colour), 0.95)
    panel.imshow(overlay, extent=(0, side, side, 0), interpolation="nearest")


def _outlines(objects: Labels | Detections) -> np.ndarray:
    """`[n, 4, 2]` corners of rotated or upright boxes."""
    if objects.rotated is not None:
        return corners(objects.rotated)
    return objects.boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)


def _pose(panel: Axes, info: Info, keypoints: np.ndarray, colour: str) -> None:
    shown = keypoints[:, 2] > 0
    lines = [keypoints[[a, b], :2] for a, b in info.limbs if shown[a] and shown[b]]
    panel.add_collection(LineCollection(lines, colors=colour, linewidths=1.3))
    # Without limbs only colour can tell which keypoint is which.
    inks = [colour] * len(shown) if info.limbs else hsv_to_rgb([(k / len(shown), 0.8, 1.0) for k in range(len(shown))])
    size = 7 if info.limbs else 22
    panel.scatter(
        *keypoints[shown, :2].T, s=size, c=np.array(inks)[shown], edgecolors="black", linewidths=0.4, zorder=3
    )


def _box(panel: Axes, outline: np.ndarray, colour: str, linewidth: float) -> None:
    panel.add_patch(Polygon(outline, fill=False, edgecolor=colour, linewidth=linewidth))


def _with_flags(keypoints: np.ndarray) -> np.ndarray:
    """Predicted keypoints with a flag in the place of their visibility: shown if more likely labelled than not."""
    return np.concatenate([keypoints[..., :2], keypoints[..., 2:] >= 0.5], axis=-1)
