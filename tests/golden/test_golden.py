"""The stored answers of the oracle against the float64 loops and against ours."""

from typing import Any

import pytest
import torch
from torch import Tensor

from compiled_loss import (
    BinaryCrossEntropy,
    DenseLoss,
    DetectionLoss,
    EndToEndLoss,
    OrientedLoss,
    PoseLoss,
    Predictions,
    ResidualPoseLoss,
    Targets,
)
from compiled_loss.data.plan import TargetPlan
from compiled_loss.exporting.corpus.golden import FAMILIES
from compiled_loss.losses.segmentation import SegmentationLoss
from tests.golden.cases import Case, load_cases
from tests.reference.any_head import reference_loss
from tests.reference.end_to_end import branches_of
from tests.reference.flow import LearntDensity
from tests.reference.parts import ReferenceLoss

CASES = [case for family in FAMILIES for case in load_cases(family)]
FLOW = LearntDensity().requires_grad_(False).log_prob


def reference(case: Case, *, oracle_ties: bool) -> ReferenceLoss:
    return reference_loss(
        case.batch,
        case.raw,
        class_weights=case.class_weights,
        mask_overlap=case.mask_overlap,
        shares=case.shares,
        flow=FLOW,
        oracle_ties=oracle_ties,
    )


def loss_of(case: Case) -> DenseLoss | EndToEndLoss:
    """Ours for the case's head."""
    raw = next(raw for _, raw in branches_of(case.raw))
    options: dict[str, Any] = {
        "num_classes": case.num_classes,
        "reg_max": case.reg_max,
        "classification": BinaryCrossEntropy(case.class_weights),
    }
    kind: type[DenseLoss] = DetectionLoss
    if raw.angles is not None:
        kind = OrientedLoss
    elif raw.coefficients is not None:
        kind, options["mask_overlap"] = SegmentationLoss, case.mask_overlap
    elif raw.keypoints is not None:
        kind = PoseLoss
        options |= {"num_keypoints": case.num_keypoints, "keypoint_dims": case.keypoint_dims}
        if raw.keypoint_sigmas is not None:
            kind, options["flow"] = ResidualPoseLoss, FLOW
    loss = kind(**options)
    if case.shares is None:
        return loss
    criterion = EndToEndLoss(loss)
    criterion.share.fill_(case.shares[0])
    return criterion


def targets_of(case: Case) -> Targets:
    batch = case.batch
    targets = Targets(batch.batch_idx, batch.labels, batch.boxes[:, :4], batch.keypoints, class_map=batch.class_map)
    if batch.boxes.shape[1] == 5:
        targets = targets._replace(angles=batch.boxes[:, 4])
    if batch.masks is not None:
        whole = not batch.masks.is_floating_point()
        targets = targets._replace(**{"index_map" if whole else "masks": batch.masks})
    return targets


def predictions_of(case: Case, leaves: dict[str, Tensor]) -> list[Predictions]:
    """Of each branch, with the leaves as its maps."""
    result = []
    for prefix, raw in branches_of(case.raw):
        maps: dict[str, Any] = {k.removeprefix(prefix): x for k, x in leaves.items() if k.startswith(prefix)}
        result.append(Predictions(**maps, grid_sizes=raw.grid_sizes))
    return result


def positives_of(criterion: DenseLoss | EndToEndLoss, branches: list[Predictions], targets: Targets) -> set:
    """(image, anchor, row); images of the second branch count on from B."""
    losses = [criterion.many, criterion.one] if isinstance(criterion, EndToEndLoss) else [criterion]
    found = set()
    for branch, (loss, predictions) in enumerate(zip(losses, branches, strict=True)):
        a = loss.assign(predictions, targets)
        image = a.image + branch * predictions.scores.shape[0]
        found |= set(zip(*(x[a.valid].tolist() for x in (image, a.anchor, a.row)), strict=True))
    return found


def assert_gradients_equal(gradients: dict[str, Tensor], right: dict[str, Tensor]):
    for name, expected in right.items():
        scale = expected.abs().max().item()
        torch.testing.assert_close(gradients[name].double(), expected.double(), rtol=0, atol=2e-5 * scale + 1e-9)


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_the_float64_loops_reproduce_the_stored_answer(case: Case):
    found = reference(case, oracle_ties=True)
    stored = {name.removesuffix("_loss"): item * case.batch.batch_size for name, item in case.items.items()}
    assert (found.items or found.terms) == pytest.approx(stored, rel=1e-5, abs=1e-6)
    assert found.terms == pytest.approx(dict(zip(stored, case.vector.tolist(), strict=True)), rel=1e-5, abs=1e-6)
    assert_gradients_equal(case.gradients, found.gradients)
    assert {p[:3] for p in found.positives} == case.positives


@pytest.mark.parametrize("case", CASES, ids=repr)
@pytest.mark.parametrize("planned", [False, True], ids=["unplanned", "planned"])
def test_our_losses_reproduce_the_stored_answer(case: Case, planned: bool):
    criterion, leaves, targets = loss_of(case), case.leaves, targets_of(case)
    branches = predictions_of(case, leaves)
    if planned:
        targets = TargetPlan(case.batch.size).apply(targets)

    out = criterion(*branches, targets)
    found = torch.autograd.grad(out.total, list(leaves.values()), allow_unused=True, materialize_grads=True)
    gradients = dict(zip(leaves, found, strict=True))

    # Where ties show, the oracle's answer is one of many: ours is that of the loops in which the lowest anchor wins.
    right = reference(case, oracle_ties=False)
    assert {name: x.item() for name, x in out.terms.items()} == pytest.approx(right.terms, rel=1e-5, abs=1e-6)
    assert_gradients_equal(gradients, right.gradients)
    positives = positives_of(criterion, branches, targets)
    assert positives == {p[:3] for p in right.positives}
    assert out.overflow == 0
    if not case.ties:
        assert positives == case.positives
        names = [name.removesuffix("_loss") for name in case.items]
        torch.testing.assert_close(torch.stack([out.terms[name] for name in names]), case.vector, rtol=1e-5, atol=1e-6)
        assert_gradients_equal(gradients, case.gradients)
        if isinstance(criterion, EndToEndLoss):
            items = {f"{name}_loss": x.item() / case.batch.batch_size for name, x in out.items.items()}
            assert items == pytest.approx(case.items, rel=1e-5, abs=1e-6)
