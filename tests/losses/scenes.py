"""Hard random batches as arguments of a loss, and the answer of the float64 reference loss."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from compiled_loss import DetectionLoss, LossOutput, PoseLoss, Predictions, Targets
from tests.reference.batches import make_batch, make_predictions
from tests.reference.losses import ReferenceLoss
from tests.reference.losses import loss as reference_loss


class Scene(NamedTuple):
    """A batch for a loss. Gradients flow to the predictions."""

    predictions: Predictions
    targets: Targets

    def to(self, dtype: torch.dtype) -> "Scene":
        """Predictions of another precision, as new leaves."""
        boxes, scores, grids, points = self.predictions[:4]
        maps = [None if x is None else x.detach().to(dtype).requires_grad_() for x in (boxes, scores, points)]
        assert maps[0] is not None
        assert maps[1] is not None
        return self._replace(predictions=Predictions(maps[0], maps[1], grids, maps[2]))

    @property
    def leaves(self) -> list[Tensor]:
        boxes, scores, _, points = self.predictions[:4]
        return [x for x in (boxes, scores, points) if x is not None]


def make_scene(seed: int, criterion: DetectionLoss, *, values: int = 3, **options: Any) -> Scene:
    """A batch with predictions for a criterion; `values` of each keypoint."""
    keypoints, dims = (criterion.num_keypoints, criterion.keypoint_dims) if isinstance(criterion, PoseLoss) else (0, 3)
    kind = options.pop("kind", "mixed")
    classes = criterion.num_classes
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
    predictions = Predictions(raw.boxes, raw.scores, raw.grid_sizes, raw.keypoints)
    return Scene(predictions, Targets(*batch[2:6])).to(torch.float32)


def outcome(criterion: Callable[..., LossOutput], scene: Scene) -> tuple[LossOutput, list[Tensor]]:
    """The loss, and the gradient of its total for every map."""
    out = criterion(*scene)
    return out, list(torch.autograd.grad(out.total, scene.leaves))


def expected(criterion: DetectionLoss, scene: Scene) -> ReferenceLoss:
    """What the loops say."""
    boxes, scores, grids, points = scene.predictions[:4]
    weights = criterion.class_weights
    pose = criterion if isinstance(criterion, PoseLoss) else None
    return reference_loss(
        boxes,
        scores,
        grids,
        *scene.targets[:3],
        points,
        scene.targets.keypoints,
        num_keypoints=pose.num_keypoints if pose else 0,
        sigmas=pose.sigmas.tolist() if pose else None,
        strides=criterion.strides,
        class_weights=None if weights is None else weights.tolist(),
        top_k=criterion.top_k,
        alpha=criterion.alpha,
        beta=criterion.beta,
    )


def assert_equal(criterion: DetectionLoss, scene: Scene, *, items: float, gradients: float) -> None:
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


def positives(criterion: DetectionLoss, scene: Scene) -> set[tuple[int, int, int]]:
    """(image, anchor, row) of every positive."""
    a = criterion.assign(*scene)
    return set(zip(*(x[a.valid].tolist() for x in (a.image, a.anchor, a.row)), strict=True))
