"""What NaN and infinite numbers in a head's maps do: they show, or their anchors go, and no other image is touched."""

import math

import pytest
import torch
from torch import Tensor

from compiled_loss import EndToEndLoss, LossOutput, Predictions
from compiled_loss.losses.segmentation import CompareMasks
from tests.losses.scenes import Scene, outcome, positives
from tests.losses.tasks import CLASSES, OPTIONS, make_loss, make_task, maps_of

BROKEN, OTHERS = 1, [0, 2]
OF_ANCHORS = ("boxes", "keypoints", "keypoint_sigmas", "angles", "coefficients")
# Terms that show broken numbers of a map that all anchors share.
SHOWN_IN = {"scores": "cls", "prototypes": "seg", "semantic": "sem"}
CASES = [(task, name) for task in OPTIONS for name in maps_of(task)]
every_map = pytest.mark.parametrize(("task", "name"), CASES)
every_value = pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])


def broken(scene: Scene, name: str, place: tuple, value: float) -> Scene:
    """A scene with one value at some places of a map, all maps as new leaves."""
    changed = getattr(scene.predictions, name).detach().clone()
    changed[place] = value
    return scene._replace(predictions=scene.predictions._replace(**{name: changed})).to(torch.float32)


def without_rows(scene: Scene, image: int) -> Scene:
    batch_idx = torch.where(scene.targets.batch_idx == image, -1, scene.targets.batch_idx)
    return scene._replace(targets=scene.targets._replace(batch_idx=batch_idx))


def assert_others_are_the_same(got: tuple[LossOutput, list[Tensor]], wanted: tuple[LossOutput, list[Tensor]]) -> None:
    for x, y in zip(got[1], wanted[1], strict=True):
        assert x[OTHERS].isfinite().all()
        torch.testing.assert_close(x[OTHERS], y[OTHERS], rtol=1e-5, atol=1e-7)


@every_value
@every_map
def test_a_broken_map_of_one_image_leaves_the_others_alone(task, name, value):
    criterion, scene = make_loss(task), make_task(task)
    damaged = broken(scene, name, (BROKEN,), value)
    got = outcome(criterion, damaged)
    kept = {x for x in positives(criterion, scene) if x[0] != BROKEN}
    assert {x for x in positives(criterion, damaged) if x[0] != BROKEN} == kept
    if name in OF_ANCHORS or name == "scores":
        # No anchor is left to the rows of that image: the others learn as in a batch without them.
        assert got[0].num_positives == len(kept) > 0
        alone = without_rows(scene, BROKEN)
        assert_others_are_the_same(got, outcome(criterion, alone))
    else:
        aware = isinstance(criterion.pairing, CompareMasks) and name == "prototypes"
        if not aware:  # which compares them, and so gives other anchors to that image's rows
            assert positives(criterion, damaged) == positives(criterion, scene)
            assert_others_are_the_same(got, outcome(criterion, scene))
        assert all(x[OTHERS].isfinite().all() for x in got[1])
    for term, x in got[0].terms.items():
        shown = SHOWN_IN.get(name) == term and not (name == "scores" and value == -math.inf)
        assert bool(x.isfinite()) is not shown, term
    assert bool(got[0].total.isfinite()) is (name in OF_ANCHORS or (name == "scores" and value == -math.inf))


@pytest.mark.parametrize(
    ("task", "name", "value"),
    [
        (task, name, value)
        for task, name in CASES
        for value in (math.nan, math.inf, -math.inf)
        # A bin of -inf is one that is impossible, as a class is.
        if name in OF_ANCHORS and not (name == "boxes" and value == -math.inf and make_loss(task).reg_max > 1)
    ],
)
def test_an_anchor_with_one_broken_number_is_not_picked_and_everything_stays_finite(task, name, value):
    criterion, scene = make_loss(task), make_task(task)
    before = positives(criterion, scene)
    image, anchor, _ = min(before)
    damaged = broken(scene, name, (image, -1, anchor), value)
    after = positives(criterion, damaged)
    assert (image, anchor) not in {x[:2] for x in after}
    assert {x for x in after if x[0] != image} == {x for x in before if x[0] != image}
    out, gradients = outcome(criterion, damaged)
    assert out.total.isfinite()
    assert all(x.isfinite().all() for x in gradients)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_broken_class_logit_shows_and_its_anchor_is_not_picked(value):
    criterion, scene = make_loss("detection"), make_task("detection")
    image, anchor, row = min(positives(criterion, scene))
    label = int(scene.targets.labels[row])
    damaged = broken(scene, "scores", (image, label, anchor), value)
    assert (image, anchor, row) not in positives(criterion, damaged)
    out, gradients = outcome(criterion, damaged)
    assert not out.terms["cls"].isfinite()
    assert all(x[[i for i in range(3) if i != image]].isfinite().all() for x in gradients)


def test_an_impossible_class_or_bin_is_a_number_like_others():
    criterion, scene = make_loss("detection"), make_task("detection")
    image, anchor, row = min(positives(criterion, scene))
    other = (int(scene.targets.labels[row]) + 1) % CLASSES
    finite = outcome(criterion, broken(scene, "scores", (image, other, anchor), -1e4))
    infinite = outcome(criterion, broken(scene, "scores", (image, other, anchor), -math.inf))
    torch.testing.assert_close(infinite[0].terms, finite[0].terms)
    torch.testing.assert_close(infinite[1], finite[1])


@pytest.mark.parametrize("task", ["pose", "segmentation"])
@pytest.mark.parametrize("branch", [0, 1])
def test_of_two_branches_a_broken_one_touches_neither_the_other_nor_other_images(task, branch):
    kind, options = OPTIONS[task]
    criterion, scene = EndToEndLoss(kind(CLASSES, **options)), make_task(task)
    pair = [scene.to(torch.float32), scene.to(torch.float32)]
    name = "keypoints" if task == "pose" else "coefficients"
    pair[branch] = broken(pair[branch], name, (BROKEN,), math.nan)
    out = criterion(pair[0].predictions, pair[1].predictions, scene.targets)
    gradients = torch.autograd.grad(out.total, pair[0].leaves + pair[1].leaves)
    assert out.total.isfinite()
    for i, gradient in enumerate(gradients):
        mine = i // len(scene.leaves) == branch
        assert (gradient[OTHERS] if mine else gradient).isfinite().all()


@pytest.mark.parametrize("task", ["pose", "segmentation"])
def test_compiled_broken_numbers_do_what_they_do_eagerly(task):
    criterion, scene = make_loss(task), make_task(task)
    grids, names = scene.predictions.grid_sizes, [*maps_of(task)]

    def step(*maps: Tensor) -> LossOutput:
        return criterion(Predictions(grid_sizes=grids, **dict(zip(names, maps, strict=True))), scene.targets)

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    for name in names:
        damaged = broken(scene, name, (BROKEN,), math.nan)
        out, wanted = compiled(*damaged.leaves), step(*damaged.leaves)
        torch.testing.assert_close(out.terms, wanted.terms, equal_nan=True)
        assert out.num_positives == wanted.num_positives
        got, right = (torch.autograd.grad(x.total, damaged.leaves) for x in (out, wanted))
        for x, y in zip(got, right, strict=True):
            assert x[OTHERS].isfinite().all()
            torch.testing.assert_close(x[OTHERS], y[OTHERS])
