"""What the pictures of a run say: classes, limbs, sizes, misses and false alarms."""

import numpy as np
import pytest
import torch
from demo import plots
from demo.curves import curves
from demo.detections import Detections
from demo.drawing import KEYS, PALETTE, colours_of
from demo.labels import Info, Labels
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from compiled_loss import Assignment

IMAGE = np.zeros((32, 32, 3), dtype=np.uint8)
BOX = np.array([[4.0, 4, 20, 24]])


@pytest.fixture
def saved(monkeypatch):
    """The figures that are saved."""
    figures = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **b: (figures.append(self), save(self, *a, **b)))
    return figures


@pytest.fixture
def draw(saved, tmp_path):
    """Calls `plots.predictions` on one picture; returns the figure."""

    def call(info, classes, boxes, found, found_boxes, scores, keypoints=None):
        n = len(boxes)
        labels = Labels(np.array(classes), np.array(boxes, float), np.full(n, 320.0), np.zeros(n, bool), keypoints)
        detections = Detections(np.array(scores), np.array(found), np.array(found_boxes, float), keypoints)
        plots.predictions(tmp_path / "x.png", info, [(IMAGE, labels)], [detections])
        return saved[-1]

    return call


def keys(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


CELLS = Info("cells", ("red", "white", "blue"))


def test_colours_of_classes_that_are_there_are_told(draw):
    figure = draw(CELLS, [1, 0, 1], [*BOX, *BOX, *BOX], [1], BOX, [0.9])
    assert keys(figure)[:2] == ["white", "red"]
    assert "blue" not in keys(figure)
    one = draw(Info("cells", ("red",)), [0], BOX, [0], BOX, [0.9])
    assert keys(one) == []


def test_more_classes_than_the_palette_has_have_colours_of_their_own(draw):
    assert len(set(colours_of(60))) == 60
    assert colours_of(60)[: len(PALETTE)] == list(PALETTE)
    many = Info("many", tuple(f"class {i}" for i in range(40)))
    figure = draw(many, np.arange(30), np.repeat(BOX, 30, 0), [], np.zeros((0, 4)), [])
    told = keys(figure)
    assert told[: KEYS + 1] == [*(f"class {i}" for i in range(KEYS)), plots.MISSED.get_label()]
    assert told[-1] == f"and {30 - KEYS} more"
    upper, _ = figure.axes
    assert not upper.texts
    assert len({to_hex(patch.get_edgecolor()) for patch in upper.patches}) == 30


def test_misses_and_false_alarms_are_marked_and_counted(draw):
    far = [[22.0, 22, 30, 30]]
    figure = draw(CELLS, [0, 1], [*BOX, *far], [0, 0], [*BOX, [0, 26, 4, 30]], [0.9, 0.8])
    upper, lower = figure.axes
    assert lower.get_xlabel() == "2 found, 1 missed, 1 false"
    (missed,), (false,) = upper.lines, lower.lines
    assert (missed.get_xdata()[0], missed.get_ydata()[0]) == (30, 22)
    assert (false.get_xdata()[0], false.get_ydata()[0]) == (4, 26)
    assert (missed.get_marker(), false.get_marker()) == (plots.MISSED.get_marker(), plots.FALSE_ALARM.get_marker())
    assert set(keys(figure)) >= {plots.MISSED.get_label(), plots.FALSE_ALARM.get_label()}
    right = draw(CELLS, [0], BOX, [0], BOX, [0.9])
    assert right.axes[1].get_xlabel() == "1 found"
    assert not any(panel.lines for panel in right.axes)


def test_where_nothing_is_found_it_says_so(draw):
    assert [panel.get_xlabel() for panel in draw(CELLS, [0], BOX, [0], BOX, [0.1]).axes] == ["", "nothing found"]


def test_keypoints_are_joined_by_limbs_or_told_by_colour(draw):
    points = np.array([[[8.0, 8, 2], [12.0, 16, 2], [18, 20, 0]]])
    plain = Info("mice", ("mouse",)).with_keypoints(("nose", "paw", "tail"), ())
    assert keys(draw(plain, [0], BOX, [0], BOX, [0.9], points)) == ["nose", "paw", "tail"]
    joined = plain.with_keypoints(plain.keypoints, ((0, 1), (1, 2)))
    figure = draw(joined, [0], BOX, [0], BOX, [0.9], points)
    assert keys(figure) == []
    lines = [c for c in figure.axes[0].collections if isinstance(c, LineCollection)]
    assert lines
    assert all([line.tolist() for line in c.get_segments()] == [[[8, 8], [12, 16]]] for c in lines)


def test_the_sizes_of_dots_are_told(saved, tmp_path):
    labels = Labels(np.array([0]), BOX, np.array([320.0]), np.zeros(1, bool))
    image, anchor, row = torch.tensor([[0], [5], [0]])
    assigned = Assignment(image, anchor, row, torch.tensor([True]), torch.tensor([0.5]), torch.tensor(0))
    plots.assignment(tmp_path / "x.png", IMAGE, labels, assigned)
    assert keys(saved[-1]) == ["target score 0.1", "target score 0.5", "target score 1", "anchor of nobody: background"]


@pytest.mark.parametrize("measured", [[], [(2, 0.25)]])
@pytest.mark.parametrize("final", [0.5, float("nan")])
def test_precision_is_drawn_over_time(saved, tmp_path, measured, final):
    curves(tmp_path / "x.png", ["total", "box"], [[4.0, 1.0], [3.0, 0.5], [2.0, 0.5]], "AP", measured, final)
    first = saved[-1].axes[0]
    drawn = [list(zip(*line.get_data(), strict=True)) for line in first.lines]
    assert drawn == [*([measured] if measured else []), *([[(3, 0.5)]] if final == final else [])]
    assert [panel.get_title(loc="left") for panel in saved[-1].axes[:3]] == ["AP", "loss: total", "loss: box"]
