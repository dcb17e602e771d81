"""SimOTA, dynamic soft labels, ATSS and schedules against float64 loops, worked cases, and what holds for all."""

from dataclasses import dataclass
from functools import partial

import pytest
import torch

from compiled_loss import (
    ATSS,
    DetectionLoss,
    DynamicSoftLabel,
    NearCentre,
    Predictions,
    Scheduled,
    SimOTA,
    Targets,
    TaskAligned,
    select,
)
from compiled_loss.geometry.boxes import iou
from tests.assign.scenes import Scene, assert_same_scores, assign, make_scene, readable
from tests.reference import other_assigners as reference
from tests.reference.batches import KINDS, LAYOUTS
from tests.reference.losses import anchor_grid

EITHER = NearCentre(2.5, or_inside=True)
ASSIGNERS = {
    "SimOTA": (SimOTA(), reference.sim_ota),
    "SimOTA in squares or boxes": (SimOTA(region=EITHER), partial(reference.sim_ota, radius=2.5, or_inside=True)),
    "SimOTA of few": (SimOTA(4, 2.0), partial(reference.sim_ota, top_k=4, weight=2.0)),
    "SimOTA that shares": (SimOTA(shared=NearCentre(1.5)), partial(reference.sim_ota, shared=True)),
    "SimOTA that shares squares or boxes": (
        SimOTA(shared=EITHER),
        partial(reference.sim_ota, radius=2.5, or_inside=True, shared=True),
    ),
    "soft labels that share": (
        DynamicSoftLabel(shared=NearCentre(0.0, or_inside=True)),
        partial(reference.dynamic_soft_label, shared=True),
    ),
    "soft labels": (DynamicSoftLabel(), partial(reference.dynamic_soft_label, small=16)),
    "ATSS": (ATSS(), reference.atss),
    "ATSS of few and small": (ATSS(4, 5.0), partial(reference.atss, top_k=4, scale=5.0)),
}
names = pytest.mark.parametrize("name", ASSIGNERS)


def given_of(scene: Scene) -> reference.Given:
    points, steps = anchor_grid(scene.grid_sizes, scene.strides)
    return reference.Given(
        scene.scores.double().numpy(),
        scene.predicted.double().numpy(),
        points * steps[:, None],
        steps,
        scene.batch_idx.tolist(),
        scene.labels.tolist(),
        scene.boxes.numpy(),
    )


def answer(scene: Scene, assigner, **options):
    return readable(assign(*scene, assigner=assigner, overlap=iou, **options))


def check(scene: Scene, name: str) -> None:
    assigner, loops = ASSIGNERS[name]
    assert_same_scores(answer(scene, assigner), loops(given_of(scene)))


@names
@pytest.mark.parametrize("layout", LAYOUTS)
def test_positives_and_scores_equal_the_loops(layout, name):
    for seed, kind in enumerate(KINDS):
        check(make_scene(10 * seed, layout=layout, kind=kind, counts=(3, 0, 9, 1), size=(64, 96)), name)


@names
def test_positives_of_equal_pairs_equal_the_loops(name):
    scene = make_scene(5, layout="on_grid", counts=(6, 6), size=(64, 96))
    # Whole scores, and the same box everywhere: pairs tie wherever the place does not matter.
    tied = scene._replace(scores=scene.scores.round(), predicted=scene.predicted[:, :1].expand_as(scene.predicted))
    check(tied, name)
    check(tied._replace(predicted=scene.boxes[0].expand_as(scene.predicted)), name)
    check(tied.rows(torch.tensor([0, 0, 1, 1, 6, 6, 7])), name)


@names
@pytest.mark.parametrize("size", [(32, 32), (32, 160), (64, 32)])
def test_positives_on_grids_of_few_anchors_equal_the_loops(size, name):
    check(make_scene(7, counts=(5, 2), size=size), name)


@names
def test_boxes_beyond_the_image_equal_the_loops(name):
    scene = make_scene(11, counts=(6, 6), size=(64, 96))
    for shift in ([90.0, 0, 90, 0], [-70.0, -60, -70, -60], [300.0, 0, 300, 0]):
        check(scene._replace(boxes=scene.boxes + torch.tensor(shift)), name)


