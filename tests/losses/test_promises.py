"""What every loss also promises: empty batches, low-precision predictions, autocast."""

from copy import deepcopy

import pytest
import torch

from compiled_loss import BinaryCrossEntropy, DetectionLoss, OrientedLoss, PoseLoss, Predictions, Targets, TaskAligned
from tests.losses.scenes import Scene, make_scene, outcome, positives

CRITERIA = [DetectionLoss(3), DetectionLoss(3, reg_max=1), PoseLoss(2, 5), PoseLoss(2, 5, keypoint_dims=2, reg_max=1)]
CRITERIA += [OrientedLoss(3), OrientedLoss(2, reg_max=1, assigner=TaskAligned(top_k=7, keep=1))]
every_loss = pytest.mark.parametrize("criterion", CRITERIA)


def without_rows(scene: Scene, kind: str) -> Scene:
    if kind == "no rows":
        return scene._replace(targets=scene.targets._map(lambda x: x[:0]))
    return scene._replace(targets=scene.targets._replace(batch_idx=torch.full_like(scene.targets.batch_idx, -1)))


@every_loss
@pytest.mark.parametrize("kind", ["no rows", "padding alone"])
def test_a_batch_without_objects_has_a_finite_loss_and_a_gradient_for_every_input(criterion, kind):
    scene = without_rows(make_scene(1, criterion, counts=(2, 3)), kind)
    out, gradients = outcome(criterion, scene)
    assert out.num_positives == 0
    for name, term in out.terms.items():
        assert term.isfinite()
        assert name == "cls" or term == 0
    scores = scene.predictions.scores
    background = torch.nn.functional.softplus(scores.double()).sum() * criterion.gains["cls"] * len(scores)
    torch.testing.assert_close(out.total.double(), background, rtol=1e-6, atol=0)
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert [bool(gradient.any()) for gradient in gradients] == [False, True, False][: len(gradients)]


@every_loss
def test_padding_rows_change_nothing(criterion):
    scene = make_scene(2, criterion)
    n = len(scene.targets.labels)
    order = torch.randperm(n + 5)

    def padded(x, value):
        return torch.cat([x, x.new_full((5, *x.shape[1:]), value)])[order]

    targets = scene.targets._map(lambda x: padded(x, 0.5 if x.is_floating_point() else 0))
    targets = targets._replace(batch_idx=padded(scene.targets.batch_idx, -1))
    (out, gradients), (more, more_gradients) = outcome(criterion, scene), outcome(criterion, Scene(scene[0], targets))
    assert more.num_positives == out.num_positives
    torch.testing.assert_close(more.total, out.total)
    for x, y in zip(more_gradients, gradients, strict=True):
        torch.testing.assert_close(x, y)


@every_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_predictions_are_assigned_as_their_float32_values_and_get_gradients_of_their_own_dtype(criterion, dtype):
    low = make_scene(4, criterion).to(dtype)
    high = low.to(torch.float32)
    assert positives(criterion, low) == positives(criterion, high)
    (out, gradients), (wanted, wanted_gradients) = outcome(criterion, low), outcome(criterion, high)
    assert out.total.dtype == torch.float32
    torch.testing.assert_close(out.total, wanted.total)
    for got, expected in zip(gradients, wanted_gradients, strict=True):
        assert got.dtype == dtype
        assert torch.equal(got, expected.to(dtype))  # rounded once, however many terms read the map


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_changes_neither_the_assignment_nor_the_loss(criterion, dtype):
    scene = make_scene(5, criterion).to(dtype)
    wanted, gradients = outcome(criterion, scene)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got, same_gradients = outcome(criterion, scene)
        cast = positives(criterion, scene)
    assert cast == positives(criterion, scene)
    assert got.total == wanted.total
    assert all(torch.equal(x, y) for x, y in zip(same_gradients, gradients, strict=True))


@every_loss
def test_the_total_is_the_sum_of_its_terms_and_no_gradient_reaches_the_targets(criterion):
    scene = make_scene(6, criterion)
    boxes = scene.targets.boxes.clone().requires_grad_()
    out = criterion(scene.predictions, scene.targets._replace(boxes=boxes))
    torch.testing.assert_close(torch.stack(list(out.terms.values())).sum(), out.total)
    assert not any(x.requires_grad for x in criterion.assign(*scene) if x is not None)
    assert not out.num_positives.requires_grad
    assert not out.overflow.requires_grad


@every_loss
def test_too_few_pages_are_reported_and_the_loss_stays_finite(criterion):
    scene = make_scene(7, criterion, layout="spread")
    with pytest.warns(UserWarning, match="objects lose candidate anchors"):
        out, gradients = outcome(deepcopy(criterion), Scene(scene[0], scene.targets._replace(pages=1)))
    assert out.overflow > 0
    assert all(x.isfinite().all() for x in (out.total, *gradients))


def test_criteria_move_and_save_like_any_module():
    criterion = PoseLoss(2, 5, classification=BinaryCrossEntropy(torch.ones(2)), sigmas=torch.full((5,), 0.2))
    assert list(criterion.state_dict()) == []
    assert {b.device.type for b in criterion.to("meta").buffers()} == {"meta"}


def test_extreme_logits_give_finite_losses_and_gradients():
    criterion = DetectionLoss(2, strides=(8, 16))
    targets = Targets(torch.tensor([0]), torch.tensor([1]), torch.tensor([[0.5, 0.5, 0.5, 0.5]]))
    for extreme in (-1e4, 1e4):
        boxes = torch.full((1, 64, 20), extreme).requires_grad_()
        scores = torch.full((1, 2, 20), extreme).requires_grad_()
        out, gradients = outcome(criterion, Scene(Predictions(boxes, scores, ((4, 4), (2, 2))), targets))
        assert out.total.isfinite()
        assert all(x.isfinite().all() for x in gradients)
