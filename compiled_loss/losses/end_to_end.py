"""The loss of end-to-end heads: one task, two branches.

Letters: B images, N rows, P positive slots.
"""

from typing import Any

import torch
from torch import Tensor

from compiled_loss.checks import check_same_device, require
from compiled_loss.losses.detection import DetectionLoss
from compiled_loss.losses.exact import ExactModule
from compiled_loss.losses.scene import to_rows
from compiled_loss.padded import PaddedTargets
from compiled_loss.targets import Targets
from compiled_loss.types import EndToEndOutput, Predictions

_FIRST, _LAST = 0.8, 0.1  # share of the one-to-many branch


class EndToEndLoss(ExactModule):
    """A one-to-many and a one-to-one branch under the same loss, as one graph.

    `o L_many + (1 - o) L_one`. In the one-to-many branch a row selects 10 anchors; in the one-to-one branch it selects
    7 and keeps the best, so that a model needs no suppression of doubles. The share `o` falls over the training,
    `o(u) = 0.1 + 0.7 max(0, 1 - u / max(E - 1, 1))` after u of E epochs. It is a tensor, changed in place by
    `set_progress`, so that a schedule compiles nothing anew. Anchors, targets in pixels and candidates are found once
    for both branches.

    Args:
        loss: class of the task's loss, such as `DetectionLoss`.
        args: its arguments.
        plain_sum: the rule of YOLOv10: the one-to-one branch selects one anchor, and the total is `L_many + L_one`.
        options: its keyword arguments, the same for both branches; `top_k` and `keep` are set here.

    Raises:
        ValueError: for `top_k` or `keep` among the options, or what the task's loss refuses.

    Source: YOLOv10, arXiv 2405.14458.

    Example:
        >>> criterion = EndToEndLoss(DetectionLoss, num_classes=2, strides=(8, 16), reg_max=1)
        >>> branch = Predictions(torch.ones(1, 4, 20), torch.zeros(1, 2, 20), ((4, 4), (2, 2)))
        >>> targets = Targets(torch.tensor([0]), torch.tensor([1]), torch.tensor([[0.5, 0.5, 0.5, 0.5]]))
        >>> criterion.set_progress(9, 10)
        >>> out = criterion(branch, branch, targets)
        >>> list(out.terms), out.num_positives, round(criterion.share.item(), 2)
        (['box', 'cls', 'l1'], tensor(1), 0.1)
    """

    share: Tensor

    def __init__(self, loss: type[DetectionLoss], *args: Any, plain_sum: bool = False, **options: Any) -> None:
        super().__init__()
        fixed = sorted({"top_k", "keep"} & set(options))
        require(not fixed, ", ".join(fixed), "nothing, since the branches differ in it", "a value")
        self.many = loss(*args, top_k=10, **options)
        self.one = loss(*args, top_k=1, **options) if plain_sum else loss(*args, top_k=7, keep=1, **options)
        self.plain_sum = plain_sum
        self.register_buffer("share", torch.tensor(_FIRST), persistent=False)

    def set_progress(self, epoch: float, epochs: float) -> None:
        """Set the share of the one-to-many branch; call it before each epoch, outside the compiled step.

        Args:
            epoch: epochs done, 0 before the first.
            epochs: epochs in all.

        Raises:
            ValueError: for a negative number, or one that is not finite.
        """
        fits = 0 <= epoch < float("inf") and 0 <= epochs < float("inf")
        require(fits, "epoch, epochs", "finite numbers of 0 or more", (epoch, epochs))
        self.share.fill_(_LAST + (_FIRST - _LAST) * max(0.0, 1 - epoch / max(epochs - 1, 1)))

    def forward(self, many: Predictions, one: Predictions, targets: Targets | PaddedTargets) -> EndToEndOutput:
        """Loss of a batch.

        Args:
            many: raw output of the one-to-many branch.
            one: raw output of the one-to-one branch.
            targets: the batch's objects, as flat rows or in slots of each image; padding counts nothing.

        Returns:
            `EndToEndOutput(total, terms, items, num_positives, overflow)`.

        Raises:
            ValueError: for a wrong rank, size, dtype or device.
        """
        rows, dropped = to_rows(many, targets)
        self.many._check(many, rows)
        self.one._check(one, rows)
        images, others = many.scores.shape[0], one.scores.shape[0]
        require(images == others, "one.scores", "as many images as many.scores", others)
        same = tuple(map(tuple, many.grid_sizes)) == tuple(map(tuple, one.grid_sizes))
        require(same, "one.grid_sizes", "those of many", one.grid_sizes)
        check_same_device(many=many.scores, one=one.scores, share=self.share)
        scene = self.many._scene(many, rows)
        first, second = self.many._loss(many, rows, scene, dropped), self.one._loss(one, rows, scene, dropped)
        shares = (1.0, 1.0) if self.plain_sum else (self.share, 1 - self.share)
        terms = {name: shares[0] * term + shares[1] * second.terms[name] for name, term in first.terms.items()}
        total = torch.stack(list(terms.values())).sum()
        items = terms if self.plain_sum else second.terms
        # The same rows are cut in both branches; planned mask tiles may suffice for one of them alone.
        overflow = torch.maximum(first.overflow, second.overflow)
        return EndToEndOutput(total, terms, items, second.num_positives, overflow)
