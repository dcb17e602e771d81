"""Losses under `torch.func`, whose transforms a function with its own gradient has to allow."""

import pytest
import torch
from torch import Tensor

from compiled_loss import DetectionLoss, Predictions, SegmentationLoss, Targets

GRIDS, STRIDES = ((4, 4), (2, 2)), (8, 16)
TARGETS = Targets(
    torch.tensor([0, 0]),
    torch.tensor([1, 0]),
    torch.tensor([[0.5, 0.5, 0.5, 0.5], [0.2, 0.3, 0.3, 0.4]]),
    index_map=torch.tensor([1, 2, 0, 1]).repeat(1, 8, 2),
)


@pytest.mark.parametrize("kind", [DetectionLoss, SegmentationLoss])
def test_functional_gradients_are_those_of_autograd(kind):
    loss = kind(2, strides=STRIDES, reg_max=1)
    shapes: dict[str, tuple[int, ...]] = {"boxes": (1, 4, 20), "scores": (1, 2, 20)}
    if kind is SegmentationLoss:
        shapes |= {"coefficients": (1, 4, 20), "prototypes": (1, 4, 8, 8)}
    given = {name: torch.randn(shape) + (name == "boxes") for name, shape in shapes.items()}

    def total(maps: dict[str, Tensor]) -> Tensor:
        return loss(Predictions(**maps, grid_sizes=GRIDS), TARGETS).total  # type: ignore[arg-type]

    found = torch.func.grad(total)(given)
    leaves = {name: x.clone().requires_grad_() for name, x in given.items()}
    stacked = {name: torch.stack([x, x]) for name, x in given.items()}
    twice = torch.func.vmap(torch.func.grad(total))(stacked)
    expected = torch.autograd.grad(total(leaves), list(leaves.values()))
    for x, both, y in zip(found.values(), twice.values(), expected, strict=True):
        assert torch.equal(x, y)
        torch.testing.assert_close(both, torch.stack([y, y]))
        assert x.abs().sum() > 0


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")  # torch's own, in jvp
@pytest.mark.parametrize("field", ["boxes", "scores"])
def test_forward_mode_sees_no_derivative_of_the_assignment_either(field):
    loss = DetectionLoss(2, strides=STRIDES)
    given = Predictions(torch.randn(1, 64, 20), torch.randn(1, 2, 20), GRIDS)
    x = getattr(given, field)
    direction = torch.randn_like(x)

    def total(x: Tensor) -> Tensor:
        return loss(given._replace(**{field: x}), TARGETS._replace(index_map=None)).total

    slope: Tensor = torch.func.jvp(total, (x,), (direction,))[1].float()
    torch.testing.assert_close(slope, (torch.func.grad(total)(x) * direction).sum(), rtol=1e-4, atol=1e-5)
