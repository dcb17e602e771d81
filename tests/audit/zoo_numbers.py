"""Small functions with one planted fault each on the way to a CUDA graph, to equal numbers or to an export."""

from typing import Any

import torch
from torch import Tensor

from tests.audit.zoo import Doubled, Losses, Zoo, vectors

FAULTY = Zoo()

# ---- operators that CUDA graphs refuse ----


@torch.library.custom_op("zoo::unsafe", mutates_args=(), tags=(torch.Tag.cudagraph_unsafe,))
def unsafe(x: Tensor) -> Tensor:
    return x + 1


@unsafe.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


@FAULTY.add(vectors(3, 3, learnt=False))
def calls_an_operator_that_asks_to_be_left_out(x: Tensor) -> Tensor:
    return unsafe(x).sin()  # fault: cudagraph


# ---- other numbers compiled than eager ----


@FAULTY.add()
def takes_another_path_when_compiled(x: Tensor) -> Tensor:  # fault: mismatch
    return x * 3 if torch.compiler.is_compiling() else x * 2


@FAULTY.add()
def hides_behind_a_low_precision(x: Tensor) -> tuple[Tensor, Tensor]:  # fault: mismatch
    return x * (1.01 if torch.compiler.is_compiling() else 1.0), x.half().sum()


class _OtherBackward(Doubled):
    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] * (3 if torch.compiler.is_compiling() else 2)


@FAULTY.add()
def has_other_gradients_when_compiled(x: Tensor) -> Tensor:  # fault: mismatch
    return _OtherBackward.apply(x)


@FAULTY.add()
def has_other_gradients_of_a_complex_output(x: Tensor) -> Tensor:  # fault: mismatch
    return torch.complex(x, _OtherBackward.apply(x))


@FAULTY.add()
def loses_its_gradient_when_compiled(x: Tensor) -> Tensor:  # fault: mismatch
    return x * 2 if not torch.compiler.is_compiling() else x.detach() * 2


@FAULTY.add(vectors(3, 3, 3, learnt=False))
def writes_to_its_input_when_compiled(x: Tensor) -> Tensor:  # fault: mismatch
    if torch.compiler.is_compiling():
        x.mul_(2)
    return torch.ones_like(x)


@FAULTY.add()
def hides_its_numbers_in_a_dataclass(x: Tensor) -> Losses:  # fault: mismatch
    y = x * (3 if torch.compiler.is_compiling() else 2)
    return Losses(y.sum(), {"y": y})


# ---- exports ----


@FAULTY.add(vectors(5, 3, 0, learnt=False), exportable=True, skip=["recompiles", "numbers", "cudagraphs"])
def guards_a_size_in_python(x: Tensor) -> Tensor:  # fault: export
    return x.sum() / max(x.shape[0], 1)


@FAULTY.add(
    vectors(5, 3, learnt=False), exportable=True, skip=["recompiles", "numbers", "cudagraphs", "breaks", "device"]
)
def branches_on_a_value_of_an_export(x: Tensor) -> Tensor:
    if x.sum() > 0:  # fault: export
        return x + 1
    return x - 1


@FAULTY.add(
    lambda: [(torch.randn(4), n) for n in (2, 3)], exportable=True, skip=["recompiles", "numbers", "cudagraphs"]
)
def bakes_in_an_argument(x: Tensor, times: int) -> Tensor:  # fault: export
    return x * times
