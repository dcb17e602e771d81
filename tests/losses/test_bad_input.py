"""Bad input is refused by a ValueError that names the argument, what was expected and what came."""

from typing import Any, cast

import pytest
import torch

from compiled_loss import BinaryCrossEntropy, DetectionLoss, PoseLoss, Predictions, Targets, TaskAligned

GRIDS = ((4, 4), (2, 2))
SOURCES = "; see sources.from_torchvision or sources.from_yolo"
WEIGHTS = torch.ones(3)


def loss_of(kind: str, **changes: Any) -> None:
    """A loss of a sound batch, with some fields of predictions or targets changed."""
    pose = kind == "pose"
    predictions: dict[str, Any] = {
        "boxes": torch.zeros(2, 64, 20),
        "scores": torch.zeros(2, 3, 20),
        "grid_sizes": GRIDS,
    }
    targets: dict[str, Any] = {
        "batch_idx": torch.zeros(4).long(),
        "labels": torch.zeros(4).long(),
        "boxes": torch.rand(4, 4),
    }
    if pose:
        predictions["keypoints"], targets["keypoints"] = torch.zeros(2, 15, 20), torch.rand(4, 5, 3)
    for name, value in changes.items():
        group, field = name.split("_", 1)
        {"p": predictions, "t": targets}[group][field] = value
    criterion = PoseLoss(3, 5, strides=(8, 16)) if pose else DetectionLoss(3, strides=(8, 16))
    arguments = Predictions(**predictions), Targets(**targets)
    criterion.assign(*arguments)
    criterion(*arguments)


@pytest.mark.parametrize("kind", ["detection", "pose"])
def test_a_sound_batch_passes(kind):
    loss_of(kind)


DETECTION = [
    ({"p_boxes": torch.zeros(64, 20)}, r"predictions.boxes: expected shape \[B, 64, A\], got \(64, 20\)"),
    (
        {"p_boxes": torch.zeros(2, 67, 20)},
        r"predictions.boxes: expected shape \[B, 64, A\], got \(2, 67, 20\); boxes have 64 = 4 \* reg_max channels "
        r"\(reg_max=16\), scores 3 = num_classes",
    ),
    (
        {"p_scores": torch.zeros(2, 80, 20)},
        r"predictions.scores: expected shape \[2, 3, 20\], got \(2, 80, 20\); .*scores 3 = num_classes",
    ),
    ({"p_scores": torch.zeros(3, 3, 20)}, r"predictions.scores: expected shape \[2, 3, 20\], got \(3, 3, 20\)"),
    ({"p_scores": torch.zeros(2, 20, 3)}, r"predictions.scores: expected shape \[2, 3, 20\], got \(2, 20, 3\)"),
    ({"p_boxes": torch.zeros(2, 64, 20).int()}, "predictions.boxes: expected a floating-point dtype, got torch.int32"),
    ({"p_scores": torch.zeros(2, 3, 20).bool()}, "predictions.scores: expected a floating-point dtype, got torch.bool"),
    ({"p_grid_sizes": None}, r"predictions.grid_sizes: expected \(height, width\) of each level, got None"),
    ({"p_grid_sizes": ((4.0, 4.0), (2, 2))}, r"predictions.grid_sizes: expected whole numbers of cells, got \(\(4.0"),
    ({"p_grid_sizes": (16, 4)}, r"predictions.grid_sizes: expected \(height, width\) of each level, got \(16, 4\)"),
    (
        {"p_grid_sizes": ((4, 4),)},
        r"grid_sizes: expected 2 levels, one for each of strides=\(8, 16\), got 1: \(\(4, 4\),\)",
    ),
    (
        {"p_grid_sizes": ((4, 4), (4, 4))},
        r"predictions.grid_sizes: expected as many cells .* anchors, 20, got 32: \(\(4, 4\), \(4, 4\)\)",
    ),
    (
        {"t_batch_idx": torch.zeros(4)},
        "targets.batch_idx: expected an integer dtype, int32 or int64, got torch.float32",
    ),
    ({"t_batch_idx": torch.zeros(4, 1).long()}, r"targets.batch_idx: expected shape \[N\], got \(4, 1\)"),
    ({"t_labels": torch.zeros(4)}, "targets.labels: expected an integer dtype, int32 or int64, got torch.float32"),
    ({"t_labels": torch.zeros(4, 1).long()}, r"targets.labels: expected shape \[4\], got \(4, 1\)"),
    ({"t_labels": torch.zeros(3).long()}, r"targets.labels: expected shape \[4\], got \(3,\)"),
    ({"t_boxes": torch.zeros(4, 5)}, r"targets.boxes: expected shape \[4, 4\], got \(4, 5\)"),
    ({"t_boxes": torch.zeros(4, 4).int()}, "targets.boxes: expected a floating-point dtype, got torch.int32"),
    ({"t_boxes": torch.zeros(4, 4, device="meta")}, "targets.boxes: expected device cpu, like .*, got meta"),
    ({"p_scores": torch.zeros(2, 3, 20, device="meta")}, "scores: expected device cpu, like boxes, got meta"),
    ({"t_batch_idx": [0, 0, 0, 0]}, r"targets.batch_idx: expected shape \[N\], got list"),
]
POSE = [
    ({"p_keypoints": None}, "predictions.keypoints: expected a tensor, got None"),
    ({"t_keypoints": None}, "targets.keypoints: expected a tensor, got None"),
    (
        {"p_keypoints": torch.zeros(2, 51, 20)},
        r"keypoints: expected shape \[2, 15, 20\], got \(2, 51, 20\); 15 = num_keypoints \* keypoint_dims, 5 \* 3",
    ),
    ({"t_keypoints": torch.rand(4, 17, 3)}, r"targets.keypoints: expected shape \[N, 5, 2 or 3\], got \(4, 17, 3\)"),
    ({"t_keypoints": torch.rand(3, 5, 3)}, r"targets.keypoints: expected shape \[4, K >= 1, 2 or 3\], got \(3, 5, 3\)"),
    ({"t_keypoints": torch.rand(4, 15)}, r"targets.keypoints: expected shape \[4, K >= 1, 2 or 3\], got \(4, 15\)"),
    ({"t_keypoints": torch.rand(4, 5, 4)}, r"targets.keypoints: expected shape \[4, K >= 1, 2 or 3\], got \(4, 5, 4\)"),
    ({"t_keypoints": torch.ones(4, 5, 3).int()}, "targets.keypoints: expected a floating-point dtype, got torch.int32"),
    ({"t_keypoints": torch.rand(4, 5, 3, device="meta")}, "targets.keypoints: expected device cpu, like .*, got meta"),
]


