"""Which numbers were computed from low precision: their errors may be rounding, errors of the others may not."""

from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from compiled_loss.audit.restoring import restored
from compiled_loss.audit.stages.compare import tolerance_of
from compiled_loss.audit.stages.subject import Subject
from compiled_loss.audit.state import call


class _Precision(TorchDispatchMode):
    """Follows every operator: a result is as coarse as the coarsest of its inputs.

    The coarseness is stored per block of memory, which views and in-place writes share.
    """

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[int, float] = {}

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """True: compiled code inside the function runs unchanged."""
        return True

    def tolerance(self, x: Tensor) -> float:
        """The tolerance of a tensor."""
        if x.layout is not torch.strided:
            return tolerance_of(x.dtype)
        return max(self.known.get(x.untyped_storage()._cdata, 0.0), tolerance_of(x.dtype))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        coarsest = max(map(self.tolerance, _tensors((args, kwargs))), default=0.0)
        result = func(*args, **kwargs)
        if func is torch.ops.aten.lift_fresh.default:  # a constant, perhaps in memory that another tensor had before
            coarsest = 0.0
        for x in _tensors(result):
            if x.layout is torch.strided:
                self.known[x.untyped_storage()._cdata] = max(coarsest, tolerance_of(x.dtype))
        return result


def _tensors(tree: Any) -> list[Tensor]:
    return [x for x in pytree.tree_leaves(tree) if isinstance(x, Tensor)]


def tolerances_of(subject: Subject, lowest: float) -> list[dict[str, float]]:
    """For each batch, the tolerance of every output and gradient by name, from an eager run.

    If that run cannot be followed, as with `torch.cond`, all get the tolerance of the lowest precision inside.
    """
    found = []
    with restored(subject.state):
        for batch, expected in zip(subject.batches, subject.expected, strict=True):
            try:
                with _Precision() as precision:
                    outcome = call(subject.function, batch, subject.state, backward=subject.backward)
                    numbers = outcome.forward() | outcome.backward()
                    found.append({name: precision.tolerance(x) for name, x in numbers.items()})
            except Exception:
                found.append(dict.fromkeys(expected.forward() | expected.backward(), lowest))
    return found