@names
def test_pages_and_padding_change_nothing(name):
    scene, (assigner, _) = make_scene(3, counts=(5, 0, 7)), ASSIGNERS[name]
    whole = answer(scene, assigner)
    assert answer(scene, assigner, pages=500) == whole
    padded = scene._replace(
        batch_idx=torch.cat([scene.batch_idx, torch.tensor([-1, 3, -1])]),
        labels=torch.cat([scene.labels, torch.tensor([99, 99, 99])]),
        boxes=torch.cat([scene.boxes, torch.full((3, 4), float("nan"))]),
    )
    assert_same_scores(answer(padded, assigner), whole, 1e-6)
    none = assign(*scene.rows(torch.arange(0)), assigner=assigner, overlap=iou)
    assert not none.valid.any()
    assert none.overflow == 0
    few = assign(*scene, assigner=assigner, overlap=iou, pages=1)
    assert few.overflow >= len(scene.labels) - 1


@names
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_broken_predictions_are_never_picked_and_leave_other_images_alone(value, name):
    scene, (assigner, _) = make_scene(8, counts=(9, 9), kind="truth"), ASSIGNERS[name]
    whole = answer(scene, assigner)
    anchors = sorted({a for b, a, _ in whole if b == 0})[::2]
    for field in ("predicted", "scores"):
        broken = getattr(scene, field).clone()
        (broken if field == "predicted" else broken.transpose(1, 2))[0, anchors] = value
        got = answer(scene._replace(**{field: broken}), assigner)
        assert anchors
        assert not {a for b, a, _ in got if b == 0} & set(anchors)
        others, unchanged = ({k: v for k, v in x.items() if k[0] == 1} for x in (got, whole))
        assert_same_scores(others, unchanged, 1e-6)


def test_a_row_without_overlap_still_gets_the_cheapest_anchor_of_its_square():
    scores = torch.zeros(1, 1, 16)
    scores[0, 0, 10] = 1.0
    nowhere = torch.tensor([100.0, 100, 101, 101]).expand(1, 16, 4)
    row = torch.tensor([0])
    box = torch.tensor([[8.0, 8, 24, 24]])  # centre on the corner of four cells: the square of 1.5 strides holds four
    got = readable(assign(scores, nowhere, row, row, box, ((4, 4),), (8,), assigner=SimOTA(), overlap=iou))
    assert got == {(0, 10, 0): 0.0}


def test_sim_ota_takes_as_many_anchors_as_overlaps_add_up_to_and_weighs_them_alike():
    # Four anchors about the centre, overlaps 1, 1, 0.75 and 0.5: they add up to 3.25, so three anchors.
    box = torch.tensor([[8.0, 8, 24, 24]])
    predicted = torch.full((1, 16, 4), 99.0)
    for anchor, right in ((5, 24.0), (6, 24.0), (9, 20.0), (10, 16.0)):
        predicted[0, anchor] = torch.tensor([8.0, 8, right, 24])
    row = torch.tensor([0])
    a = assign(torch.zeros(1, 1, 16), predicted, row, row, box, ((4, 4),), (8,), assigner=SimOTA(), overlap=iou)
    assert readable(a) == pytest.approx({(0, 5, 0): 1.0, (0, 6, 0): 1.0, (0, 9, 0): 0.75}, abs=1e-6)
    assert a.weights()[a.valid].tolist() == [1.0] * 3
    assert a.weights().sum() == 3


def test_atss_takes_the_anchors_above_mean_plus_deviation():
    # One level, nine candidates. The square about the anchor in the middle is the row; four neighbours overlap it by a
    # third (8 of 24 columns), four on corners by a seventh.
    box = torch.tensor([[12.0, 12, 28, 28]])
    row, scores = torch.tensor([0]), torch.zeros(1, 1, 25)
    assigner = ATSS(9, 2.0, levels=1)
    a = assign(scores, box.expand(1, 25, 4), row, row, box, ((5, 5),), (8,), assigner=assigner, overlap=iou)
    assert readable(a) == pytest.approx({(0, 12, 0): 1.0}, abs=1e-6)
    hard = ATSS(9, 2.0, levels=1, soft=False)
    far = torch.zeros(1, 25, 4)
    assert readable(assign(scores, far, row, row, box, ((5, 5),), (8,), assigner=hard, overlap=iou)) == {
        (0, 12, 0): 1.0
    }


