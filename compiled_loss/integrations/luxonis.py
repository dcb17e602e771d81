"""A loss for luxonis-train: import this module to use `CompiledDetectionLoss` in its YAML.

    from luxonis_train import LuxonisModel
    import compiled_loss.integrations.luxonis   # registers it; on the command line: --source FILE with this line

    losses:
      - name: CompiledDetectionLoss
        params: {compile: true}

It replaces `PrecisionDFLDetectionLoss` on a `PrecisionBBoxHead`, with the same rules, arguments and sub-losses.
`register` imports the package, and runs when this module is imported if it is installed; `Criterion` does not need it.

Letters: B images, N rows, C classes, R distance bins.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from compiled_loss.assign.regions import Region
from compiled_loss.assign.task_aligned import TaskAligned
from compiled_loss.checks import check_shape, require, true_or_false
from compiled_loss.data.targets import Targets
from compiled_loss.data.values import check_whole
from compiled_loss.geometry.boxes import ciou, iou
from compiled_loss.integrations.bridge import Compilation, call_compiled, join_levels, plan_beside
from compiled_loss.losses.comparing import OneMinus
from compiled_loss.losses.detection import DetectionLoss

# luxonis-train's names for our terms.
TERMS = {"class": "cls", "iou": "box", "dfl": "dfl"}


@dataclass(frozen=True)
class GrowBelowFinest(Region):
    """The anchors strictly inside a box; sides shorter than the finest stride are enlarged to the second stride.

    The trainer's small-target rule. `InBox` enlarges every side below the second stride, as the YOLO reference does.

    Example:
        >>> GrowBelowFinest().reach(torch.tensor([[8.0, 8.0, 12.0, 20.0]]), [8, 16])
        tensor([[ 2.,  8., 18., 20.]])
    """

    def reach(self, boxes: Tensor, strides: Sequence[int], grid_sizes: Sequence[tuple[int, int]] = ()) -> Tensor:
        """The boxes, with small ones enlarged."""
        check_shape("boxes of a region inside upright boxes", boxes, ["N", 4])
        ordered = sorted(set(strides))
        centres, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
        halves = torch.where(sides < ordered[0], float(ordered[min(1, len(ordered) - 1)]), sides) / 2
        return torch.cat([centres - halves, centres + halves], 1)


@dataclass(frozen=True)
class AsTheyAre(Region):
    """The anchors strictly inside a box, however small.

    Example:
        >>> AsTheyAre().reach(torch.tensor([[8.0, 8.0, 12.0, 20.0]]), [8, 16])
        tensor([[ 8.,  8., 12., 20.]])
    """

    def reach(self, boxes: Tensor, strides: Sequence[int], grid_sizes: Sequence[tuple[int, int]] = ()) -> Tensor:
        """The boxes, unchanged."""
        check_shape("boxes of a region inside upright boxes", boxes, ["N", 4])
        return boxes


class Criterion(nn.Module):
    """The trainer's detection loss, computed from its head's maps and its target rows, without the trainer.

    Task-aligned by plain IoU, a CIoU box term, cross-entropies of bins and classes; averaged, not multiplied by B.

    Args:
        num_classes: C.
        strides: pixels per grid unit of each level, finest level first.
        reg_max: distance bins R per side, at least 2.
        tal_topk: number of anchors that a row selects.
        class_loss_weight: factor of `class`.
        bbox_loss_weight: factor of `iou`.
        dfl_loss_weight: factor of `dfl`.
        skip_stal: do not enlarge small boxes.
        compile: compile the loss as one graph; passes without gradients stay eager.
        backend: as for `torch.compile`.
        distributed: average the normaliser over the ranks, which the trainer's own loss does not do.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> criterion = Criterion(2, (8, 16), reg_max=16)
        >>> rows = torch.tensor([[0.0, 1.0, 0.25, 0.25, 0.5, 0.5]])
        >>> total, terms = criterion([torch.zeros(1, 66, 8, 8), torch.zeros(1, 66, 4, 4)], rows)
        >>> list(terms), round((7.5 * terms["iou"] + 0.5 * terms["class"] + 1.5 * terms["dfl"] - total).item(), 4)
        (['class', 'iou', 'dfl'], 0.0)
    """

    def __init__(
        self,
        num_classes: int,
        strides: Sequence[int] | Tensor,
        reg_max: int,
        *,
        tal_topk: int = 10,
        class_loss_weight: float = 0.5,
        bbox_loss_weight: float = 7.5,
        dfl_loss_weight: float = 1.5,
        skip_stal: bool = False,
        compile: bool = False,
        backend: str | Callable[..., Any] = "inductor",
        distributed: bool = False,
    ) -> None:
        super().__init__()
        require(reg_max != 1, "reg_max", "2 or more, since with one bin the trainer's loss ignores distances", reg_max)
        region = AsTheyAre() if true_or_false("skip_stal", skip_stal) else GrowBelowFinest()
        weights = {"class": class_loss_weight, "iou": bbox_loss_weight, "dfl": dfl_loss_weight}
        self.weights = {name: float(weight) for name, weight in weights.items()}
        self.loss = DetectionLoss(
            num_classes,
            strides,
            reg_max=reg_max,
            assigner=TaskAligned(top_k=tal_topk, region=region),
            overlap=iou,
            box_term=OneMinus(ciou),
            box_gain=1,
            cls_gain=1,
            dfl_gain=1,
            distributed=distributed,
        )
        self.compiled, self.backend = true_or_false("compile", compile), backend
        if self.compiled:
            Compilation(backend).checked(compile=True)
        self._compile()

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Copying or pickling a module loses its compiled form.
        super().__setstate__(state)
        self._compile()

    def _compile(self) -> None:
        if self.compiled:
            self.loss.compile(fullgraph=True, backend=self.backend)

    def forward(self, features: Sequence[Tensor], target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of a batch.

        Args:
            features: `[B, 4*R + C, h, w]` map of each level, finest first.
            target: `[N, 6]` rows (image, class, x, y, width, height), x and y of the top left corner, as fractions.

        Returns:
            The weighted sum of the terms, and each term, detached and without its weight.

        Raises:
            ValueError: for maps or rows of a wrong shape, or if `Targets.validate` finds a fault.
        """
        predictions = join_levels(features, self.loss.reg_max, self.loss.num_classes, "features")
        # A pass without gradients would need another graph.
        compiled = self.compiled and torch.is_grad_enabled()
        rows = plan_beside(predictions, self.targets(target), self.loss, compiled=compiled)
        out = call_compiled(self.loss, predictions, rows) if compiled else self.loss.forward(predictions, rows)
        found: dict[str, Tensor] = out.terms
        terms = {theirs: found[ours] / features[0].shape[0] for theirs, ours in TERMS.items()}
        total = torch.stack([self.weights[name] * term for name, term in terms.items()]).sum()
        return total, {name: term.detach() for name, term in terms.items()}

    def targets(self, target: Tensor) -> Targets:
        """The rows as `Targets`, with boxes given by their centres."""
        check_shape("target", target, ["N", 6])
        image, label, corner, size = target.split([1, 1, 2, 2], 1)
        for name, column in (("target[:, 0]", image), ("target[:, 1]", label)):
            check_whole(name, column)
        return Targets(image[:, 0].long(), label[:, 0].long(), torch.cat([corner + size / 2, size], 1).float())


