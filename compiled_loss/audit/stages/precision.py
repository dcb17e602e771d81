"""Which numbers rest on a low precision: an error of theirs in it is rounding, an error of the others is not."""

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
    """Follows every operator: a result is as coarse as the coarsest of what it is made from.

    It is kept by memory, which views and writes in place share.
    """

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[int, float] = {}

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """Compiled code inside the function runs as it is."""
        return True

    def tolerance(self, x: Tensor) -> float:
        """The tolerance that a number deserves."""
        if x.layout is not torch.strided:
            return tolerance_of(x.dtype)
        return max(self.known.get(x.untyped_storage()._cdata, 0.0), tolerance_of(x.dtype))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        coarsest = max(map(self.tolerance, _tensors((args, kwargs))), default=0.0)
        result = func(*args, **kwargs)
        if func is torch.ops.aten.lift_fresh.default:  # a constant, maybe in memory that was another's before
            coarsest = 0.0
        for x in _tensors(result):
            if x.layout is torch.strided:
                self.known[x.untyped_storage()._cdata] = max(coarsest, tolerance_of(x.dtype))
        return result


def _tensors(tree: Any) -> list[Tensor]:
    return [x for x in pytree.tree_leaves(tree) if isinstance(x, Tensor)]


def tolerances_of(subject: Subject, lowest: float) -> list[dict[str, float]]:
    """For each batch the tolerance of every output and gradient by name, from an eager run.

    Where that run cannot be followed, as through `torch.cond`, all get that of the lowest precision inside.
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
