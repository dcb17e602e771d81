"""Our losses and assigner beside what lucid-yolo's answered, recorded by `python -m tests.golden.lucid record`."""

import numpy as np
import pytest

from tests.golden.lucid import FILE, PARTING, PARTS, answer, difference, drawn
from tests.golden.lucid_scenes import MANY, ONE, ByAlignment, make_branches, our_loss, our_positives, scenes

ANSWERS = np.load(FILE)


def stored(name: str) -> list[np.ndarray]:
    return [ANSWERS[f"{name}/{i}"] for i in range(len([x for x in ANSWERS.files if x.startswith(f"{name}/")]))]


@pytest.mark.parametrize("name", [name for name in PARTS if name not in PARTING])
def test_values_and_gradients_are_those_of_its_formulas(name):
    assert max(difference(answer(PARTS[name].ours, drawn(0)[name]), stored(name))) < 2e-6


def test_a_box_between_pixels_crops_other_pixels_of_its_mask():
    # Ours, as the reference's, are the columns x1 <= c < x2; its are those whose middle c + 1/2 is in the box.
    (name,) = PARTING
    given = drawn(0)[name]
    assert max(difference(answer(PARTS[name].ours, given), stored(name))) > 1e-2
    *rest, boxes = given.rest
    moved = given._replace(rest=(*rest, boxes - 0.5))
    assert max(difference(answer(PARTS[name].ours, moved), stored(name))) < 2e-6


@pytest.mark.parametrize("seed", range(4))
def test_box_and_class_terms_of_both_branches_have_its_values_and_gradients(seed):
    assert max(difference(our_loss(make_branches(seed)), stored(f"whole/{seed}"))) < 1e-5


@pytest.mark.parametrize(("name", "assigner"), [("one to many", MANY), ("one to one", ONE)])
def test_positives_and_target_scores_are_those_of_its_assigner(name, assigner):
    rows, contested, count = ANSWERS[name], 0, 0
    for s, scene in enumerate(scenes(range(8), 3)):
        wanted = {(int(b), int(a), int(n)): x for _, b, a, n, x in rows[rows[:, 0] == s]}
        found = our_positives(scene, assigner)
        if found.keys() != wanted.keys():
            # Of the rows that select an anchor ours leave it to the one that overlaps it most, its to the best aligned.
            assert our_positives(scene, ByAlignment(assigner)).keys() == wanted.keys()
            contested += 1
        else:
            assert all(abs(found[slot] - score) < 1e-5 for slot, score in wanted.items())
            count += len(found)
    assert contested <= 1
    assert count > 80