@pytest.mark.parametrize(("changes", "message"), DETECTION)
@pytest.mark.parametrize("kind", ["detection", "pose"])
def test_a_wrong_batch_is_refused_by_every_loss(kind, changes, message):
    with pytest.raises(ValueError, match=message):
        loss_of(kind, **changes)


@pytest.mark.parametrize(("changes", "message"), POSE)
def test_wrong_keypoints_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        loss_of("pose", **changes)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"predictions": None}, "predictions: expected Predictions, got NoneType"),
        ({"targets": {}}, rf"^targets: expected Targets or PaddedTargets, got dict{SOURCES}$"),
        ({"targets": [{}]}, rf"^targets: expected Targets or PaddedTargets, got list{SOURCES}$"),
        ({"targets": Targets}, "^targets: expected Targets or PaddedTargets, got the class Targets$"),
    ],
)
def test_arguments_of_another_type_are_named(changed, message):
    predictions = Predictions(torch.zeros(1, 64, 20), torch.zeros(1, 3, 20), GRIDS)
    targets = Targets(torch.zeros(0).long(), torch.zeros(0).long(), torch.zeros(0, 4))
    arguments: dict[str, Any] = {"predictions": predictions, "targets": targets}
    with pytest.raises(ValueError, match=message):
        DetectionLoss(3, strides=(8, 16))(**(arguments | changed))


@pytest.mark.parametrize(
    ("criterion", "buffer"),
    [
        (DetectionLoss(3, strides=(8, 16), classification=BinaryCrossEntropy(WEIGHTS)), "class_weights"),
        (PoseLoss(3, 5, strides=(8, 16)), "sigmas"),
    ],
)
def test_a_criterion_left_on_another_device_is_named(criterion, buffer):
    maps = torch.zeros(1, 64, 20), torch.zeros(1, 3, 20), GRIDS, torch.zeros(1, 15, 20)
    rows = torch.zeros(2).long(), torch.zeros(2).long(), torch.rand(2, 4), torch.rand(2, 5, 3)
    with pytest.raises(ValueError, match=f"{buffer}: expected device cpu, like .*, got meta"):
        criterion.to("meta")(Predictions(*maps), Targets(*rows))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DetectionLoss(0), "num_classes: expected an integer of at least 1, got 0"),
        (lambda: DetectionLoss(num_classes=cast(Any, 2.0)), "num_classes: expected an integer of at least 1, got 2.0"),
        (lambda: DetectionLoss(2, reg_max=0), "reg_max: expected an integer of at least 1, got 0"),
        (lambda: TaskAligned(top_k=-1), "top_k: expected an integer of at least 1, got -1"),
        (lambda: TaskAligned(keep=0), "keep: expected an integer of at least 1, got 0"),
        (lambda: DetectionLoss(2, strides=()), r"strides: expected .*positive.*, got \(\)"),
        (lambda: DetectionLoss(2, strides=cast(Any, 8)), "strides: expected .*positive.*, got 8"),
        (
            lambda: DetectionLoss(2, strides=cast(Any, (8, float("inf")))),
            r"strides: expected .*whole.*, got \(8, inf\)",
        ),
        (lambda: DetectionLoss(2, strides=(8, 0)), r"strides: expected .*positive.*, got \(8, 0\)"),
        (
            lambda: DetectionLoss(2, classification=BinaryCrossEntropy(WEIGHTS)),
            r"class_weights: expected shape \[2\], got \(3,\)",
        ),
        (lambda: PoseLoss(1, 0), "num_keypoints: expected an integer of at least 1, got 0"),
        (lambda: PoseLoss(1, 5, keypoint_dims=4), "keypoint_dims: expected 2 or 3, got 4"),
        (lambda: PoseLoss(1, 5, sigmas=WEIGHTS), r"sigmas: expected shape \[5\], got \(3,\)"),
    ],
)
def test_wrong_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
