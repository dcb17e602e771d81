"""The stored answers of the oracle against the float64 loops and against ours."""

import pytest
import torch

from compiled_loss import DetectionLoss, PoseLoss, Predictions, Targets
from compiled_loss.plan import TargetPlan
from tests.golden.cases import Case, load_cases
from tests.reference.losses import ReferenceLoss, loss

CASES = load_cases("detect") + load_cases("pose")


def reference(case: Case, *, oracle_ties: bool) -> ReferenceLoss:
    return loss(
        case.boxes,
        case.scores,
        case.grid_sizes,
        case.batch_idx,
        case.labels,
        case.target_boxes,
        case.keypoints,
        case.target_keypoints,
        num_keypoints=case.num_keypoints,
        class_weights=case.class_weights,
        oracle_ties=oracle_ties,
    )


def assert_gradients_equal(gradients: dict[str, torch.Tensor], right: dict[str, torch.Tensor]):
    for name, expected in right.items():
        scale = expected.abs().max().item()
        torch.testing.assert_close(gradients[name].double(), expected.double(), rtol=0, atol=2e-5 * scale + 1e-9)


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_the_float64_loops_reproduce_the_stored_answer(case: Case):
    found = reference(case, oracle_ties=True)
    stored = {name.removesuffix("_loss"): item * case.batch_size for name, item in case.items.items()}
    assert found.terms == pytest.approx(stored, rel=1e-5, abs=1e-6)
    assert_gradients_equal(case.gradients, found.gradients)
    assert {p[:3] for p in found.positives} == case.positives


@pytest.mark.parametrize("case", CASES, ids=repr)
@pytest.mark.parametrize("planned", [False, True], ids=["unplanned", "planned"])
def test_our_losses_reproduce_the_stored_answer(case: Case, planned: bool):
    options = {
        "num_classes": case.num_classes,
        "reg_max": case.reg_max,
        "class_weights": None if case.class_weights is None else torch.tensor(case.class_weights),
    }
    if case.num_keypoints:
        criterion = PoseLoss(num_keypoints=case.num_keypoints, keypoint_dims=case.keypoint_dims, **options)
    else:
        criterion = DetectionLoss(**options)
    leaves = {name: getattr(case, name).clone().requires_grad_() for name in case.gradients}
    predictions = Predictions(grid_sizes=case.grid_sizes, **leaves)
    targets = Targets(case.batch_idx, case.labels, case.target_boxes, case.target_keypoints)
    if planned:
        targets = TargetPlan(case.size).apply(targets)

    out = criterion(predictions, targets)
    assignment = criterion.assign(predictions, targets)
    gradients = dict(zip(leaves, torch.autograd.grad(out.total, list(leaves.values())), strict=True))

    # Where ties show, the oracle's answer is one of many: ours is that of the loops in which the lowest anchor wins.
    right = reference(case, oracle_ties=False)
    assert {name: x.item() for name, x in out.terms.items()} == pytest.approx(right.terms, rel=1e-5, abs=1e-6)
    assert_gradients_equal(gradients, right.gradients)
    found = torch.stack([assignment.image, assignment.anchor, assignment.row], 1)[assignment.valid]
    assert {tuple(p) for p in found.tolist()} == {p[:3] for p in right.positives}
    if not case.ties:
        assert {p[:3] for p in right.positives} == case.positives
        names = [name.removesuffix("_loss") for name in case.items]
        torch.testing.assert_close(torch.stack([out.terms[name] for name in names]), case.vector, rtol=1e-5, atol=1e-6)
        assert_gradients_equal(gradients, case.gradients)