@names
def test_positives_of_float64_predictions_are_those_of_the_same_float32_ones(name):
    torch.manual_seed(0)
    maps, grids = (torch.randn(2, 64, 252), torch.randn(2, 3, 252)), ((12, 16), (6, 8), (3, 4))
    boxes = torch.tensor([[0.4, 0.4, 0.5, 0.6], [0.6, 0.6, 0.3, 0.3], [0.5, 0.5, 0.9, 0.9]])
    targets = Targets(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 2]), boxes)
    criterion = DetectionLoss(3, assigner=ASSIGNERS[name][0], overlap=iou)
    boxes, scores = maps
    given = [Predictions(boxes.to(x), scores.to(x), grids) for x in (torch.float32, torch.float64)]
    single, double = (criterion.assign(x, targets) for x in given)
    assert single.valid.any()
    for field in ("image", "anchor", "row", "valid"):
        assert torch.equal(getattr(single, field), getattr(double, field))


def test_atss_asks_for_its_number_of_levels_and_upright_boxes():
    scene = make_scene(1, strides=(8, 16), size=(64, 64), counts=(2,))
    with pytest.raises(ValueError, match="strides: expected the assigner's 3 levels, got 2"):
        assign(*scene, assigner=ATSS(), overlap=iou)
    with pytest.raises(ValueError, match=r"looks at centres: expected shape \[N, 4\], got \(2, 5\)"):
        NearCentre().reach(torch.zeros(2, 5), [8], [(4, 4)])


@pytest.mark.parametrize("seed", range(3))
def test_a_schedule_gives_what_each_assigner_gives(seed):
    scene = make_scene(seed, counts=(5, 0, 7))
    for first, then in (
        (ATSS(), TaskAligned()),
        (TaskAligned(), SimOTA()),
        (DynamicSoftLabel(), TaskAligned(7, keep=1)),
    ):
        both = Scheduled(first, then)
        assert answer(scene, both) == answer(scene, first)
        both.set_second(True)
        assert answer(scene, both) == answer(scene, then)
        planned, alone = (assign(*scene, assigner=x, overlap=iou, pages=300) for x in (both, then))
        torch.testing.assert_close(planned.weights().sum(), alone.weights().sum())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SimOTA(0), "top_k: expected an integer of at least 1, got 0"),
        (lambda: SimOTA(overlap_weight=-1.0), "overlap_weight: expected a finite number of 0 or more, got -1.0"),
        (lambda: DynamicSoftLabel(radius=float("nan")), "radius: expected a finite number of 0 or more, got nan"),
        (lambda: ATSS(scale=0), "scale: expected a finite number above 0, got 0"),
        (
            lambda: ATSS(soft=1),  # type: ignore[arg-type]
            "soft: expected True or False, got 1",
        ),
        (lambda: NearCentre(-1), "radius: expected a finite number of 0 or more, got -1"),
        (
            lambda: Scheduled(ATSS(), SimOTA(), second=None),  # type: ignore[arg-type]
            "second: expected True or False, got None",
        ),
    ],
)
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@names
def test_predictions_in_float64_have_the_positives_of_float32(name):
    scene = make_scene(3, counts=(4, 2), size=(64, 96))
    assigner, head = ASSIGNERS[name][0], Predictions(torch.randn(2, 64, 126), scene.scores, scene.grid_sizes)
    targets = Targets(scene.batch_idx, scene.labels, torch.rand(len(scene.labels), 4) * 0.5 + 0.2)
    criterion = DetectionLoss(scene.scores.shape[1], assigner=assigner, overlap=iou)
    single, double = (criterion.assign(x, targets) for x in (head, head._replace(boxes=head.boxes.double())))
    assert single.valid.any()
    for of_one, of_other in zip(single[:4], double[:4], strict=True):
        assert torch.equal(of_one, of_other)


def test_numbers_of_an_assigner_of_ones_own_may_be_float64():
    scene = make_scene(3, counts=(4, 2), size=(64, 96))

    @dataclass(frozen=True)
    class Best:
        wide: bool
        slots: int = 4
        region: None = None

        def __call__(self, pairs):
            merit = pairs.overlaps(pairs.logits())
            held = select(pairs, merit.double() if self.wide else merit, merit.double() if self.wide else merit, 4)
            return held.assignment(pairs, held.valid.float())

    assert answer(scene, Best(wide=True)) == answer(scene, Best(wide=False)) != {}
