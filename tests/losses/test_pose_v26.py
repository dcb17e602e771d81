"""The pose loss with residual log-likelihood: cases worked by hand, and the float64 loops."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from compiled_loss import (
    ATSS,
    Assigner,
    EndToEndLoss,
    Predictions,
    ResidualPoseLoss,
    Scheduled,
    TargetPlan,
    Targets,
    TaskAligned,
)
from compiled_loss.assign.regions import InBox, fitting_levels
from compiled_loss.terms.keypoints import residual_log_likelihood
from tests.assign.scenes import anchors_of, candidates_of
from tests.reference.any_head import reference_loss
from tests.reference.assigner import candidates, level_gate, pixel_boxes
from tests.reference.batches import KINDS, LAYOUTS, Batch, Raw, make_batch, make_predictions
from tests.reference.flow import LearntDensity, log_density
from tests.reference.parts import anchor_grid

STRIDES = (8, 16, 32)
MAPS = ("boxes", "scores", "keypoints", "keypoint_sigmas")


def draw(seed: int, *, num_keypoints: int = 5, dims: int = 3, values: int = 3, reg_max: int = 1, **options: Any):
    """A batch and the maps of a head for it."""
    kind = options.pop("kind", "mixed")
    batch = make_batch(seed, num_classes=2, num_keypoints=num_keypoints, keypoint_values=values, **options)
    heads: dict[str, Any] = {
        "num_classes": 2,
        "reg_max": reg_max,
        "num_keypoints": num_keypoints,
        "keypoint_dims": dims,
    }
    return batch, make_predictions(seed + 1, batch, kind=kind, keypoint_sigmas=True, **heads)


def answer(criterion: ResidualPoseLoss, batch: Batch, raw: Raw, dtype: torch.dtype = torch.float32, **targets: Any):
    """The loss, the gradient of its total for every map, and the positives."""
    leaves = {name: getattr(raw, name).to(dtype).clone().requires_grad_() for name in MAPS}
    predictions = Predictions(grid_sizes=raw.grid_sizes, **leaves)
    rows = Targets(*batch[2:6])._replace(**targets)
    out, a = criterion(predictions, rows), criterion.assign(predictions, rows)
    slots = zip(*(x[a.valid].tolist() for x in (a.image, a.anchor, a.row)), strict=True)
    return out, dict(zip(leaves, torch.autograd.grad(out.total, list(leaves.values())), strict=True)), set(slots)


def check(criterion: ResidualPoseLoss, batch: Batch, raw: Raw, **options: Any) -> None:
    """Items to 1e-5, gradients to 2e-5 of the largest entry and the same positives, in both precisions."""
    wanted = reference_loss(batch, raw, flow=log_density, **options)
    for dtype in (torch.float64, torch.float32):
        out, gradients, positives = answer(criterion, batch, raw, dtype)
        assert positives == {p[:3] for p in wanted.positives}
        assert {name: x.item() for name, x in out.terms.items()} == pytest.approx(wanted.terms, rel=1e-5, abs=1e-8)
        for name, expected in wanted.gradients.items():
            atol = 2e-5 * expected.abs().max().item() + 1e-12
            torch.testing.assert_close(gradients[name].double(), expected, rtol=0, atol=atol)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_loss_is_that_of_the_loops_on_every_kind_of_batch(layout, kind):
    check(ResidualPoseLoss(2, 5, reg_max=1, flow=log_density), *draw(3, layout=layout, kind=kind))


@pytest.mark.parametrize(("num_keypoints", "dims"), [(17, 3), (17, 2), (5, 2)])
@pytest.mark.parametrize("values", [2, 3])
def test_the_loss_is_that_of_the_loops_for_every_kind_of_keypoint(num_keypoints, dims, values):
    criterion = ResidualPoseLoss(2, num_keypoints, keypoint_dims=dims, reg_max=1, flow=log_density)
    check(criterion, *draw(4, num_keypoints=num_keypoints, dims=dims, values=values))


@pytest.mark.parametrize("counts", [(0, 0), (1,), (60, 0, 1)])
def test_the_loss_is_that_of_the_loops_for_few_and_many_objects(counts):
    check(ResidualPoseLoss(2, 5, reg_max=1, flow=log_density), *draw(5, counts=counts))


def test_bins_sigmas_weights_and_fewer_anchors_reach_the_loss():
    sigmas, weights = torch.linspace(0.05, 0.2, 5), torch.tensor([1.0, 2.0, 0.0, 0.5, 1.0])
    options = {"sigmas": sigmas, "keypoint_weights": weights, "assigner": TaskAligned(7, 1)}
    criterion = ResidualPoseLoss(2, 5, reg_max=16, flow=log_density, **options)
    lists = {"sigmas": sigmas.double().tolist(), "keypoint_weights": weights.tolist()}
    check(criterion, *draw(6, reg_max=16), **lists, top_k=7, keep=1)


def test_planned_pages_give_the_same_numbers():
    batch, raw = draw(7, layout="tiny")
    criterion = ResidualPoseLoss(2, 5, reg_max=1, flow=log_density)
    pages = TargetPlan(batch.size).apply(Targets(*batch[2:6])).pages
    assert answer(criterion, batch, raw, pages=pages)[0].total == answer(criterion, batch, raw)[0].total


def likelihood(error: float, sigma: float, *, visible: bool = True) -> tuple[Tensor, Tensor]:
    """Of one keypoint that is off by `error` in x, under a flow that answers 0."""
    predicted = torch.tensor([[[error, 0.0]]], requires_grad=True)
    raw = torch.full((1, 1, 2), math.log(sigma / (1 - sigma)))
    seen = torch.full((1, 1), visible)
    loss, _ = residual_log_likelihood(predicted, torch.zeros(1, 1, 2), raw, seen, lambda e: e[:, 0] * 0)
    return loss, torch.autograd.grad(loss.sum(), predicted)[0]


def test_the_likelihood_of_one_keypoint_by_hand():
    # log 0.5 + log 1 for x and for y, and an error of 0.25 / 0.5 sigmas.
    loss, gradient = likelihood(0.25, 0.5)
    assert loss.item() == pytest.approx(2 * math.log(0.5) + 0.5, rel=1e-6)
    assert gradient.flatten().tolist() == pytest.approx([2.0, 0.0], rel=1e-6)


def test_an_error_beyond_a_hundred_sigmas_counts_as_a_hundred():
    loss, gradient = likelihood(70.0, 0.5)
    assert loss.item() == pytest.approx(2 * math.log(0.5) + 100, rel=1e-6)
    assert not gradient.any()


@pytest.mark.parametrize(("error", "visible"), [(1.0, False), (math.inf, True), (math.nan, True), (math.nan, False)])
def test_a_keypoint_that_is_invisible_or_has_no_finite_error_counts_nothing(error, visible):
    loss, gradient = likelihood(error, 0.5, visible=visible)
    assert not loss.any()
    assert not gradient.any()


def test_a_spread_that_underflows_has_a_finite_likelihood():
    raw = torch.full((1, 1, 2), -200.0, requires_grad=True)
    arguments = torch.zeros(1, 1, 2), torch.zeros(1, 1, 2), raw, torch.ones(1, 1).bool(), log_density
    loss, counted = residual_log_likelihood(*arguments)
    assert counted.all()
    assert loss.isfinite().all()
    assert torch.autograd.grad(loss.sum(), raw)[0].isfinite().all()


def test_the_mean_likelihood_is_never_negative():
    batch, raw = draw(8)
    criterion = ResidualPoseLoss(2, 5, reg_max=1, flow=lambda errors: errors.sum(-1) * 0 + 1000)
    assert answer(criterion, batch, raw)[0].terms["rle"] == 0


@pytest.mark.parametrize("missing", ["flow", "sigmas"])
def test_without_a_flow_or_sigmas_the_term_is_zero_and_the_others_stay(missing):
    batch, raw = draw(9)
    predictions = Predictions(raw.boxes, raw.scores, raw.grid_sizes, raw.keypoints, None, raw.keypoint_sigmas)
    targets = Targets(*batch[2:6])
    full = ResidualPoseLoss(2, 5, reg_max=1, flow=log_density)
    bare = ResidualPoseLoss(2, 5, reg_max=1, flow=None if missing == "flow" else log_density)
    given = predictions if missing == "flow" else predictions._replace(keypoint_sigmas=None)
    terms, expected = bare(given, targets).terms, full(predictions, targets).terms
    assert terms.pop("rle") == 0
    assert expected.pop("rle") > 0
    assert terms == expected


def test_the_parameters_of_the_flow_learn_and_have_a_gradient_without_objects():
    flow = LearntDensity()
    criterion = ResidualPoseLoss(2, 5, reg_max=1, flow=flow.log_prob)
    for counts in ((3, 1), (0, 0)):
        batch, raw = draw(10, counts=counts)
        predictions = Predictions(raw.boxes, raw.scores, raw.grid_sizes, raw.keypoints, None, raw.keypoint_sigmas)
        out = criterion(predictions, Targets(*batch[2:6]))
        (gradient,) = torch.autograd.grad(out.total, [flow.weight])
        assert gradient.isfinite().all()
        assert gradient.any() == (counts != (0, 0))


def test_broken_predictions_of_one_image_leave_the_gradients_of_the_other():
    batch, raw = draw(11, counts=(4, 4))
    criterion = ResidualPoseLoss(2, 5, reg_max=1, flow=log_density)
    assert raw.keypoints is not None
    assert raw.keypoint_sigmas is not None
    keypoints, sigmas = raw.keypoints.clone(), raw.keypoint_sigmas.clone()
    keypoints[0], sigmas[0] = math.nan, math.inf
    broken = raw._replace(keypoints=keypoints, keypoint_sigmas=sigmas)
    _, gradients, positives = answer(criterion, batch, broken)
    assert all(gradient[1].isfinite().all() for gradient in gradients.values())
    expected = answer(criterion, batch, raw)[2]
    assert {p for p in positives if p[0] == 1} == {p for p in expected if p[0] == 1}


@pytest.mark.parametrize("field", ["boxes", "keypoints"])
def test_an_anchor_with_one_broken_number_is_not_picked(field):
    batch, raw = draw(11, counts=(4, 4))
    criterion = ResidualPoseLoss(2, 5, reg_max=1, flow=log_density)
    before = answer(criterion, batch, raw)[2]
    image, anchor, _ = min(before)
    broken = getattr(raw, field).clone()
    broken[image, 3, anchor] = math.inf
    after = answer(criterion, batch, raw._replace(**{field: broken}))[2]
    assert (image, anchor) not in {p[:2] for p in after}


@pytest.mark.parametrize(
    ("side", "levels"),
    [
        (1, [True, False, False]),
        (32, [True, True, False]),
        (96, [True, True, True]),
        (97, [False, True, True]),
        (192, [False, True, True]),
        (193, [False, False, True]),
        (1000, [False, False, True]),
    ],
)
def test_a_level_takes_boxes_from_two_to_twelve_strides(side, levels):
    assert fitting_levels(torch.tensor([[0.0, 0.0, side, side]]), STRIDES).tolist() == [levels]


def test_a_single_level_takes_every_box():
    assert fitting_levels(torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 999.0, 999.0]]), [8]).all()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_gate_leaves_the_candidates_of_the_loops(layout):
    batch = make_batch(12, layout=layout, counts=(40,), size=(320, 320))
    boxes = torch.from_numpy(pixel_boxes(batch.boxes, 320, 320))
    # A level of a very flat image may hold no anchor of a box, which then has them on all.
    grids = ((40, 40), (20, 20), (10, 10))
    points, stride = anchor_grid(grids, STRIDES)
    levels = fitting_levels(boxes, STRIDES)
    found = candidates_of(boxes, torch.ones(40, dtype=torch.bool), grids, STRIDES, levels=levels)
    for n, box in enumerate(boxes.numpy()):
        expected = level_gate(candidates(points * stride[:, None], box, 16), stride, box)
        assert anchors_of(found, n) == expected.nonzero()[0].tolist()


def taken(criterion: ResidualPoseLoss, batch: Batch, raw: Raw) -> set[tuple[int, int, int]]:
    predictions = Predictions(raw.boxes, raw.scores, raw.grid_sizes, raw.keypoints)
    a = criterion.assign(predictions, Targets(*batch[2:6]))
    return set(zip(*(x[a.valid].tolist() for x in (a.image, a.anchor, a.row)), strict=True))


def of_kind(assigner: Assigner | None = None) -> ResidualPoseLoss:
    return ResidualPoseLoss(2, 5, reg_max=1, flow=None, assigner=assigner)


def test_the_gate_is_the_boxes_own_whatever_the_assigner():
    batch, raw = draw(14, counts=(9, 12))
    gated, open_ = taken(of_kind(), batch, raw), taken(of_kind(TaskAligned(region=InBox())), batch, raw)
    assert gated != open_
    assert taken(of_kind(TaskAligned()), batch, raw) == gated
    schedule = Scheduled(TaskAligned(top_k=3), TaskAligned())
    assert taken(of_kind(schedule), batch, raw) == taken(of_kind(TaskAligned(top_k=3)), batch, raw)
    schedule.set_second(True)
    assert taken(of_kind(schedule), batch, raw) == gated
    later = Scheduled(ATSS(), Scheduled(TaskAligned(), ATSS()), second=True)
    assert taken(of_kind(later), batch, raw) == gated
    assert TargetPlan(batch.size, region=of_kind(later).region).apply(Targets(*batch[2:6])).pages is not None


def test_both_branches_of_a_loss_with_an_assigner_of_ones_own_are_gated():
    gate = InBox(fitting_levels=True)
    both = EndToEndLoss(of_kind(TaskAligned(top_k=5)))
    assert (both.many.region, both.one.region) == (gate, gate)
    assert EndToEndLoss(of_kind(), one_to_one=TaskAligned(1)).one.region == gate
    with pytest.raises(ValueError, match="one_to_one: expected the same candidates as the loss's assigner"):
        EndToEndLoss(of_kind(), one_to_one=TaskAligned(1, region=InBox()))


def test_a_crowd_holds_anchors_of_every_level():
    batch, raw = draw(15, counts=(1, 1))
    row = torch.tensor([[0.5, 0.5, 0.4, 0.4]] * 2)
    targets = Targets(torch.tensor([0, 1]), torch.tensor([0, 1]), row, torch.rand(2, 5, 3), ignore=torch.ones(2) > 0)
    predictions = Predictions(raw.boxes, raw.scores, raw.grid_sizes, raw.keypoints)
    found = of_kind().place(predictions, targets).ignored
    points, stride = anchor_grid(raw.grid_sizes, STRIDES)
    for n, box in enumerate(pixel_boxes(row, *batch.size)):
        inside = candidates(points * stride[:, None], box, 16)
        assert found is not None
        assert found[n].tolist() == inside.tolist()
        assert (level_gate(inside, stride, box) != inside).any()


def test_wrong_shapes_are_refused_by_name():
    with pytest.raises(ValueError, match="keypoint_weights"):
        ResidualPoseLoss(2, 5, flow=None, keypoint_weights=torch.ones(4))
    batch, raw = draw(13)
    predictions = Predictions(raw.boxes, raw.scores, raw.grid_sizes, raw.keypoints, None, raw.keypoints)
    with pytest.raises(ValueError, match=r"predictions\.keypoint_sigmas"):
        ResidualPoseLoss(2, 5, reg_max=1, flow=log_density)(predictions, Targets(*batch[2:6]))
