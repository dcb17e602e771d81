"""A drop-in criterion for the models of the YOLOv8, YOLOv10, YOLO11 and YOLO26 families.

    model.criterion = compiled_criterion(model, compile=True)

The model is read by its attributes alone; nothing is imported from the package that built it.

Letters: B images, N target rows, A anchors, C classes, R distance bins, K keypoints, nm mask prototypes.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from compiled_loss.checks import require, true_or_false
from compiled_loss.data.plan import TargetPlan
from compiled_loss.data.rows import pad_rows
from compiled_loss.data.targets import Targets
from compiled_loss.data.values import check_whole
from compiled_loss.integrations.heads import Task, device_of, read_task
from compiled_loss.losses.end_to_end import EndToEndLoss
from compiled_loss.types import Predictions

BRANCHES = ("one2many", "one2one")


class Compilation(NamedTuple):
    """How a loss is compiled, as `torch.compile` takes it."""

    backend: str | Callable[..., Any] = "inductor"
    mode: str | None = None
    dynamic: bool | None = None


class Criterion:
    """A model's criterion: called with `(preds, batch)` it returns the loss vector and the loss items.

    Not a module, so that a model holding it keeps its state dict. Made by `compiled_criterion`.
    """

    def __init__(self, task: Task, device: torch.device, compilation: Compilation | None) -> None:
        self.task = task
        with device:
            self.loss = task.loss.to(device)
        self.compilation = compilation
        self.updates = 0
        self._compile()

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Copying or pickling a module drops its compiled form.
        self.__dict__.update(state)
        self._compile()

    def _compile(self) -> None:
        if self.compilation is not None:
            self.loss.compile(fullgraph=True, **self.compilation._asdict())

    def __call__(self, preds: Any, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of one batch.

        Args:
            preds: what the model's forward returns: in training a dict of `boxes` `[B, 4*R, A]`, `scores` `[B, C, A]`,
                `feats` (the feature maps `[B, _, h, w]` of each level), for pose `kpts` `[B, K*D, A]` and perhaps
                `kpts_sigma` `[B, 2*K, A]`, for oriented boxes `angle` `[B, 1, A]`, for masks `mask_coefficient`
                `[B, nm, A]` and `proto` `[B, nm, H, W]`, alone or in a tuple with semantic logits `[B, C, h, w]`; of
                an end-to-end head a dict of two such, `one2many` and `one2one`. In evaluation a tuple whose
                second entry is that.
            batch: `batch_idx` `[N]` or `[N, 1]`, `cls` `[N]` or `[N, 1]`, `bboxes` `[N, 4]` (cx, cy, w, h as fractions
                of the image; with an angle in radians `[N, 5]` for oriented boxes), rows in any order; for pose
                `keypoints` `[N, K, 2 or 3]`; for masks `masks`, index maps `[B, H, W]` or with `overlap_mask=False`
                `[N, H, W]`, and for semantic logits `sem_masks` `[B, H, W]`.

        Returns:
            The terms times gain times B, stacked in the model's order, and each one as an item: detached, not times B;
            of an end-to-end head the items of its one-to-one branch.

        Raises:
            ValueError: for predictions or a batch in which a part is missing or of the wrong shape, or for values that
                `Targets.validate` refuses, where they are looked at.
        """
        branches = self.predictions(preds)
        # A validation pass without gradients would be another graph, compiled for the model's copy too.
        compiled = self.compilation is not None and torch.is_grad_enabled()
        run: Callable[..., Any] = self.loss if compiled else self.loss.forward
        out = run(*branches, self._planned(self.targets(batch), branches[0], compiled))
        vector = torch.stack([out.terms[name] for name in self.task.names])
        reported = out.items if self.task.end_to_end else out.terms
        items = torch.stack([reported[name] for name in self.task.names]).detach() / branches[0].boxes.shape[0]
        return vector, {f"{name}_loss": item for name, item in zip(self.task.names, items, strict=True)}

    def update(self) -> None:
        """An epoch is over: the share of an end-to-end head's one-to-many branch falls. Call it between two epochs."""
        self.updates += 1
        if isinstance(self.loss, EndToEndLoss):
            self.loss.set_progress(self.updates, self.task.epochs)

    def predictions(self, preds: Any) -> list[Predictions]:
        """The maps of the head, or of its one-to-many and its one-to-one branch."""
        raw = preds[1] if isinstance(preds, tuple) else preds
        if not self.task.end_to_end:
            return [self._maps(raw)]
        got = list(raw) if isinstance(raw, Mapping) else type(raw).__name__
        require(isinstance(raw, Mapping) and set(BRANCHES) <= set(raw), "preds", "a dict with one2many, one2one", got)
        return [self._maps(raw[branch]) for branch in BRANCHES]

    def targets(self, batch: Mapping[str, Any]) -> Targets:
        """The rows of a batch dict, where they are; unlike `from_yolo` it reads none of a device."""
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
            # Index maps and class maps come as floats too.
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

    def _planned(self, targets: Targets, predictions: Predictions, compiled: bool) -> Targets:
        """The rows beside the predictions: planned first where they are on the host, and padded to be compiled."""
        device, static = predictions.boxes.device, self.compilation is not None and self.compilation.dynamic is False
        on_host = targets.batch_idx.device.type == "cpu"
        if on_host and (compiled or device.type != "cpu"):
            strides = self.task.main.strides
            height, width = (cells * strides[0] for cells in predictions.grid_sizes[0])
            main, region = self.task.main, self.task.main.region
            plan = TargetPlan(
                (height, width), strides, power_of_two=static, num_classes=main.num_classes, region=region
            )
            targets = plan.apply(targets, predictions.boxes.shape[0])
        elif compiled:
            targets = pad_rows(targets, power_of_two=static)
        targets = targets.to(device, non_blocking=True)
        return targets if static or not compiled else targets.mark_dynamic()

    def _maps(self, raw: Any) -> Predictions:
        # The spreads of keypoints are absent in evaluation.
        keys = (*(key for name, key in self.task.maps.items() if name != "keypoint_sigmas"), "feats")
        got = list(raw) if isinstance(raw, Mapping) else type(raw).__name__
        require(isinstance(raw, Mapping) and set(keys) <= set(raw), "preds", f"a dict with {', '.join(keys)}", got)
        maps: dict[str, Any] = {name: raw.get(key) for name, key in self.task.maps.items()}
        if isinstance(maps.get("prototypes"), tuple):
            maps["prototypes"], maps["semantic"] = maps["prototypes"]
        return Predictions(grid_sizes=tuple((x.shape[-2], x.shape[-1]) for x in raw["feats"]), **maps)


