"""The loss of end-to-end heads: one task, two branches.

Letters: B images, N rows, P positive slots.
"""

from typing import Any

import torch
from torch import Tensor

from compiled_loss.checks import check_keywords, check_same_device, finite_number, require, true_or_false
from compiled_loss.losses.detection import DetectionLoss
from compiled_loss.losses.exact import ExactModule
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
        ValueError: for a loss in place of its class, for `top_k` or `keep` among the options, or what the task's loss
            refuses.
        TypeError: for a keyword that there is not.

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
        is_class = isinstance(loss, type) and issubclass(loss, DetectionLoss)
        kind = loss if isinstance(loss, type) else type(loss)
        expected = f"a class, its arguments beside it, as in EndToEndLoss({kind.__name__}, num_classes)"
        if not issubclass(kind, DetectionLoss):
            expected = "a class of a loss, such as DetectionLoss"
        require(is_class, "loss", expected, kind.__name__ if kind is loss else f"an instance of {kind.__name__}")
        check_keywords(f"EndToEndLoss of {kind.__name__}", options, kind, type(self))
        fixed = sorted({"top_k", "keep"} & set(options))
        require(not fixed, ", ".join(fixed), "nothing, since the branches differ in it", "a value")
        of_one = {"top_k": 1} if plain_sum else {"top_k": 7, "keep": 1}
        self.many, self.one = loss(*args, top_k=10, **options), loss(*args, **of_one, **options)
        self.plain_sum = true_or_false("plain_sum", plain_sum)
        self.register_buffer("share", torch.tensor(_FIRST), persistent=False)

    def set_progress(self, epoch: float, epochs: float) -> None:
        """Set the share of the one-to-many branch; call it before each epoch, outside the compiled step.

        Args:
            epoch: epochs done, 0 before the first.
            epochs: epochs in all.

        Raises:
            ValueError: for a negative number, or one that is not finite.
        """
        epoch, epochs = finite_number("epoch", epoch), finite_number("epochs", epochs)
        self.share.fill_(_LAST + (_FIRST - _LAST) * max(0.0, 1 - epoch / max(epochs - 1, 1)))

    @property
    def check_values(self) -> bool:
        """Whether eager calls look at the values of the rows; set it for both branches."""
        return self.many.check_values

    @check_values.setter
    def check_values(self, wanted: bool) -> None:
        self.many.check_values = self.one.check_values = true_or_false("check_values", wanted)

    def forward(self, many: Predictions, one: Predictions, targets: Targets) -> EndToEndOutput:
        """Loss of a batch.

        Args:
            many: raw output of the one-to-many branch.
            one: raw output of the one-to-one branch.
            targets: the batch's rows; padding rows count nothing.

        Returns:
            `EndToEndOutput(total, terms, items, num_positives, overflow)`.

        Raises:
            ValueError: for a wrong rank, size, dtype or device, or what `Targets.validate` finds.
        """
        self.many._check(many, targets)
        self.one._check(one, targets)
        images, others = many.scores.shape[0], one.scores.shape[0]
        require(images == others, "one.scores", "as many images as many.scores", others)
        same = tuple(map(tuple, many.grid_sizes)) == tuple(map(tuple, one.grid_sizes))
        require(same, "one.grid_sizes", "those of many", one.grid_sizes)
        check_same_device(many=many.scores, one=one.scores, share=self.share)
        self.many._look_at_rows(many, targets)
        scene = self.many._scene(many, targets)
        first, second = self.many._loss(many, targets, scene), self.one._loss(one, targets, scene)
        shares = (1.0, 1.0) if self.plain_sum else (self.share, 1 - self.share)
        terms = {name: shares[0] * term + shares[1] * second.terms[name] for name, term in first.terms.items()}
        total = torch.stack(list(terms.values())).sum()
        items = terms if self.plain_sum else second.terms
        # The same rows are cut in both branches; planned mask tiles may suffice for one of them alone.
        overflow = torch.maximum(first.overflow, second.overflow)
        return EndToEndOutput(total, terms, items, second.num_positives, overflow)
