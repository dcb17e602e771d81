"""The released implementation as a black box: built from a configuration name, called, never read.

Needs `ultralytics==8.4.190` in the environment. It needs target rows sorted by image.
"""

import copy
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from ultralytics import YOLO  # pyright: ignore[reportMissingImports]
from ultralytics.nn import tasks  # pyright: ignore[reportMissingImports]

from tests.reference.batches import KEYS, Batch, Raw
from tests.reference.end_to_end import BRANCHES, Pair, branches_of
from tests.reference.rotated import counted, pixel_rboxes

GAINS = {"box": 7.5, "cls": 0.5, "dfl": 1.5, "pose": 12.0, "kobj": 1.0, "rle": 1.0, "angle": 1.0}
EPOCHS = 100


class Head(NamedTuple):
    """Which model to build, and how its head differs from the stock one."""

    config: str
    num_classes: int
    reg_max: int = 16
    kpt_shape: tuple[int, int] | None = None  # K, D
    class_weights: tuple[float, ...] | None = None
    stacked: bool = False  # masks row by row instead of index maps
    mask_scale: int = 4  # image size over mask size

    @property
    def end_to_end(self) -> bool:
        return "26" in self.config or "v10" in self.config

    @property
    def version26(self) -> bool:
        return "26" in self.config

    @property
    def mask_overlap(self) -> bool:
        """Whether the assigner of a mask head sees masks."""
        return self.version26 and "yoloe" not in self.config

    @property
    def oriented(self) -> bool:
        return "-obb" in self.config

    @property
    def masks(self) -> bool:
        return "-seg" in self.config


class Outcome(NamedTuple):
    """What a criterion says about one batch."""

    vector: Tensor  # loss terms times B
    items: dict[str, Tensor]  # the same, detached, not times B; of an end-to-end head those of its one-to-one branch
    gradients: dict[str, Tensor]  # of vector.sum()
    positives: set[tuple[int, int, int]]  # image, anchor, row; images of the one-to-one branch count on from B

    def terms(self, batch_size: int) -> dict[str, float]:
        """Items times B, by their short names."""
        return {name.removesuffix("_loss"): x.item() * batch_size for name, x in self.items.items()}

    def weighted(self) -> dict[str, float]:
        """The vector, by the items' short names."""
        return {name.removesuffix("_loss"): x.item() for name, x in zip(self.items, self.vector, strict=True)}


def build_model(head: Head) -> Any:
    """A model with random weights, the same every time."""
    torch.manual_seed(0)
    kinds = {"-pose": tasks.PoseModel, "-obb": tasks.OBBModel, "-world": tasks.WorldModel}
    seg = tasks.YOLOESegModel if "yoloe" in head.config else tasks.SegmentationModel
    kinds |= {"-seg": seg, "yoloe": tasks.YOLOEModel}
    kind = next((model for ending, model in kinds.items() if ending in head.config), tasks.DetectionModel)
    config = copy.deepcopy(kind(head.config, verbose=False).yaml)
    config |= {"nc": head.num_classes, "reg_max": head.reg_max}
    if head.kpt_shape is not None:
        config["kpt_shape"] = list(head.kpt_shape)
    model = kind(config, verbose=False)
    model.args = SimpleNamespace(**GAINS, overlap_mask=not head.stacked, epochs=EPOCHS)
    if head.class_weights is not None:
        model.class_weights = torch.tensor(head.class_weights)
    return model


def build_other(config: str) -> Any:
    """A stock model of any kind."""
    return YOLO(config).model


def flow_of(model: Any) -> Callable[[Tensor], Tensor] | None:
    """The log-density of the head's normalising flow in float64, where it has one."""
    flow = getattr(model.model[-1], "flow_model", None)
    return None if flow is None else copy.deepcopy(flow).double().log_prob