def compiled_criterion(
    model: Any,
    *,
    compile: bool = False,
    backend: str | Callable[..., Any] = "inductor",
    mode: str | None = None,
    dynamic: bool | None = None,
    check_values: bool = True,
) -> Criterion:
    """The criterion of a model, which returns what the model's own returns.

    `(preds, batch) -> (terms * B, items)`. The terms are, in this order: of detection box, cls, dfl; of pose box,
    pose, kobj, cls, dfl and with a normalising flow rle; of oriented boxes box, cls, dfl, angle; of masks box, seg,
    cls, dfl, sem. With one distance bin l1 stands for dfl. An end-to-end head is trained in both its branches.

    The head tells classes, distance bins, strides and keypoints (`nc`, `reg_max`, `stride`, `kpt_shape`), and its kind
    by `ne` (oriented boxes), `nm` (masks), `flow_model` (keypoints with a likelihood) and `one2one_cv2` (end-to-end).
    `model.args` tells the gains (`box`, `cls`, `dfl`, `pose`, `kobj`, `rle`, `angle`; 7.5, 0.5, 1.5, 12, 1, 1 and 1
    where they are missing), `overlap_mask` and `epochs`, and `model.class_weights`, where there is one, the weight of
    each class.

    Args:
        model: a model whose `model.model[-1]` is its head, on the device where it will train.
        compile: run the loss as one compiled graph, forward and backward, for every number of objects. A pass without
            gradients, such as a validation, runs eagerly. Where the rows are on the host they are checked and planned
            there (`TargetPlan`), before they go to the device; on a device, which must not be asked, they are only
            padded, and there is room for every anchor in every row.
        backend: as for `torch.compile`.
        mode: as for `torch.compile`.
        dynamic: as for `torch.compile`. False gives graphs for static shapes, as CUDA graphs want them: numbers of rows
            and pages are rounded up to powers of two, each of which compiles anew.
        check_values: look at the values of rows on the host, as the losses do. Rows that are planned are always looked
            at: a plan rests on them.

    Returns:
        A callable `criterion(preds, batch)`; see `Criterion.__call__`. Call its `update()` after each epoch.

    Raises:
        ValueError: for a model without such a head, numbers out of range, or options of a compilation without
            `compile=True`.

    Example:
        >>> from types import SimpleNamespace
        >>> import torch
        >>> head = SimpleNamespace(nc=2, reg_max=16, stride=torch.tensor([8.0, 16.0, 32.0]))
        >>> criterion = compiled_criterion(SimpleNamespace(model=[head], args=SimpleNamespace(box=7.5)))
        >>> feats = [torch.zeros(1, 1, s, s) for s in (8, 4, 2)]
        >>> preds = {"boxes": torch.zeros(1, 64, 84), "scores": torch.zeros(1, 2, 84), "feats": feats}
        >>> batch = {"batch_idx": torch.zeros(1), "cls": torch.ones(1, 1), "bboxes": torch.full((1, 4), 0.5)}
        >>> vector, items = criterion(preds, batch)
        >>> vector.shape, list(items)
        (torch.Size([3]), ['box_loss', 'cls_loss', 'dfl_loss'])
    """
    compilation = Compilation(backend, mode, dynamic)
    require(
        true_or_false("compile", compile) or compilation == Compilation(),
        "backend, mode, dynamic",
        "compile=True beside them",
        False,
    )
    require(dynamic is None or isinstance(dynamic, bool), "dynamic", "True, False or None", dynamic)
    task = read_task(model)
    task.loss.check_values = true_or_false("check_values", check_values)
    return Criterion(task, device_of(model.model[-1]), compilation if compile else None)
