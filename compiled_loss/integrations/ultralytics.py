"""A drop-in criterion for detection and pose models of the YOLOv8 and YOLO11 families.

    model.criterion = compiled_criterion(model, compile=True)

The model is read by its attributes alone; nothing is imported from the package that built it.

Letters: B images, N target rows, A anchors, C classes, R distance bins, K keypoints.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from compiled_loss.checks import require
from compiled_loss.losses.detection import DetectionLoss
from compiled_loss.losses.pose import PoseLoss
from compiled_loss.rows import pad_rows
from compiled_loss.targets import Targets
from compiled_loss.types import Predictions

# Attributes that only heads of other kinds have, and what such a head needs beyond a detection or pose loss.
_UNSUPPORTED = {
    "one2one_cv2": "the pair of losses of an end-to-end head",
    "ne": "an oriented-box loss",
    "nm": "an instance-mask loss",
    "flow_model": "a keypoint likelihood with a normalising flow",
}
_GAINS = {"box": 7.5, "cls": 0.5, "dfl": 1.5, "pose": 12.0, "kobj": 1.0}


class Criterion:
    """A model's criterion: called with `(preds, batch)` it returns the loss vector and the loss items.

    Not a module, so that a model holding it keeps its state dict. Made by `compiled_criterion`.
    """

    def __init__(self, loss: DetectionLoss | PoseLoss, names: tuple[str, ...], compile: bool) -> None:
        self.loss = loss
        self.names = names
        self.compile = compile
        if compile:
            self.loss.compile(fullgraph=True)

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Copying or pickling a module drops its compiled form.
        self.__dict__.update(state)
        if self.compile:
            self.loss.compile(fullgraph=True)

    def __call__(self, preds: Any, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of one batch.

        Args:
            preds: what the model's forward returns: in training a dict of `boxes` `[B, 4*R, A]`, `scores` `[B, C, A]`,
                `feats` (the feature maps `[B, _, h, w]` of each level) and for pose `kpts` `[B, K*D, A]`; in
                evaluation a tuple whose second entry is that dict.
            batch: `batch_idx` `[N]` or `[N, 1]`, `cls` `[N]` or `[N, 1]`, `bboxes` `[N, 4]` (cx, cy, w, h as
                fractions of the image) and for pose `keypoints` `[N, K, 2 or 3]`, rows in any order.

        Returns:
            The terms times gain times B, stacked in the model's order, and each one as an item: detached, not times B.

        Raises:
            ValueError: for predictions or a batch in which a part is missing or of the wrong shape.
        """
        predictions = _predictions(preds, "pose" in self.names)
        targets = self.targets(batch, predictions.boxes.device)
        if self.compile:
            targets = pad_rows(targets).mark_dynamic()
        terms = self.loss(predictions, targets).terms
        vector = torch.stack([terms[name] for name in self.names])
        items = vector.detach() / predictions.boxes.shape[0]
        return vector, {f"{name}_loss": item for name, item in zip(self.names, items, strict=True)}

    def targets(self, batch: Mapping[str, Tensor], device: torch.device) -> Targets:
        """The rows of a batch dict on `device`; unlike `from_yolo` it reads no value, so nothing waits."""
        keys = ("batch_idx", "cls", "bboxes", *(("keypoints",) if "pose" in self.names else ()))
        require(set(keys) <= set(batch), "batch", f"a dict with {', '.join(keys)}", list(batch))
        rows = {key: batch[key].to(device) for key in keys}
        return Targets(
            rows["batch_idx"].flatten().long(),
            rows["cls"].flatten().long(),
            rows["bboxes"].float(),
            rows["keypoints"].float() if "keypoints" in rows else None,
        )


def compiled_criterion(model: Any, *, compile: bool = False) -> Criterion:
    """The criterion of a detection or pose model, which returns what the model's own returns.

    `(preds, batch) -> ([box, cls, dfl] * B, items)`; for pose (box, pose, kobj, cls, dfl); with one distance bin l1
    stands for dfl. The head tells classes, distance bins, strides and keypoints (`nc`, `reg_max`, `stride`,
    `kpt_shape`), `model.args` the gains (`box`, `cls`, `dfl`, `pose`, `kobj`; 7.5, 0.5, 1.5, 12 and 1 where they are
    missing), and `model.class_weights`, where there is one, the weight of each class.

    Args:
        model: a model whose `model.model[-1]` is a detection or pose head with one set of outputs.
        compile: run the loss as one compiled graph, forward and backward. Rows are padded to multiples of 16, so that
            batches with other numbers of objects need no new graph.

    Returns:
        A callable `criterion(preds, batch)`; see `Criterion.__call__`.

    Raises:
        ValueError: for a model without such a head, and for end-to-end, oriented-box and mask heads.

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
    head = _head(model)
    given = getattr(model, "args", None) or {}
    given = given if isinstance(given, Mapping) else vars(given)
    gains = {f"{name}_gain": float(given.get(name, default)) for name, default in _GAINS.items()}
    keypoint_gains = {name: gains.pop(name) for name in ("pose_gain", "kobj_gain")}
    weights = getattr(model, "class_weights", None)
    options: dict[str, Any] = {
        "num_classes": int(head.nc),
        "strides": tuple(int(s) for s in head.stride),
        "reg_max": int(head.reg_max),
        "class_weights": None if weights is None else torch.as_tensor(weights).flatten(),
        **gains,
    }
    last = "dfl" if head.reg_max > 1 else "l1"
    shape = getattr(head, "kpt_shape", None)
    if shape is None:
        loss, names = DetectionLoss(**options), ("box", "cls", last)
    else:
        loss = PoseLoss(num_keypoints=int(shape[0]), keypoint_dims=int(shape[1]), **keypoint_gains, **options)
        names = ("box", "pose", "kobj", "cls", last)
    return Criterion(loss.to(head.stride.device), names, compile)


def _head(model: Any) -> Any:
    layers = getattr(model, "model", None)
    try:
        head = layers[-1]  # type: ignore[index]
    except (TypeError, IndexError):
        raise ValueError(
            f"model: expected one whose model.model[-1] is its head, got {type(model).__name__}; "
            "of a wrapper with .train() and .predict() give the network inside, wrapper.model"
        ) from None
    kind = type(head).__name__
    for attribute, missing in _UNSUPPORTED.items():
        if getattr(head, attribute, None) is not None:
            raise ValueError(f"model: expected a detection or pose head, got {kind}, which needs {missing}")
    lacking = [name for name in ("nc", "reg_max", "stride") if not hasattr(head, name)]
    require(not lacking, "model", "a detection or pose head with nc, reg_max and stride", f"{kind} without {lacking}")
    require(bool((head.stride > 0).all()), "model", "a head whose strides are set", f"stride {head.stride.tolist()}")
    return head


def _predictions(preds: Any, pose: bool) -> Predictions:
    raw = preds[1] if isinstance(preds, tuple) else preds
    keys = ("boxes", "scores", "feats", "kpts")[: 4 if pose else 3]
    got = list(raw) if isinstance(raw, Mapping) else type(raw).__name__
    require(isinstance(raw, Mapping) and set(keys) <= set(raw), "preds", f"a dict with {', '.join(keys)}", got)
    grid_sizes = tuple((x.shape[-2], x.shape[-1]) for x in raw["feats"])
    return Predictions(raw["boxes"], raw["scores"], grid_sizes, raw["kpts"] if pose else None)
