"""Ordinary code that is one graph: nothing may be found in it."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compiled_loss import DetectionLoss, Predictions, Targets, fill
from compiled_loss.data.plan import pad_rows
from tests.audit.zoo import Zoo, mean_of_rows, vectors

CLEAN = Zoo()
_INDEX = torch.tensor([2, 0, 1])


@CLEAN.add()
def gathers(x: Tensor) -> Tensor:
    return x.gather(0, _INDEX) + x[_INDEX]


@CLEAN.add()
def scatters(x: Tensor) -> Tensor:
    return torch.zeros_like(x).scatter_add(0, _INDEX, x.sin())


@CLEAN.add()
def chooses_with_where(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 0.1 * x).sum()


@CLEAN.add(lambda: [torch.tensor([0, 2, 1])] * 2)
def counts_in_one_hot(labels: Tensor) -> Tensor:
    return F.one_hot(labels, 4).sum(0)


@CLEAN.add()
def takes_a_static_top_k(x: Tensor) -> Tensor:
    values, places = x.topk(2)
    return (values * places).sum()


@CLEAN.add(vectors(7, 5, 9, 12))
def serves_every_size(x: Tensor) -> Tensor:
    return mean_of_rows(x.sin()) + torch.arange(x.shape[0], device=x.device).sum()


@CLEAN.add(vectors(7, 5, 9, 12, learnt=False), exportable=True)
def exports_with_any_size(x: Tensor) -> Tensor:
    return x.sum() / torch.ones_like(x).sum().clamp(min=1)


@CLEAN.add(lambda: [torch.randn(2, 4, 8).requires_grad_() for _ in range(2)])
class TransformerBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norms = nn.ModuleList(nn.LayerNorm(8) for _ in range(2))
        self.mlp = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norms[0](x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.norms[1](x))


@CLEAN.add(lambda: [torch.randn(2, 3, 8, 8) for _ in range(2)])
class ConvolutionWithBatchNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.SiLU(), nn.MaxPool2d(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).mean()


@CLEAN.add()
class Dropout(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.5, training=True)


@CLEAN.add(lambda: [(torch.randn(4, 3, requires_grad=True), torch.tensor([0, 2, 1, 0]))] * 2)
def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels, label_smoothing=0.1)


@CLEAN.add(lambda: [{"a": torch.randn(3), "b": [torch.randn(3)]} for _ in range(2)])
def takes_a_dict(batch: dict[str, Any]) -> dict[str, Tensor]:
    return {"sum": batch["a"] + batch["b"][0]}


class Pair(NamedTuple):
    left: Tensor
    right: Tensor


@CLEAN.add(lambda: [Pair(torch.randn(3), torch.randn(3)) for _ in range(2)])
def takes_a_named_tuple(pair: Pair) -> Pair:
    return Pair(pair.right, pair.left.sin())


_WEIGHT = nn.Parameter(torch.ones(3))
_OPTIMIZER = torch.optim.SGD([_WEIGHT], lr=0.1, momentum=0.9)
_WEIGHT.grad = torch.ones(3)


@CLEAN.add(lambda: [torch.randn(3) for _ in range(3)], backward=False)
def steps_an_optimizer(gradient: Tensor) -> Tensor:
    _WEIGHT.grad = gradient
    _OPTIMIZER.step()
    return _WEIGHT.detach().clone()


@CLEAN.add(lambda: [torch.randn(3, 3, requires_grad=True) for _ in range(2)])
def under_autocast(x: Tensor) -> Tensor:
    with torch.autocast(x.device.type, dtype=torch.bfloat16):
        y = x @ x
    return y.float().sum()


@CLEAN.add()
def rounds_a_complex_number_otherwise(x: Tensor) -> Tensor:
    return torch.complex(x * (1 + 1e-6 if torch.compiler.is_compiling() else 1), x.sin())


@CLEAN.add()
def rounds_a_low_precision_otherwise(x: Tensor) -> Tensor:
    return (x.bfloat16() * 2).float().sum() * (1 + 1e-2 if torch.compiler.is_compiling() else 1)


class _Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return 2 * ctx.saved_tensors[0] * gradients[0]


@CLEAN.add()
def has_a_backward_of_its_own(x: Tensor) -> Tensor:
    return _Square.apply(x.sin())


@CLEAN.add(lambda: [(torch.randn(6, 4, requires_grad=True), torch.tensor([1, 0, 1, 2, -1, 0]))] * 2)
def fills_slots(values: Tensor, batch_idx: Tensor) -> Tensor:
    return fill(values, batch_idx, 3, 2)[0]


def _scenes() -> list[tuple[Predictions, Targets]]:
    scenes = []
    for n in (17, 0, 1, 40):
        maps = torch.randn(2, 64, 20, requires_grad=True), torch.randn(2, 2, 20, requires_grad=True)
        rows = Targets(torch.arange(n) % 2, torch.arange(n) % 2, 0.2 + 0.5 * torch.rand(n, 4))
        scenes.append((Predictions(*maps, ((4, 4), (2, 2))), pad_rows(rows).mark_dynamic()))
    return scenes


@CLEAN.add(_scenes, warmup=1)
class TheDetectionLoss(DetectionLoss):
    def __init__(self) -> None:
        super().__init__(2, (8, 16))


@CLEAN.add(lambda: [torch.randn(4, 6, 8, requires_grad=True) for _ in range(3)])
class AnEncoderInTraining(nn.TransformerEncoderLayer):
    def __init__(self) -> None:
        super().__init__(8, 2, 16, dropout=0.2, batch_first=True)


@CLEAN.add()
class KeepsAnAverage:
    """Python state that a call replaces."""

    def __init__(self) -> None:
        self.average: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        self.average = x.detach() if self.average is None else 0.9 * self.average + 0.1 * x.detach()
        return x * 2


@CLEAN.add()
def meets_numbers_of_the_host(x: Tensor) -> Tensor:
    half, zero = torch.tensor(0.5), torch.tensor(0.0)
    y = x * half + torch.lerp(x, x * 2, half) + zero.clamp(max=1)
    y = y.masked_fill(x > 1, zero) + torch.pow(2, x) + torch.where(x > 0, x, 0.0)
    y = torch.logical_and(y > 0, torch.tensor(True)) * torch.addcmul(x, x, half) + torch.maximum(x, zero)
    return y + torch.multinomial(x.detach().exp(), 2).sum()


@CLEAN.add(lambda: [torch.randn(3, 4) for _ in range(2)])
def writes_numbers_into_rows(x: Tensor) -> Tensor:
    y = x * 2
    y[1] = 1.0
    y[torch.tensor(1), :2] = 0.0
    return y


@CLEAN.add()
def copies_without_waiting(x: Tensor) -> Tensor:
    return x * torch.ones(3).to(x.device, non_blocking=True)


@CLEAN.add()
def writes_numbers(x: Tensor) -> Tensor:
    y = x * 2
    y[:1] = 0.0
    y[1:] += 1
    y[1:] = torch.tensor(2.0)
    y.fill_(torch.tensor(3.0))
    return y * x


@CLEAN.add(lambda: [torch.randn(3, 3, requires_grad=True) for _ in range(2)])
def asks_for_autocast(x: Tensor) -> Tensor:
    return x.float() * 2 if torch.is_autocast_enabled(x.device.type) else x * 2


_MODE = "cpu"


@CLEAN.add()
def compares_a_text_that_is_no_device(x: Tensor) -> Tensor:
    return x * {"cpu": 2.0, "gpu": 3.0}[_MODE]


def _on_a_device_by_default(x: Tensor, device: str = "cpu") -> Tensor:
    return x + torch.arange(3, device=device)


@CLEAN.add()
def takes_its_device_from_a_default(x: Tensor) -> Tensor:
    return _on_a_device_by_default(x)


_DEVICE = "cpu"


@CLEAN.add()
def takes_its_device_from_a_global(x: Tensor) -> Tensor:
    return x + torch.arange(3, device=_DEVICE)


def _net_of_a_default(x: Tensor, net: nn.Module = nn.Linear(3, 3)) -> Tensor:  # noqa: B008
    return net(x)


@CLEAN.add()
def uses_a_module_of_an_inner_function(x: Tensor) -> Tensor:
    def inner(y: Tensor) -> Tensor:
        return _net_of_a_default(y)

    return inner(x)
