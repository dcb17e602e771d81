"""Rows of a class that there is not: files give what the batch gives without them, and count them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from compiled_loss import DetectionLoss, SegmentationLoss
from compiled_loss.exporting import Setting, export_assignment, export_loss, load
from compiled_loss.exporting.graphs import LossGraph

SIZE, ANCHORS = (64, 64), 84
BAD = {1: 3, 4: -1, 6: 2**31 - 1}  # row: class


def batch() -> dict[str, Tensor]:
    torch.manual_seed(0)
    boxes = torch.cat([0.2 + 0.6 * torch.rand(9, 2), 0.1 + 0.3 * torch.rand(9, 2)], 1)
    image = torch.tensor([1, 0, 0, 1, 1, 0, 0, 1, -1])
    labels = torch.tensor([0, 1, 2, 1, 0, 2, 1, 2, 7])  # that of the padding is nobody's concern
    return {"batch_idx": image, "cls": labels, "boxes": boxes}


def with_unknown(rows: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The rows with bad classes, and those without the bad rows."""
    labels, image = rows["cls"].clone(), rows["batch_idx"].clone()
    for row, label in BAD.items():
        labels[row], image[row] = label, -1
    return {**rows, "cls": labels}, {**rows, "batch_idx": image}


def maps(*branches: str) -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {
        f"{b}_{name}": torch.randn(2, channels, ANCHORS)
        for b in branches
        for name, channels in (("boxes", 64), ("scores", 3))
    }


def with_and_without(export: Callable[..., Any], path: Path) -> list[dict[str, Any]]:
    """What an exported file answers to the batch with unknown classes, and to the one without these rows."""
    export(DetectionLoss(3), path, Setting(SIZE))
    file = load(path)
    return [file.run({**maps("pred"), **rows}) for rows in with_unknown(batch())]


def test_the_assignment_is_that_without_them(tmp_path):
    got, wanted = with_and_without(export_assignment, tmp_path / "assignment.onnx")
    assert wanted["overflow"] == 0
    assert got.pop("overflow") == len(BAD)
    assert wanted["valid"].any()
    positive = torch.as_tensor(wanted["valid"])
    for name, x in got.items():
        x, right = torch.as_tensor(x), torch.as_tensor(wanted[name])
        if name in ("image", "anchor", "row"):  # elsewhere of no meaning
            x, right = x[positive], right[positive]
        assert torch.equal(x, right), name


def test_the_loss_is_that_without_them(tmp_path):
    got, wanted = with_and_without(export_loss, tmp_path / "loss.pt2")
    assert (wanted["overflow"], wanted["num_positives"] > 0) == (0, True)
    assert got.pop("overflow") == len(BAD)
    for name, x in got.items():
        torch.testing.assert_close(torch.as_tensor(x), torch.as_tensor(wanted[name]), msg=name)


def test_masks_keep_their_rows(tmp_path):
    path = tmp_path / "loss.pt2"
    loss, setting = SegmentationLoss(3), Setting(SIZE, prototypes=4)
    export_loss(loss, path, setting)
    torch.manual_seed(2)
    heads = {
        **maps("pred"),
        "pred_coefficients": torch.randn(2, 4, ANCHORS),
        "pred_prototypes": torch.randn(2, 4, 16, 16),
    }
    index_map = torch.randint(0, 5, (2, 16, 16))
    bad, _ = with_unknown(batch())
    got = load(path).run({**heads, **bad, "index_map": index_map})
    # A row with a broken box keeps its number in the index map, and matches nothing.
    broken = torch.where((bad["cls"] < 0) | (bad["cls"] >= 3), -1.0, 0.0)[:, None] + batch()["boxes"]
    loss.check_values = False
    wanted = LossGraph(loss, setting)({**heads, **batch(), "boxes": broken, "index_map": index_map})
    assert (got.pop("overflow"), wanted.pop("overflow")) == (len(BAD), 0)
    assert wanted["loss_seg"] > 0
    for name, x in got.items():
        torch.testing.assert_close(torch.as_tensor(x), wanted[name], msg=name)