def preds_and_batch(batch: Batch, raw: Raw | Pair) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The arguments of a criterion; the predictions are fresh leaves that collect gradients."""
    made = {prefix: _preds(x) for prefix, x in branches_of(raw)}
    preds = made[""] if "" in made else {prefix[:-1]: x for prefix, x in made.items()}
    rows = {"batch_idx": batch.batch_idx.float(), "cls": batch.labels[:, None].float(), "bboxes": batch.boxes}
    if batch.keypoints is not None:
        rows["keypoints"] = batch.keypoints
    if batch.masks is not None:
        rows["masks"] = batch.masks.float()
    if batch.class_map is not None:
        rows["sem_masks"] = batch.class_map
    return preds, rows


def gradients(vector: Tensor, preds: dict[str, Any]) -> dict[str, Tensor]:
    """Of the sum of the terms with respect to each map, by its name in `Raw`."""
    branches = {f"{name}.": preds[name] for name in BRANCHES} if BRANCHES[0] in preds else {"": preds}
    leaves = {prefix + name: x for prefix, maps in branches.items() for name, x in _leaves(maps).items()}
    found = torch.autograd.grad(vector.sum(), list(leaves.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(leaves, found, strict=True))


class Oracle:
    """The model's own criterion, whose assigners' answers are overheard."""

    def __init__(self, model: Any, head: Head) -> None:
        self.head = head
        self.criterion = model.init_criterion()
        self.flow = flow_of(model)
        branches = [getattr(self.criterion, name) for name in BRANCHES] if head.end_to_end else [self.criterion]
        self.heard: list[tuple[Tensor, Tensor]] = []
        for branch in branches:
            branch.assigner.register_forward_hook(lambda _module, _in, out: self.heard.append((out[3], out[4])))

    @property
    def shares(self) -> tuple[float, float]:
        """Weights of the two branches now."""
        return (self.criterion.o2m, self.criterion.o2o)

    def __call__(self, batch: Batch, raw: Raw | Pair) -> Outcome:
        self.heard.clear()
        preds, rows = preds_and_batch(batch, raw)
        try:
            vector, items = self.criterion(preds, rows)
        except Exception as error:
            # Its message without its traceback, which would show lines of the source.
            raise RuntimeError(f"the oracle raised {type(error).__name__}: {error}") from None
        rows_of = [self._rows(batch, image) for image in range(batch.batch_size)]
        positives = {
            (image + branch * batch.batch_size, anchor, rows_of[image][int(place[image, anchor])])
            for branch, (foreground, place) in enumerate(self.heard)
            for image, anchor in foreground.nonzero().tolist()
        }
        return Outcome(vector.detach(), items, gradients(vector, preds), positives)

    def _rows(self, batch: Batch, image: int) -> list[int]:
        """The rows of an image in the order of the oracle's places: those of oriented boxes too small are left out."""
        mine = batch.batch_idx == image
        if self.head.oriented:
            mine = mine & torch.from_numpy(counted(pixel_rboxes(batch.boxes, *batch.size)))
        return mine.nonzero()[:, 0].tolist()


def _preds(raw: Raw) -> dict[str, Any]:
    maps = {name: getattr(raw, name) for name in KEYS}
    preds: dict[str, Any] = {KEYS[name]: x.clone().requires_grad_() for name, x in maps.items() if x is not None}
    preds["feats"] = [torch.zeros(len(raw.boxes), 1, *size) for size in raw.grid_sizes]
    if raw.prototypes is not None:
        preds["proto"] = raw.prototypes.clone().requires_grad_()
        if raw.semantic is not None:
            preds["proto"] = (preds["proto"], raw.semantic.clone().requires_grad_())
    return preds


def _leaves(preds: dict[str, Any]) -> dict[str, Tensor]:
    leaves = {name: preds[key] for name, key in KEYS.items() if key in preds}
    proto = preds.get("proto")
    if proto is not None:
        several = isinstance(proto, tuple)
        leaves |= dict(zip(("prototypes", "semantic"), proto if several else (proto,), strict=several))
    return leaves
