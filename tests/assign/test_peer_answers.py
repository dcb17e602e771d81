"""What libreyolo's assigners answered, recorded by `python -m tests.golden.peers record`."""

import json

import pytest

from tests.golden.peers import FILE, OURS, ours, scenes

ANSWERS = json.loads(FILE.read_text())


@pytest.mark.parametrize("name", OURS)
def test_images_of_one_row_are_assigned_as_the_peer_did(name):
    for scene, answer in zip(scenes(), ANSWERS[name], strict=True):
        assert ours(name, scene) == [tuple(x) for x in answer]
    assert sum(map(len, ANSWERS[name])) > 100
