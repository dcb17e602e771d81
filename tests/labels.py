"""Sound labels in each format, to be changed one by one, and the errors that changes end in."""

import re

import pytest
import torch


def raises(*parts: str):
    return pytest.raises(ValueError, match=".*".join(re.escape(part) for part in parts))


def yolo_batch(**changes):
    batch = {
        "batch_idx": torch.tensor([0.0, 1.0, 1.0]),
        "cls": torch.tensor([[3.0], [0.0], [1.0]]),
        "bboxes": torch.full((3, 4), 0.5),
        "keypoints": torch.full((3, 17, 3), 0.5),
        "im_file": ["a.jpg", "b.jpg"],
    }
    return {key: value for key, value in (batch | changes).items() if value is not None}


def image(rows=2, **changes):
    target = {"boxes": torch.tensor([[8.0, 8.0, 24.0, 40.0]]).repeat(rows, 1), "labels": torch.arange(rows)}
    return {key: value for key, value in (target | changes).items() if value is not None}


def note(**changes):
    annotation = {"bbox": [8, 16, 32, 16], "category_id": 1, "iscrowd": 0, "keypoints": [16, 32, 2, 0, 0, 0]}
    return {key: value for key, value in (annotation | changes).items() if value is not None}
