"""The loss of end-to-end heads: one task, two branches.

Letters: B images, N rows, P positive slots.
"""

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor

from compiled_loss.assign.parts import Assigner, check_assigner
from compiled_loss.assign.scheduled import region_or
from compiled_loss.assign.task_aligned import TaskAligned
from compiled_loss.checks import check_same_device, finite_number, kind_of, require, true_or_false
from compiled_loss.data.padded import PaddedTargets
from compiled_loss.data.plan import TargetPlan
from compiled_loss.data.targets import Targets
from compiled_loss.exact import ExactModule
from compiled_loss.losses.dense import DenseLoss
from compiled_loss.types import Decoded, Detections, EndToEndOutput, Predictions

_FIRST, _LAST = 0.8, 0.1  # share of the one-to-many branch


class EndToEndLoss(ExactModule):
    """A one-to-many and a one-to-one branch trained with the same loss, as one graph.

    `o L_many + (1 - o) L_one`. In the one-to-many branch each row selects anchors as the loss's own assigner does, 10
    by default. In the one-to-one branch it selects 7 and keeps the best, so that the model needs no non-maximum
    suppression. The share `o` decreases during training, `o(u) = 0.1 + 0.7 max(0, 1 - u / max(E - 1, 1))` after u of E
    epochs. It is a buffer that `set_progress` changes in place, so the schedule triggers no recompilation and the state
    dict includes it. Anchors, targets in pixels and candidates are computed once for both branches.

    Args:
        loss: the task's loss, such as `DetectionLoss(80)`.
        one_to_one: assigner of the one-to-one branch, with the same candidates as the loss's. None takes the loss's own
            assigner, which must be `TaskAligned`, with `top_k=7, keep=1`, or with `top_k=1` for a plain sum.
        plain_sum: use YOLOv10's rule: the total is `L_many + L_one`.

    Raises:
        ValueError: if `loss` is not a loss, if `one_to_one` is needed because the loss's assigner is not `TaskAligned`,
            or if its candidates differ from the loss's.

    Source: YOLOv10, arXiv 2405.14458.

    Example:
        >>> from compiled_loss import DetectionLoss
        >>> criterion = EndToEndLoss(DetectionLoss(num_classes=2, strides=(8, 16), reg_max=1))
        >>> branch = Predictions(torch.ones(1, 4, 20), torch.zeros(1, 2, 20), ((4, 4), (2, 2)))
        >>> targets = Targets(torch.tensor([0]), torch.tensor([1]), torch.tensor([[0.5, 0.5, 0.5, 0.5]]))
        >>> criterion.set_progress(9, 10)
        >>> out = criterion(branch, branch, targets)
        >>> list(out.terms), out.num_positives, round(criterion.share.item(), 2)
        (['box', 'cls', 'l1'], tensor(1), 0.1)
    """

    share: Tensor

    def __init__(self, loss: DenseLoss, *, one_to_one: Assigner | None = None, plain_sum: bool = False) -> None:
        super().__init__()
        require(isinstance(loss, DenseLoss), "loss", "a loss, such as DetectionLoss(num_classes)", kind_of(loss))
        if one_to_one is None:
            many, expected = loss.assigner, "an assigner, since the loss's own is not TaskAligned"
            require(isinstance(many, TaskAligned), "one_to_one", expected, None)
            assert isinstance(many, TaskAligned)
            one_to_one = replace(many, top_k=1) if plain_sum else replace(many, top_k=7, keep=1)
        region = region_or(check_assigner("one_to_one", one_to_one).region, loss.boxes.region)
        expected = f"the same candidates as the loss's assigner, {loss.region}"
        require(region == loss.region, "one_to_one", expected, region)
        self.loss = loss
        self.one_to_one = one_to_one
        self.plain_sum = true_or_false("plain_sum", plain_sum)
        self.register_buffer("share", torch.tensor(_FIRST))

    @property
    def check_values(self) -> bool:
        """Whether eager calls check the values of the rows."""
        return self.loss.check_values

    @check_values.setter
    def check_values(self, wanted: bool) -> None:
        self.loss.check_values = true_or_false("check_values", wanted)

    @property
    def many(self) -> DenseLoss:
        """The loss of the one-to-many branch on its own."""
        return self.loss

    @property
    def one(self) -> DenseLoss:
        """The loss of the one-to-one branch on its own."""
        return self.loss.with_assigner(self.one_to_one)

    def set_progress(self, epoch: float, epochs: float) -> None:
        """Set the share of the one-to-many branch; call it before each epoch, outside the compiled step.

        Args:
            epoch: number of epochs completed, 0 before the first.
            epochs: total number of epochs.

        Raises:
            ValueError: if a number is negative or not finite.
        """
        epoch, epochs = finite_number("epoch", epoch), finite_number("epochs", epochs)
        self.share.fill_(_LAST + (_FIRST - _LAST) * max(0.0, 1 - epoch / max(epochs - 1, 1)))

    def plan(
        self,
        image_size: tuple[int, int],
        dataset: Iterable[Targets] | None = None,
        *,
        batch_size: int | None = None,
        margin: float = 0.0,
        power_of_two: bool = False,
    ) -> TargetPlan:
        """A plan for the batches that both branches read, as made by `DenseLoss.plan`.

        Args:
            image_size: (height, width) in pixels of the images that the head sees.
            dataset: the Targets of each image, to give all batches one shape; None plans each batch individually.
            batch_size: images in a batch; with a `dataset`.
            margin: extra room for augmentation; with a `dataset`.
            power_of_two: round rows, pages and tiles up to powers of two.

        Returns:
            `TargetPlan`, whose `apply` prepares the rows of a batch.

        Raises:
            ValueError: as `DenseLoss.plan` does.
        """
        return self.loss.plan(image_size, dataset, batch_size=batch_size, margin=margin, power_of_two=power_of_two)

    def decode(self, one: Predictions) -> Decoded:
        """Decode the one-to-one branch's predictions at every anchor.

        Args:
            one: raw output of the one-to-one branch.

        Returns:
            `Decoded(boxes, scores, keypoints, coefficients)`.

        Raises:
            ValueError: for a wrong rank, size, dtype or device.
        """
        return self.loss.decode(one)

    def detect(self, one: Predictions, k: int = 300, *, mask_size: tuple[int, int] | None = None) -> Detections:
        """The k best detections of every image from the one-to-one branch, which detects each object once.

        Args:
            one: raw output of the one-to-one branch.
            k: detections per image; if there are fewer, the rest is padding with score 0.
            mask_size: (H, W) of the masks, which cover the whole image; None means the prototypes' size.

        Returns:
            `Detections(boxes, scores, labels, anchors, keypoints, masks)`.

        Raises:
            ValueError: for a wrong rank, size, dtype or device, a k below 1, or a bad mask size.
        """
        return self.loss.detect(one, k, mask_size=mask_size)

    def forward(self, many: Predictions, one: Predictions, targets: Targets | PaddedTargets) -> EndToEndOutput:
        """Loss of a batch.

        Args:
            many: raw output of the one-to-many branch.
            one: raw output of the one-to-one branch; without `grid_sizes`, `()`, they are those of `many`.
            targets: the batch's objects, as flat rows or in per-image slots; padding does not contribute.

        Returns:
            `EndToEndOutput(total, terms, items, num_positives, overflow, per_image)`.

        Raises:
            ValueError: for a wrong rank, size, dtype or device, or if `Targets.validate` finds a fault.
        """
        loss = self.loss
        if not one.grid_sizes:
            one = one._replace(grid_sizes=many.grid_sizes)
        scene = loss.place(many, targets)
        loss.check(one, scene.targets)
        loss.look_at_rows(many, scene.targets)
        images, others = many.scores.shape[0], one.scores.shape[0]
        require(images == others, "one.scores", "the number of images in many.scores", others)
        same = tuple(map(tuple, many.grid_sizes)) == tuple(map(tuple, one.grid_sizes))
        require(same, "one.grid_sizes", "those of many", one.grid_sizes)
        check_same_device(many=many.scores, one=one.scores, share=self.share)
        first, second = loss.evaluate(many, scene, loss.assigner), loss.evaluate(one, scene, self.one_to_one)
        shares = (1.0, 1.0) if self.plain_sum else (self.share, 1 - self.share)
        together = [
            {name: shares[0] * x + shares[1] * others[name] for name, x in of_one.items()}
            for of_one, others in ((first.terms, second.terms), (first.per_image or {}, second.per_image or {}))
        ]
        terms, images = together
        total = torch.stack(list(terms.values())).sum()
        items = terms if self.plain_sum else second.terms
        # The same rows are cut short in both branches, but planned mask tiles may be enough for only one of them.
        overflow = torch.maximum(first.overflow, second.overflow)
        return EndToEndOutput(total, terms, items, second.num_positives, overflow, images or None)


def main_loss(loss: DenseLoss | EndToEndLoss) -> DenseLoss:
    """The task's loss; for an end-to-end loss, the loss of its branches."""
    return loss.loss if isinstance(loss, EndToEndLoss) else loss
