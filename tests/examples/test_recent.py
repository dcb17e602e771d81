"""Data sets as workers get them that are not forked: pickled, without what was remembered."""

import pickle

import pytest
import torch
from demo.batches import Batches, plan_run
from demo.blobs import Blobs
from demo.boats import Boats
from demo.figures import Figures
from demo.folder import Folder
from demo.recent import Recent

from compiled_loss import DetectionLoss


def test_results_are_made_once_until_others_push_them_out():
    made = []
    recent = Recent(lambda index: made.append(index) or -index, 2)
    assert [recent(i) for i in (1, 2, 1, 3, 1, 2)] == [-1, -2, -1, -3, -1, -2]
    assert made == [1, 2, 3, 2]


@pytest.mark.parametrize("kind", [Figures, Boats, Blobs, "folder"])
def test_batches_are_the_same_in_another_process(folder, kind):
    data = Folder(folder, "train", 64) if kind == "folder" else kind(64, 4)
    batches = Batches(data, 2, plan_run(data, 2, DetectionLoss(2), 2), seed=0)
    images, targets = batches.batch(1)
    text = pickle.dumps(batches)
    assert len(text) < 20_000
    again, same = pickle.loads(text).batch(1)
    assert torch.equal(images, again)
    assert torch.equal(targets.boxes, same.boxes)
