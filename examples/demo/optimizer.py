"""AdamW and a moving average of the weights over one flat buffer: a whole optimizer step is one small graph.

Every parameter becomes a view of one vector. The update then is a handful of elementwise operations, which compile
in seconds and run as one loop, instead of one set of kernels per parameter shape.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class FlatAdamW:
    """Decoupled weight decay Adam (arXiv 1711.05101); matrices decay, biases and norms do not.

    Everything that changes from step to step is a tensor, the learning rate included: nothing recompiles.

    Args:
        model: its parameters are moved into one vector; move it to its device before.
        betas: decay of the two moments.
        weight_decay: per unit of learning rate.
        ema_decay: of the average of weights and batch statistics; its first steps average faster.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.02,
        ema_decay: float = 0.99,
    ):
        self.betas, self.weight_decay, self.ema_decay = betas, weight_decay, ema_decay
        self.parameters = list(model.parameters())
        self.statistics = [b for b in model.buffers() if b.is_floating_point()]
        self.weights = _flat(self.parameters)
        self.decays = _flat([torch.full_like(p, float(p.ndim > 1)) for p in self.parameters])
        start = 0
        for p in self.parameters:
            p.data = self.weights[start : start + p.numel()].view_as(p)
            start += p.numel()
        zeros = torch.zeros_like(self.weights)
        averaged = torch.cat([self.weights, _flat(self.statistics)])
        self.state = {"steps": zeros.new_zeros(()), "mean": zeros, "square": zeros.clone(), "average": averaged}

    @torch.no_grad()
    def step(self, learning_rate: Tensor) -> None:
        """Update the weights from their `.grad`, and the moving average from the weights."""
        steps, mean, square, average = self.state.values()
        gradient = _flat([p.grad if p.grad is not None else torch.zeros_like(p) for p in self.parameters])
        first, second = self.betas
        steps.add_(1)
        mean.lerp_(gradient, 1 - first)
        square.lerp_(gradient * gradient, 1 - second)
        scale = (square / (1 - second**steps)).sqrt() + 1e-8
        self.weights.mul_(1 - learning_rate * self.weight_decay * self.decays)
        self.weights.sub_(learning_rate * mean / (1 - first**steps) / scale)
        keep = torch.clamp((1 + steps) / (10 + steps), max=self.ema_decay)
        average.lerp_(torch.cat([self.weights, _flat(self.statistics)]), 1 - keep)

    def zero_grad(self) -> None:
        for p in self.parameters:
            p.grad = None

    def averaged_state(self, model: nn.Module) -> dict[str, Tensor]:
        """A state dict of `model` with the moving averages in place of weights and batch statistics."""
        names = [name for name, _ in model.named_parameters()]
        names += [name for name, b in model.named_buffers() if b.is_floating_point()]
        state = {name: x.clone() for name, x in model.state_dict().items()}
        start = 0
        for name in names:
            count = state[name].numel()
            state[name] = self.state["average"][start : start + count].view_as(state[name]).clone()
            start += count
        return state

    def load_state(self, state: dict[str, Tensor]) -> None:
        for name, x in self.state.items():
            x.copy_(state[name])


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([x.detach().flatten() for x in tensors])
