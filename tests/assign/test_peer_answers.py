"""What libreyolo's and getitune's assigners answered, recorded by `tests.golden.peers` and `getitune_assigners`."""

import json

import pytest

from tests.golden import getitune_assigners as getitune
from tests.golden.peers import FILE, OURS, ours, scenes
from tests.reference.batches import LAYOUTS

ANSWERS = json.loads(FILE.read_text())
OF_GETITUNE = json.loads(getitune.FILE.read_text())


@pytest.mark.parametrize("name", OURS)
def test_images_of_one_row_are_assigned_as_the_peer_did(name):
    for scene, answer in zip(scenes(), ANSWERS[name], strict=True):
        assert ours(name, scene) == [tuple(x) for x in answer]
    assert sum(map(len, ANSWERS[name])) > 100


@pytest.mark.parametrize("name", getitune.OURS)
def test_images_of_one_to_six_rows_are_assigned_as_getitune_did(name):
    for i, (scene, answer) in enumerate(zip(getitune.scenes(), OF_GETITUNE[name], strict=True)):
        # Of anchors equally near to a centre on the grid ATSS has the first, theirs whichever torch.topk lists.
        if name != "ATSS" or LAYOUTS[i % 6] not in ("on_grid", "mixed"):
            assert getitune.ours(name, scene) == [tuple(x) for x in answer]
    assert sum(map(len, OF_GETITUNE[name])) > 200
