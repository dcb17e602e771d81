"""Small batches and the reference's answers, from the files stored in this folder.

`tests/golden/make_golden.py` recorded them: `ultralytics` 8.4.190 as a black box, in float32 on a CPU.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from compiled_loss.exporting.interface import Loss
from compiled_loss.losses.dense import DenseLoss
from compiled_loss.losses.detection import DetectionLoss
from compiled_loss.losses.end_to_end import EndToEndLoss
from compiled_loss.losses.oriented import OrientedLoss
from compiled_loss.losses.pose import PoseLoss
from compiled_loss.losses.residual_pose import ResidualPoseLoss
from compiled_loss.losses.segmentation import SegmentationLoss
from compiled_loss.terms.classification import BinaryCrossEntropy

FOLDER = Path(__file__).parent
FAMILIES = ("detect", "pose", "oriented", "segment", "end_to_end", "residual_pose")
_BRANCHES = {"": "pred_", "one2many.": "many_", "one2one.": "one_"}
_MAPS = ("boxes", "scores", "keypoints", "angles", "keypoint_sigmas", "coefficients", "prototypes", "semantic")


class Case(NamedTuple):
    """One batch.

    Args:
        name: `family/batch`.
        loss: the loss that the batch is for.
        image_size: (height, width) in pixels.
        inputs: predictions and targets by the names of the exported graphs; `masks` instead of `index_map` if there is
            one mask per row.
        reference: the reference's answers: `loss_box`, ... times B, `grad_pred_boxes`, ..., and `positives`.
        ties: whether the reference's answer depends on its order among equal scores, and so is one of several.
    """

    name: str
    loss: Loss
    image_size: tuple[int, int]
    inputs: dict[str, Tensor]
    reference: dict[str, Tensor]
    ties: bool


def cases() -> Iterator[Case]:
    """Every stored batch.

    Raises:
        ImportError: without numpy.
    """
    import numpy as np  # noqa: PLC0415  (an optional dependency)

    for family in FAMILIES:
        with np.load(FOLDER / f"{family}.npz") as stored:
            arrays = {name: stored[name] for name in stored if "/" in name}
        for name in dict.fromkeys(key.split("/")[0] for key in arrays):
            own = {key.removeprefix(f"{name}/"): x for key, x in arrays.items() if key.startswith(f"{name}/")}
            plain = {key: x.tolist() for key, x in own.items() if x.dtype.kind in "USb" or x.ndim == 0}
            tensors = {key: _tensor(x) for key, x in own.items() if key not in plain}
            yield _case(f"{family}/{name}", plain, tensors)


def flow(errors: Tensor) -> Tensor:
    """`[n]` log-density that stands for the normalising flow of residual pose; `README.md` has the formula."""
    x, y = (errors @ errors.new_tensor([[1.0, 0.2], [-0.1, 0.8]])).unbind(-1)
    near = -(x.square() + y.square()) / 2
    far = -((x - 0.5).square() + (y + 0.25).square()) / 18
    return torch.logaddexp(near, far) - 2


def _tensor(x: Any) -> Tensor:
    """Integers as int64; other numbers, stored in half precision where that is exact, as float32."""
    return torch.from_numpy(x.astype("float32" if x.dtype.kind == "f" else "int64"))


def _case(name: str, plain: dict[str, Any], a: dict[str, Tensor]) -> Case:
    prefixes = [prefix for prefix in _BRANCHES if f"{prefix}boxes" in a]
    maps = {(prefix, x): a[prefix + x] for prefix in prefixes for x in _MAPS if prefix + x in a}
    inputs = {_BRANCHES[prefix] + x: value for (prefix, x), value in maps.items()}
    boxes = a["target_boxes"]
    inputs |= {"batch_idx": a["batch_idx"], "cls": a["labels"], "boxes": boxes[:, :4].contiguous()}
    if boxes.shape[1] == 5:
        inputs["angles"] = boxes[:, 4].contiguous()
    if "target_keypoints" in a:
        points = a["target_keypoints"]
        seen = points.new_ones(*points.shape[:2], 3 - points.shape[2])  # points without flags are all labelled
        inputs["keypoints"] = torch.cat([points, seen], 2)
    if "masks" in a:
        inputs["masks" if a["masks"].is_floating_point() else "index_map"] = a["masks"]
    if any(x == "semantic" for _, x in maps):
        inputs["class_map"] = a["class_map"]
    reference = {"positives": a["positives"]}
    reference |= {f"loss_{x.removesuffix('_loss')}": v for x, v in zip(plain["names"], a["vector"], strict=True)}
    reference |= {
        f"grad_{_BRANCHES[prefix]}{x}": a[f"gradient_{prefix}{x}"] for prefix, x in maps if f"gradient_{prefix}{x}" in a
    }
    loss = _loss({x for _, x in maps}, maps[prefixes[0], "scores"].shape[1], plain, a)
    height, width = a["size"].tolist()
    return Case(name, loss, (height, width), inputs, reference, bool(plain["ties"]))


def _loss(maps: set[str], classes: int, plain: dict[str, Any], a: dict[str, Tensor]) -> Loss:
    options: dict[str, Any] = {"num_classes": classes, "reg_max": plain["reg_max"]}
    if "class_weights" in a:
        options["classification"] = BinaryCrossEntropy(a["class_weights"].tolist())
    kind: type[DenseLoss] = DetectionLoss
    if "angles" in maps:
        kind = OrientedLoss
    elif "coefficients" in maps:
        kind, options["mask_overlap"] = SegmentationLoss, plain["mask_overlap"]
    elif "keypoints" in maps:
        kind = PoseLoss
        options["num_keypoints"], options["keypoint_dims"] = a["kpt_shape"].tolist()
        if "keypoint_sigmas" in maps:
            kind, options["flow"] = ResidualPoseLoss, flow
    loss = kind(**options)
    if "shares" not in a:
        return loss
    both = EndToEndLoss(loss)
    both.share.fill_(a["shares"][0])
    return both