def register() -> type:
    """Put `CompiledDetectionLoss` in the trainer's registry of losses.

    Returns:
        The class, the same for every call.

    Raises:
        ModuleNotFoundError: if luxonis-train is not installed.

    Example:
        >>> register()  # doctest: +SKIP
        <class 'compiled_loss.integrations.luxonis.CompiledDetectionLoss'>
    """
    if "CompiledDetectionLoss" in globals():
        return globals()["CompiledDetectionLoss"]
    # Optional: the rest of this module does not need it.
    from luxonis_train import BaseLoss, Tasks  # type: ignore[import-not-found]  # noqa: PLC0415
    from luxonis_train.nodes import PrecisionBBoxHead  # type: ignore[import-not-found]  # noqa: PLC0415

    class CompiledDetectionLoss(BaseLoss):
        """`Criterion` on a node of the trainer, with its parameters except those read from the node."""

        node: PrecisionBBoxHead
        supported_tasks = (Tasks.BOUNDINGBOX,)

        def __init__(self, final_loss_weight: float = 1.0, node: Any = None, **parameters: Any) -> None:
            super().__init__(final_loss_weight=final_loss_weight, node=node)
            self.criterion = Criterion(self.n_classes, self.node.stride, self.node.reg_max, **parameters)

        def forward(self, features: list[Tensor], target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            return self.criterion(features, target)

    CompiledDetectionLoss.__qualname__ = "CompiledDetectionLoss"
    globals()["CompiledDetectionLoss"] = CompiledDetectionLoss
    return CompiledDetectionLoss


if find_spec("luxonis_train") is not None:
    register()
