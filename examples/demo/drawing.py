"""How objects are drawn over a picture: boxes, masks and poses, colours and the keys to them."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Polygon

from demo.detections import Detections
from demo.labels import Info, Labels
from demo.rotated import corners

# Light and far apart, so that they read on any picture and beside each other.
PALETTE = ("#ffd92f", "#4dd2ff", "#ff6ec7", "#7dff6b", "#ff9248", "#b79bff", "#2ee6c5", "#ff5a5a", "#ffffff", "#c8a06a")
# More objects than these leave no room for words beside each.
NAMED_OBJECTS = 10
KEYS = 24


def picture(panel: Axes, image: np.ndarray) -> None:
    side = image.shape[0]
    panel.imshow(image, extent=(0, side, side, 0), interpolation="nearest")
    panel.set(xlim=(0, side), ylim=(side, 0), xticks=[], yticks=[])


def colours_of(count: int) -> list[str]:
    """So many colours: the palette, and where that ends hues between."""
    further = count - len(PALETTE)
    return [*PALETTE[:count], *(_hue(k / further, 0.45, 0.95) for k in range(further))]


def hues(count: int) -> list[str]:
    return [_hue(k / count, 0.8, 1.0) for k in range(count)]


def _hue(hue: float, saturation: float, value: float) -> str:
    return "#" + "".join(f"{round(255 * x):02x}" for x in colorsys.hsv_to_rgb(hue, saturation, value))


def objects(
    panel: Axes,
    info: Info,
    shown: Labels | Detections,
    colours: Sequence[str],
    scores: np.ndarray | None = None,
) -> None:
    """Boxes, masks and poses, each in its colour, and in words what colour does not tell."""
    side, keypoints = panel.get_xlim()[1], shown.keypoints
    plain = shown_by_boxes(shown)
    tint(panel, shown.masks(), colours)
    for i, (outline, colour) in enumerate(zip(outlines(shown), colours, strict=True)):
        box(panel, outline, colour, linewidth=1.2 if plain else 0.6)
        words = [info.classes[shown.classes[i]]] if len(info.classes) > 1 else []
        words += [f"{scores[i]:.2f}"] if scores is not None else []
        if words and len(colours) <= NAMED_OBJECTS:
            left, top = outline.min(0)
            panel.text(
                *(max(left, 0.01 * side), max(top, 0.055 * side) - 0.01 * side, " ".join(words)),
                **{"fontsize": 6, "color": "black", "va": "bottom", "clip_on": True, "parse_math": False},
                bbox={"facecolor": colour, "edgecolor": "none", "pad": 0.6},
            )
        if keypoints is not None:
            pose(panel, info, keypoints[i], colour)


def shown_by_boxes(shown: Labels | Detections) -> bool:
    masks = shown.index_map if isinstance(shown, Labels) else shown.runs
    return masks is None and shown.keypoints is None


def tint(panel: Axes, masks: np.ndarray | None, colours: Sequence[str]) -> None:
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


def outlines(shown: Labels | Detections) -> np.ndarray:
    """`[n, 4, 2]` corners of rotated or upright boxes."""
    if shown.rotated is not None:
        return corners(shown.rotated)
    return shown.boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)


def pose(panel: Axes, info: Info, keypoints: np.ndarray, colour: str) -> None:
    seen = keypoints[:, 2] > 0
    lines = [keypoints[[a, b], :2] for a, b in info.limbs if seen[a] and seen[b]]
    panel.add_collection(LineCollection(lines, colors="black", linewidths=2.4, alpha=0.5))
    panel.add_collection(LineCollection(lines, colors=colour, linewidths=1.4))
    # Without limbs only colour can tell which keypoint is which.
    inks = [colour] * len(seen) if info.limbs else hues(len(seen))
    size = 7 if info.limbs else 22
    panel.scatter(*keypoints[seen, :2].T, s=size, c=np.array(inks)[seen], edgecolors="black", linewidths=0.4, zorder=3)


def box(panel: Axes, outline: np.ndarray, colour: str, linewidth: float) -> None:
    panel.add_patch(Polygon(outline, fill=False, edgecolor=colour, linewidth=linewidth))


def mark(panel: Axes, outline: np.ndarray, kind: Line2D) -> None:
    """A mark of a key at the right upper corner of a box, inside the picture."""
    side = panel.get_xlim()[1]
    x, y = np.clip((outline[:, 0].max(), outline[:, 1].min()), 0.03 * side, 0.97 * side)
    one = Line2D([x], [y], zorder=5)
    one.update_from(kind)
    panel.add_line(one)


def sign(marker: str, face: str, label: str) -> Line2D:
    """A mark, and the key to it."""
    return Line2D(
        *([], []),
        **{"linestyle": "", "marker": marker, "markersize": 7, "label": label},
        **{"markerfacecolor": face, "markeredgecolor": "white", "markeredgewidth": 0.9},
    )


def keys(figure: Figure, handles: Sequence[Artist], more: int = 0) -> None:
    """What colours and marks mean, below the panels; `more` says how many there was no room for."""
    shown = list(handles)
    if more:
        shown.append(Line2D([], [], linestyle="", label=f"and {more} more"))
    if shown:
        width = figure.get_size_inches()[0]
        columns = max(1, min(len(shown), int(width / 2.2)))
        legend = figure.legend(handles=shown, loc="outside lower center", ncols=columns, fontsize=9, frameon=False)
        for text in legend.get_texts():
            text.set_parse_math(False)
