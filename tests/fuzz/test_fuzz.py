"""A short run of every mode; `make fuzz` is the long one."""

import pytest
import torch

from tests.fuzz.functions import FAULTY, SIZED, SOUND, _written
from tests.fuzz.labels import FORMATS, _runs
from tests.fuzz.layouts import LAYOUTS
from tests.fuzz.losses import Losses
from tests.fuzz.run import Run
from tests.fuzz.setups import COMPILED, EXPORTED

SEEDS = {
    "eager": range(150),
    "compiled": range(0, 20 * len(COMPILED), len(COMPILED)),  # of the first setup alone
    "exported": range(0, 20 * len(EXPORTED), len(EXPORTED)),
    "onnx": range(0, 20 * len(EXPORTED), len(EXPORTED)),
    "labels": range(60),
    "folders": range(40),
    "functions": range(3),
}


@pytest.mark.parametrize("mode", SEEDS)
def test_nothing_is_wrong(mode):
    run = Run(mode)
    wrong = [text for seed in SEEDS[mode] if (text := run.one(seed))]
    assert not wrong, "\n".join(wrong)


def test_batches_follow_from_their_seed():
    one = Losses("eager")
    assert one(7) == one(7)
    assert one(7)[0] != one(8)[0]


def test_every_loss_and_every_form_of_rows_is_drawn():
    words = [Losses("eager").draw(seed)[0] for seed in range(300)]
    for layout in LAYOUTS:
        assert any(f") {layout}:" in text for text in words), layout
    for kind in ("detect", "pose", "residual", "obb", "segment"):
        for branches in ("''", "'share'", "'sum'"):
            assert any(f"kind='{kind}', end_to_end={branches}" in text for text in words), (kind, branches)


def test_faults_are_expected_on_the_marked_lines():
    source, must, may = _written([SOUND[0], FAULTY[2], SIZED[1]])
    lines = source.splitlines()
    assert must == {("dynamic-size", 6), ("graph-break", 6), ("device", 8)}
    assert may == {("recompile", 6)}
    assert lines[5].strip() == "x = x + x[x > 0].sum()  #"
    assert lines[7].strip() == "x = x + bias  #"
    assert set(FORMATS) == {"coco", "torchvision", "yolo"}


def test_run_lengths_of_a_square():
    mask = torch.zeros(4, 3, dtype=torch.uint8)
    mask[1:3, 1:] = 1
    assert _runs(mask) == [5, 2, 2, 2, 1]
