"""Models, predictions and batches as a criterion reads them, without the package that builds such models."""

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from tests.golden.cases import Case
from tests.reference.batches import KEYS, Batch, Raw, make_batch, make_predictions
from tests.reference.end_to_end import Pair, branches_of
from tests.reference.flow import LearntDensity


def stand_in(num_classes: int = 3, reg_max: int = 16, kpt_shape: Any = None, **attributes: Any) -> Any:
    head = SimpleNamespace(nc=num_classes, reg_max=reg_max, stride=torch.tensor([8.0, 16.0, 32.0]), **attributes)
    if kpt_shape is not None:
        head.kpt_shape = kpt_shape
    return SimpleNamespace(model=[nn.Identity(), head], args=SimpleNamespace(box=7.5, cls=0.5, dfl=1.5, pose=12.0))


def stand_in_of(case: Case) -> Any:
    """A model with the case's head."""
    raw = next(x for _, x in branches_of(case.raw))
    given: dict[str, Any] = {"kpt_shape": [case.num_keypoints, case.keypoint_dims]} if case.num_keypoints else {}
    if raw.angles is not None:
        given["ne"] = 1
    if raw.coefficients is not None:
        given |= {"nm": 4, "proto": SimpleNamespace(semseg=1) if case.mask_overlap else SimpleNamespace()}
    if raw.keypoint_sigmas is not None:
        given["flow_model"] = LearntDensity()
    if case.shares is not None:
        given["one2one_cv2"] = 1
    model = stand_in(case.num_classes, case.reg_max, **given)
    if case.class_weights is not None:
        model.class_weights = torch.tensor(case.class_weights).reshape(1, 1, -1)
    model.args.overlap_mask = case.batch.masks is None or not case.batch.masks.is_floating_point()
    model.args.epochs = 100
    return model


def arguments(batch: Batch, raw: Raw | Pair) -> tuple[dict[str, Any], dict[str, Tensor]]:
    made = {prefix[:-1]: maps_of(x) for prefix, x in branches_of(raw)}
    rows = {"batch_idx": batch.batch_idx.float(), "cls": batch.labels[:, None].float(), "bboxes": batch.boxes}
    given = {"keypoints": batch.keypoints, "masks": batch.masks, "sem_masks": batch.class_map}
    return made.get("", made), rows | {key: x for key, x in given.items() if x is not None}


def maps_of(raw: Raw) -> dict[str, Any]:
    preds: dict[str, Any] = {key: getattr(raw, name) for name, key in KEYS.items() if getattr(raw, name) is not None}
    if raw.prototypes is not None:
        preds["proto"] = raw.prototypes if raw.semantic is None else (raw.prototypes, raw.semantic)
    return preds | {"feats": [torch.zeros(raw.boxes.shape[0], 1, *size) for size in raw.grid_sizes]}


def example(
    seed: int = 1, counts: tuple[int, ...] = (4, 0, 3), size: tuple[int, int] = (64, 96), num_classes: int = 3
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    batch = make_batch(seed, counts=counts, size=size, num_classes=num_classes)
    return arguments(batch, make_predictions(seed, batch, num_classes=num_classes))
