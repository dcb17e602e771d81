"""The base of losses and of parts with weights: modules whose numbers keep their precision."""

from typing import Any

import torch
from torch import Tensor, nn


class ExactModule(nn.Module):
    """A module whose buffers move with the model but keep their dtype: `model.half()` must not round a weight."""

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """As any module's; what `torch.inference_mode` made, which no gradient may go through, becomes a plain copy."""
        if tensor is not None and tensor.is_inference():
            with torch.inference_mode(False):
                tensor = tensor.clone()
        super().register_buffer(name, tensor, persistent)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        exact = dict(self.named_buffers(recurse=False))
        super()._apply(fn, recurse)
        for name, buffer in exact.items():
            moved = getattr(self, name)
            if moved.dtype != buffer.dtype:
                setattr(self, name, buffer.to(moved.device))
        return self
