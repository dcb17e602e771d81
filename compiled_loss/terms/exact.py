"""The base of losses and of parts with weights: modules whose numbers keep their precision."""

from typing import Any

from torch import nn


class ExactModule(nn.Module):
    """A module whose buffers move with the model but keep their dtype: `model.half()` must not round a weight."""

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        exact = dict(self.named_buffers(recurse=False))
        super()._apply(fn, recurse)
        for name, buffer in exact.items():
            moved = getattr(self, name)
            if moved.dtype != buffer.dtype:
                setattr(self, name, buffer.to(moved.device))
        return self
