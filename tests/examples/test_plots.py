"""What the pictures of a run say in words."""

import numpy as np
import pytest
from demo import plots
from demo.detections import Detections
from demo.labels import Info, Labels
from matplotlib.figure import Figure

INFO = Info("cells", ("red", "white"), ("nose",))
IMAGE = np.zeros((32, 32, 3), dtype=np.uint8)


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Calls `plots.predictions` on one picture with one object; returns the figure."""
    figures = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **b: (figures.append(self), save(self, *a, **b)))

    def draw(score, keypoints=None):
        box = np.array([[4.0, 4, 20, 24]])
        labels = Labels(np.array([1]), box, np.array([320.0]), np.zeros(1, bool), keypoints)
        found = Detections(np.array([score]), np.array([1]), box, keypoints)
        plots.predictions(tmp_path / "x.png", INFO, [(IMAGE, labels)], [found])
        return figures[-1]

    return draw


def test_colours_of_classes_are_told(drawn):
    (legend,) = drawn(0.9).legends
    assert [text.get_text() for text in legend.get_texts()] == ["red", "white"]
    assert not drawn(0.9, np.array([[[8.0, 8, 2]]])).legends


def test_where_nothing_is_found_it_says_so(drawn):
    assert [panel.get_xlabel() for panel in drawn(0.1).axes] == ["", "nothing found"]
    assert [panel.get_xlabel() for panel in drawn(0.9).axes] == ["", ""]
