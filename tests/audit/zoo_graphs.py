"""Small functions with one planted graph break or recompile each, marked where it is."""

import functools
import json
import logging
from typing import Any

import torch
from torch import Tensor, nn

from tests.audit.zoo import Doubled, Zoo, vectors

FAULTY = Zoo()

# ---- graph breaks ----


@FAULTY.add()
def break_on_the_first_line(x: Tensor) -> Tensor:
    torch._dynamo.graph_break()  # fault: graph-break
    return x + 1


@FAULTY.add()
def break_in_a_loop(x: Tensor) -> Tensor:
    for _ in range(3):
        x = x.sin()
        torch._dynamo.graph_break()  # fault: graph-break
    return x


def _prints(x: Tensor) -> Tensor:
    y = x * 2
    print("shape", tuple(x.shape))  # fault: graph-break
    return y + 1


@FAULTY.add()
def break_in_a_nested_call(x: Tensor) -> Tensor:
    return _prints(x.cos()) * 3


@FAULTY.add()
def break_behind_a_try(x: Tensor) -> Tensor:
    try:
        x = x.sin()
        torch._dynamo.graph_break()  # fault: graph-break
    except ValueError:
        x = x.cos()
    return x + 1


@FAULTY.add()
def two_breaks(x: Tensor) -> Tensor:
    print("first")  # fault: graph-break
    x = x.sin()
    torch._dynamo.graph_break()  # fault: graph-break
    return x.cos()


@FAULTY.add()
def break_by_the_standard_library(x: Tensor) -> Tensor:
    text = json.dumps({"rows": len(x)})  # fault: graph-break
    return x * len(text)


@FAULTY.add()
def break_by_a_logger(x: Tensor) -> Tensor:
    logging.getLogger(__name__).debug("sum %s", x.sum())  # fault: graph-break
    return x * 2


class _PrintsBackward(Doubled):
    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        print("backward")  # fault: graph-break
        return gradients[0] * 2


@FAULTY.add()
def break_in_the_backward_of_a_custom_function(x: Tensor) -> Tensor:
    return _PrintsBackward.apply(x.sin())


def _noisy_hook(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    print(type(module).__name__)  # fault: graph-break
    return output


@FAULTY.add()
class BreakInAHook(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.layer.register_forward_hook(_noisy_hook)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


@FAULTY.add()
def break_called_by_a_library(x: Tensor) -> Tensor:
    def step(total: Tensor, y: Tensor) -> Tensor:
        torch._dynamo.graph_break()  # fault: graph-break
        return total + y

    return functools.reduce(step, [x, x.sin(), x.cos()])


@FAULTY.add()
def break_by_a_context_manager(x: Tensor) -> Tensor:
    with open(__file__) as file:  # fault: graph-break
        return x * len(file.name)


# ---- recompiles ----


@FAULTY.add(lambda: [(torch.randn(3), scale) for scale in (0.5, 0.25, 0.125, 0.1)])
def recompile_for_a_mode(x: Tensor, scale: float) -> Tensor:
    return x * 2 if scale < 0.2 else x + 1  # fault: recompile


@FAULTY.add(lambda: [[torch.randn(3) for _ in range(n)] for n in (2, 3, 4, 5)])
def recompile_for_the_length_of_a_list(parts: list[Tensor]) -> Tensor:
    return torch.stack(parts).sum(0)  # fault: recompile


@FAULTY.add(lambda: [torch.randn(3, dtype=t) for t in (torch.float32, torch.float32, torch.float64)])
def recompile_for_a_dtype(x: Tensor) -> Tensor:  # fault: recompile
    return x.sin() + 1


@FAULTY.add(vectors(7, 5, 9, 1))
def recompile_for_one_row(x: Tensor) -> Tensor:
    return x.sin().sum()  # fault: recompile


@FAULTY.add(vectors(7, 5, 9, 40))
def recompile_for_a_branch_on_a_size(x: Tensor) -> Tensor:
    if x.shape[0] > 20:  # fault: recompile
        return x.sin().sum()
    return x.cos().sum()


@FAULTY.add(vectors(7, 5, 9, 40))
def recompile_for_a_branch_after_other_uses_of_a_size(x: Tensor) -> Tensor:
    y = x.sin()
    if y.shape[0] > 20:  # fault: recompile
        y = y.cos()
    return y.sum()


def _sum_of_rows(x: Tensor) -> Tensor:
    y = x * 2
    return torch.stack(y.split(1)).sum()  # fault: recompile


@FAULTY.add(vectors(7, 5, 9))
def recompile_for_a_size_that_a_helper_fixes(x: Tensor) -> Tensor:
    return _sum_of_rows(x.sin())


@FAULTY.add(lambda: [{"x": torch.randn(n, 3)} for n in (7, 5, 9)])
def recompile_for_a_loop_over_rows(batch: dict[str, Tensor]) -> Tensor:
    y = batch["x"].sin()
    total = y.sum() * 0
    for row in y:  # fault: recompile
        total = total + row.max()
    return total


@FAULTY.add(lambda: [torch.randn(3, requires_grad=learnt) for learnt in (False, False, True)])
def recompile_for_gradients(x: Tensor) -> Tensor:  # fault: recompile
    return x.sin()
