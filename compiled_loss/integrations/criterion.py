"""A model's criterion: reads its arguments, runs the loss, and returns results in the model's form.

Letters: B images, N target rows, A anchors, C classes, R distance bins, K keypoints, nm mask prototypes.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from compiled_loss.checks import require, whole_number
from compiled_loss.data.plan import TargetPlan
from compiled_loss.data.targets import Targets
from compiled_loss.data.values import check_whole
from compiled_loss.integrations.bridge import Compilation, call_compiled, plan_beside, plan_of
from compiled_loss.integrations.heads import Task
from compiled_loss.losses.end_to_end import EndToEndLoss
from compiled_loss.types import Predictions

BRANCHES = ("one2many", "one2one")
# Key of a batch that holds rows planned before they were moved to the device.
PLANNED = "planned_targets"


class Criterion:
    """A model's criterion: called with `(preds, batch)`, it returns the loss vector and the loss items.

    Not a module, so that it does not change the state dict of a model holding it. Made by `compiled_criterion`
    and by networks under `install`.
    """

    def __init__(
        self,
        task: Task,
        device: torch.device,
        compilation: Compilation | None,
        plan: TargetPlan | None = None,
        updates: int = 0,
    ) -> None:
        self.task = task
        with device:
            self.loss = task.loss.to(device)
        self.compilation = compilation
        self.plan = plan
        self.updates = updates
        self._compile()

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Copying or pickling a module loses its compiled form.
        self.__dict__.update(state)
        self._compile()

    def _compile(self) -> None:
        if self.compilation is not None:
            self.loss.compile(fullgraph=True, **self.compilation._asdict())

    def __call__(self, preds: Any, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of one batch.

        Args:
            preds: the output of the model's forward: in training a dict of `boxes` `[B, 4*R, A]`, `scores` `[B, C, A]`,
                `feats` (the feature maps `[B, _, h, w]` of each level), for pose `kpts` `[B, K*D, A]` and possibly
                `kpts_sigma` `[B, 2*K, A]`, for oriented boxes `angle` `[B, 1, A]`, for masks `mask_coefficient`
                `[B, nm, A]` and `proto` `[B, nm, H, W]`, alone or in a tuple with semantic logits `[B, C, h, w]`; for
                an end-to-end head a dict of two such dicts, `one2many` and `one2one`. In evaluation a tuple with this
                as its second entry.
            batch: `batch_idx` `[N]` or `[N, 1]`, `cls` `[N]` or `[N, 1]`, `bboxes` `[N, 4]` (cx, cy, w, h as fractions
                of the image; with an angle in radians `[N, 5]` for oriented boxes), rows in any order; for pose
                `keypoints` `[N, K, 2 or 3]`; for masks `masks`, index maps `[B, H, W]` or with `overlap_mask=False`
                `[N, H, W]`, and for semantic logits `sem_masks` `[B, H, W]`.

        Returns:
            The terms multiplied by gain and B, stacked in the model's order, and each term as an item, detached and
            not multiplied by B; for an end-to-end head, the items of its one-to-one branch.

        Raises:
            ValueError: if a part of the predictions or the batch is missing or has the wrong shape, or if values are
                checked and `Targets.validate` rejects them.
        """
        branches = self.predictions(preds)
        # A validation pass without gradients would need another graph, compiled for the model's copy too.
        compiled = self.compilation is not None and torch.is_grad_enabled()
        targets = batch.get(PLANNED)
        if targets is None:
            options = {"compiled": compiled, "plan": self._plan, "static": self._static}
            targets = plan_beside(branches[0], self.targets(batch), self.task.main, **options)
        elif compiled and not self._static:
            targets = targets.mark_dynamic()
        if compiled:
            # Sizes that are given twice are open twice, and the code that torch 2.13 generates then lacks one of them.
            branches[1:] = [x._replace(grid_sizes=()) for x in branches[1:]]
        given = (*branches, targets)
        eager: Callable[..., Any] = self.loss.forward
        out = call_compiled(self.loss, *given) if compiled else eager(*given)
        vector = torch.stack([out.terms[name] for name in self.task.names])
        reported = out.items if self.task.end_to_end else out.terms
        items = torch.stack([reported[name] for name in self.task.names]).detach() / branches[0].boxes.shape[0]
        return vector, {f"{name}_loss": item for name, item in zip(self.task.names, items, strict=True)}

    @property
    def updates(self) -> int:
        """Number of completed epochs, which sets the share of an end-to-end head's one-to-many branch."""
        return self._updates

    @updates.setter
    def updates(self, number: int) -> None:
        self._updates = whole_number("updates", number, 0)
        if isinstance(self.loss, EndToEndLoss):
            self.loss.set_progress(self._updates, self.task.epochs)

    def update(self) -> None:
        """Count an epoch, which lowers the share of an end-to-end head's one-to-many branch; call it between epochs."""
        self.updates += 1

    def predictions(self, preds: Any) -> list[Predictions]:
        """The maps of the head, or those of its one-to-many and one-to-one branches."""
        raw = preds[1] if isinstance(preds, tuple) else preds
        if not self.task.end_to_end:
            return [self._maps(raw)]
        got = list(raw) if isinstance(raw, Mapping) else type(raw).__name__
        require(isinstance(raw, Mapping) and set(BRANCHES) <= set(raw), "preds", "a dict with one2many, one2one", got)
        return [self._maps(raw[branch]) for branch in BRANCHES]

    def targets(self, batch: Mapping[str, Any]) -> Targets:
        """The rows of a batch dict, on their device; unlike `from_yolo`, it reads no values from a device."""
        keys = self.task.rows
        require(set(keys) <= set(batch), "batch", f"a dict with {', '.join(keys)}", list(batch))
        rows = {key: batch[key] for key in keys}
        boxes = rows["bboxes"].float()
        image, labels = (self._whole(rows[key], key).flatten().long() for key in ("batch_idx", "cls"))
        targets = Targets(image, labels, boxes)
        if "angles" in self.task.maps:
            require(boxes.shape[-1] == 5, "batch['bboxes']", ["N", 5], tuple(boxes.shape))
            targets = targets._replace(boxes=boxes[:, :4], angles=boxes[:, 4])
        if "keypoints" in keys:
            targets = targets._replace(keypoints=rows["keypoints"].float())
        if "masks" in keys:
            # Index maps and class maps may also come as floats.
            masks = rows["masks"]
            if self.task.index_maps:
                whole = self._whole(masks, "masks").int() if masks.is_floating_point() else masks
                targets = targets._replace(index_map=whole)
            else:
                targets = targets._replace(masks=masks)
            if batch.get("sem_masks") is not None:
                targets = targets._replace(class_map=self._whole(batch["sem_masks"], "sem_masks").long())
        return targets

    def _whole(self, x: Tensor, key: str) -> Tensor:
        if self.loss.check_values:
            check_whole(f"batch['{key}']", x)
        return x

    def planned(self, batch: Mapping[str, Any], images: Tensor) -> Targets:
        """The rows of a batch on the host, planned for images `[B, 3, H, W]` and moved to their device."""
        plan = plan_of(self.task.main, (images.shape[2], images.shape[3]), self._plan, power_of_two=self._static)
        return plan.apply(self.targets(batch), images.shape[0]).to(images.device, non_blocking=True)

    @property
    def _static(self) -> bool:
        return self.compilation is not None and self.compilation.dynamic is False

    @property
    def _plan(self) -> TargetPlan | None:
        """The given plan, in training only: validation has batches of its own, and runs eagerly."""
        return self.plan if torch.is_grad_enabled() else None

    def _maps(self, raw: Any) -> Predictions:
        # The spreads of keypoints are absent in evaluation.
        keys = (*(key for name, key in self.task.maps.items() if name != "keypoint_sigmas"), "feats")
        got = list(raw) if isinstance(raw, Mapping) else type(raw).__name__
        require(isinstance(raw, Mapping) and set(keys) <= set(raw), "preds", f"a dict with {', '.join(keys)}", got)
        maps: dict[str, Any] = {name: raw.get(key) for name, key in self.task.maps.items()}
        if isinstance(maps.get("prototypes"), tuple):
            maps["prototypes"], maps["semantic"] = maps["prototypes"]
        return Predictions(grid_sizes=tuple((x.shape[-2], x.shape[-1]) for x in raw["feats"]), **maps)
