"""Hard random batches as arguments of a loss, and the answer of the float64 reference loss."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from compiled_loss import BinaryCrossEntropy, DenseLoss, LossOutput, OrientedLoss, PoseLoss, Predictions, Targets
from compiled_loss.losses.pose import KeypointTerms
from tests.reference.batches import make_batch, make_predictions
from tests.reference.losses import ReferenceLoss
from tests.reference.losses import loss as reference_loss
from tests.reference.rotated import oriented_loss


class Scene(NamedTuple):
    """A batch for a loss. Gradients flow to the predictions."""

    predictions: Predictions
    targets: Targets

    def to(self, dtype: torch.dtype) -> "Scene":
        """Predictions of another precision, as new leaves."""
        fields = self.predictions._asdict()
        maps = {name: x.detach().to(dtype).requires_grad_() for name, x in fields.items() if isinstance(x, Tensor)}
        return self._replace(predictions=self.predictions._replace(**maps))

    @property
    def leaves(self) -> list[Tensor]:
        return [x for x in self.predictions if isinstance(x, Tensor)]


def make_scene(seed: int, criterion: DenseLoss, *, values: int = 3, **options: Any) -> Scene:
    """A batch with predictions for a criterion; `values` of each keypoint."""
    keypoints, dims = keypoints_of(criterion)
    kind = options.pop("kind", "mixed")
    classes = criterion.num_classes
    if isinstance(criterion, OrientedLoss):
        options["oriented"] = True
    batch = make_batch(seed, num_classes=classes, num_keypoints=keypoints, keypoint_values=values, **options)
    raw = make_predictions(
        seed + 1,
        batch,
        kind=kind,
        num_classes=classes,
        reg_max=criterion.reg_max,
        num_keypoints=keypoints,
        keypoint_dims=dims,
        strides=criterion.strides,
    )
    predictions = Predictions(raw.boxes, raw.scores, raw.grid_sizes, raw.keypoints, raw.angles)
    angles = batch.boxes[:, 4] if batch.boxes.shape[1] == 5 else None
    targets = Targets(batch.batch_idx, batch.labels, batch.boxes[:, :4], batch.keypoints, angles=angles)
    return Scene(predictions, targets).to(torch.float32)


def keypoints_of(criterion: DenseLoss) -> tuple[int, int]:
    """Keypoints of a row, and values of each that a head predicts."""
    found = next((x for x in criterion.extras if isinstance(x, KeypointTerms)), None)
    return (0, 3) if found is None else (found.num_keypoints, found.keypoint_dims)


def outcome(criterion: Callable[..., LossOutput], scene: Scene) -> tuple[LossOutput, list[Tensor]]:
    """The loss, and the gradient of its total for every map."""
    out = criterion(*scene)
    return out, list(torch.autograd.grad(out.total, scene.leaves))


def expected(criterion: DenseLoss, scene: Scene) -> ReferenceLoss:
    """What the loops say."""
    boxes, scores, grids, points, angles = scene.predictions[:5]
    batch_idx, labels, true_boxes, true_points = scene.targets[:4]
    assert isinstance(criterion.classification, BinaryCrossEntropy)
    weights = criterion.classification.class_weights
    options: dict[str, Any] = {
        "strides": criterion.strides,
        "class_weights": None if weights is None else weights.tolist(),
        **{name: getattr(criterion.assigner, name) for name in ("top_k", "keep", "alpha", "beta")},
    }
    if isinstance(criterion, OrientedLoss):
        assert angles is not None
        assert scene.targets.angles is not None
        turned = torch.cat([true_boxes, scene.targets.angles[:, None]], 1)
        return oriented_loss(boxes, scores, angles, grids, batch_idx, labels, turned, **options)
    if isinstance(criterion, PoseLoss):
        sigmas = dict(criterion.named_buffers())["extra0.sigmas"]
        options |= {"num_keypoints": len(sigmas), "sigmas": sigmas.tolist()}
    return reference_loss(boxes, scores, grids, batch_idx, labels, true_boxes, points, true_points, **options)


def assert_equal(criterion: DenseLoss, scene: Scene, *, items: float, gradients: float) -> None:
    """Items to a relative error, gradients to a fraction of the largest entry, and the same positives."""
    wanted = expected(criterion, scene)
    out, got = outcome(criterion, scene)
    assert positives(criterion, scene) == {tuple(p[:3]) for p in wanted.positives}
    assert int(out.num_positives) == len(wanted.positives)
    assert out.overflow == 0
    assert out.terms.keys() == wanted.terms.keys()
    for name, value in out.terms.items():
        assert abs(value.item() - wanted.terms[name]) <= items * abs(wanted.terms[name]) + 1e-9, name
    total = sum(wanted.terms.values())
    assert abs(out.total.item() - total) <= items * total
    for gradient, wanted_gradient in zip(got, wanted.gradients.values(), strict=True):
        scale = wanted_gradient.abs().max().item()
        torch.testing.assert_close(gradient.double(), wanted_gradient, rtol=0, atol=gradients * scale)


def positives(criterion: DenseLoss, scene: Scene) -> set[tuple[int, int, int]]:
    """(image, anchor, row) of every positive."""
    a = criterion.assign(*scene)
    return set(zip(*(x[a.valid].tolist() for x in (a.image, a.anchor, a.row)), strict=True))
