"""Losses of libreyolo (MIT) with other assigners, called unchanged on the batches of the tables, if it is installed.

The heads of YOLOX and RTMDet predict boxes directly: they have no distance bins to decode or to learn from.
"""

from collections.abc import Callable, Sequence

import torch
from batches import BATCH, CLASSES, GRID_SIZES, SIZE, STRIDES
from torch import Tensor

from compiled_loss import DetectionLoss, PaddedTargets, Predictions, Targets


def steps_of_peers(predictions: Predictions, targets: Targets) -> dict[str, Callable[[], None]]:
    """A step, forward and backward, by the name of the assigner that the peer has."""
    from libreyolo.models.rtmdet.loss import RTMDetLoss  # noqa: PLC0415  (where it is installed)  # type: ignore
    from libreyolo.models.yolonas.loss import PPYoloELoss  # noqa: PLC0415  # type: ignore
    from libreyolo.models.yolox.nn import YOLOXHead  # noqa: PLC0415  # type: ignore

    device = predictions.scores.device
    with torch.no_grad():
        decoded = DetectionLoss(CLASSES, STRIDES).to(device).decode(predictions).boxes  # [B, A, 4] pixels
    of_levels = [h * w for h, w in GRID_SIZES]
    strides = torch.tensor(STRIDES, device=device).repeat_interleave(torch.tensor(of_levels, device=device)).float()
    cells = torch.cat(
        [torch.stack(torch.meshgrid(torch.arange(w), torch.arange(h), indexing="xy"), -1).flatten(0, 1)
         for h, w in GRID_SIZES]
    ).to(device)  # fmt: skip
    points = (cells + 0.5) * strides[:, None]
    logits = predictions.scores.detach().mT.contiguous()  # [B, A, C]
    pixels = targets.boxes * SIZE
    corners = torch.cat([pixels[:, :2] - pixels[:, 2:] / 2, pixels[:, :2] + pixels[:, 2:] / 2], 1)
    slots = int(targets.batch_idx.bincount(minlength=BATCH).max())
    padded = PaddedTargets.from_rows(targets._replace(boxes=pixels), BATCH, slots)
    rows = torch.cat([padded.labels[..., None], padded.boxes], 2)

    sides = torch.cat([points - decoded[..., :2], decoded[..., 2:] - points], -1)  # [B, A, 4] pixels
    outputs = torch.cat([(decoded[..., :2] + decoded[..., 2:]) / 2, decoded[..., 2:] - decoded[..., :2]], -1)
    outputs = torch.cat([outputs, torch.full_like(logits[..., :1], 4.0), logits], -1).requires_grad_()
    shifts, steps = [cells[None, :, i].float() for i in (0, 1)], [strides[None]]
    simota = YOLOXHead(CLASSES).to(device).train()

    def maps(x: Tensor) -> list[Tensor]:
        levels = zip(x.detach().split(of_levels, 1), GRID_SIZES, strict=True)
        return [level.mT.unflatten(2, size).clone().requires_grad_() for level, size in levels]

    soft, scores, distances = RTMDetLoss(CLASSES, STRIDES).to(device), maps(logits), maps(sides)
    boxes, labels = ([x[targets.batch_idx == i] for i in range(BATCH)] for x in (corners, targets.labels))

    bins = predictions.boxes.detach().mT.clone().requires_grad_()  # [B, A, 4 R]
    of_classes, half = logits.clone().requires_grad_(), strides[:, None] * 2.5
    anchors = torch.cat([points - half, points + half], 1)
    grid = anchors, points, of_levels, strides[:, None]
    flat = torch.cat([targets.batch_idx[:, None], targets.labels[:, None], pixels], 1)
    atss, aligned = (PPYoloELoss(CLASSES, use_static_assigner=first).to(device) for first in (True, False))

    def step(leaves: Sequence[Tensor], total: Callable[[], Tensor]) -> Callable[[], None]:
        def run() -> None:
            for leaf in leaves:
                leaf.grad = None
            total().backward()

        return run

    def yolox() -> Tensor:
        return simota.get_losses(None, shifts[:1], shifts[1:], steps, rows, outputs, [], outputs.dtype)["total_loss"]

    return {
        "task-aligned": step([of_classes, bins], lambda: aligned((of_classes, bins, *grid), flat)[0]),
        "SimOTA": step([outputs], yolox),
        "soft labels": step([*scores, *distances], lambda: soft(scores, distances, boxes, labels)["total_loss"]),
        "ATSS": step([of_classes, bins], lambda: atss((of_classes, bins, *grid), flat)[0]),
    }
