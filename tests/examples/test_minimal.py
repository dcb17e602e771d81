"""The smallest program: it runs, and with more steps its boxes lie on the rectangles."""

import functools
import sys

import minimal
import pytest
import torch
from PIL import Image

from compiled_loss import Detections


def test_it_trains_and_leaves_a_picture(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    monkeypatch.setattr(sys, "argv", ["minimal.py", "--steps", "3", "--out", str(tmp_path / "new" / "picture.png")])
    minimal.main()
    with Image.open(tmp_path / "new" / "picture.png") as picture:
        assert picture.size == (512, 128)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("the first step compiles")
    assert [line.split(":")[0] for line in printed[1:]] == ["step 0", "step 2", "picture"]


def test_rows_are_the_rectangles_of_their_pictures():
    torch.manual_seed(1)
    images, rows = minimal.pictures(20)
    rows.validate(20, minimal.CLASSES)
    last = [int((rows.batch_idx == i).nonzero().max()) for i in range(20)]  # nothing lies over the last of a picture
    for i, row in enumerate(last):
        x, y, w, h = (rows.boxes[row] * minimal.SIZE).round(decimals=4).tolist()
        inside = images[i, :, int(y - h / 2) : int(y + h / 2), int(x - w / 2) : int(x + w / 2)]
        assert inside.shape[1:] == (h, w)
        assert (inside == minimal.COLOURS[rows.labels[row]][:, None, None]).all()


def test_a_picture_shows_what_is_sure_once():
    boxes = torch.tensor([[[10.0, 10, 60, 60], [12, 10, 60, 60], [70, 70, 120, 120]]])
    found = Detections(boxes, torch.tensor([[0.9, 0.8, 0.2]]), *torch.zeros(2, 1, 3).long())
    picture = minimal.draw(torch.zeros(3, minimal.SIZE, minimal.SIZE), found, 0)
    white = torch.tensor(list(picture.convert("L").tobytes())).view(minimal.SIZE, minimal.SIZE) == 255
    assert white[40, 10:12].all()
    assert not white[40, 13:15].any()  # the double would have its side here
    assert not white[70:, 70:].any()


@pytest.fixture(autouse=True)
def _forget():
    torch.compiler.reset()
