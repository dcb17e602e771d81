"""Other assigners beside those of libreyolo 1.6.0 (MIT), called as they are, where that is installed.

    python -m tests.golden.peers record    # writes peers.json: their answers where every image has one row
    python -m tests.golden.peers compare   # a table: how many images agree, by how many rows they have

Nothing of it is copied here; `tests/assign/test_peer_answers.py` compares with the file that was written.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch

from compiled_loss import ATSS, DynamicSoftLabel, NearCentre, SimOTA
from compiled_loss.geometry.boxes import iou, xyxy_to_cxcywh
from tests.assign.scenes import Scene, assign, make_scene, readable
from tests.golden.agreement import agreement
from tests.reference.batches import LAYOUTS
from tests.reference.losses import anchor_grid

FILE = Path(__file__).with_name("peers.json")
CLASSES = 3
# Ours, with the candidates that they have: RTMDet's grow no small box.
OURS: dict[str, Any] = {
    "YOLOX": SimOTA(),
    "RTMDet": DynamicSoftLabel(region=NearCentre(0.0, or_inside=True)),
    "PP-YOLOE": ATSS(9, 5.0),
}
# The same by the rule of the peer's code that a row may have what any row of its image may.
SHARED: dict[str, Any] = {
    "YOLOX": SimOTA(shared=NearCentre()),
    "RTMDet": DynamicSoftLabel(shared=NearCentre(0.0, or_inside=True)),
}
Positives = list[tuple[int, int, int]]  # image, anchor, row


def scenes() -> list[Scene]:
    """What is recorded: one row an image."""
    return [make_scene(seed, layout=LAYOUTS[seed % 6], counts=(1,) * 4, size=(96, 128)) for seed in range(12)]


def ours(name: str, scene: Scene, *, shared: bool = False) -> Positives:
    """The positives of our assigner, in order."""
    assigner = SHARED.get(name, OURS[name]) if shared else OURS[name]
    return sorted(readable(assign(*scene, assigner=assigner, overlap=iou)))


def theirs(name: str, scene: Scene) -> Positives:
    """The positives of the peer, in order."""
    points, steps = (torch.from_numpy(x) for x in anchor_grid(scene.grid_sizes, scene.strides))
    call = {"YOLOX": _yolox, "RTMDet": _rtmdet, "PP-YOLOE": _ppyoloe}[name]
    found = []
    for image in range(len(scene.scores)):
        rows = (scene.batch_idx == image).nonzero()[:, 0]
        if len(rows):
            anchors, of_rows = call(scene, image, rows, points, steps)
            found += [(image, a, int(rows[n])) for a, n in zip(anchors, of_rows, strict=True)]
    return sorted(found)


def _yolox(scene: Scene, image: int, rows: torch.Tensor, points: torch.Tensor, steps: torch.Tensor) -> Any:
    from libreyolo.models.yolox.nn import YOLOXHead  # noqa: PLC0415  (where it is installed)  # type: ignore

    # Its probability is the root of two: with an objectness of 1 and this logit it is ours.
    squared = scene.scores[image : image + 1].transpose(1, 2).double().sigmoid() ** 2
    logits = (squared / (1 - squared)).log().float()
    _, mask, _, matched, _ = YOLOXHead(CLASSES).get_assignments(
        0,
        len(rows),
        xyxy_to_cxcywh(scene.boxes[rows]),
        scene.labels[rows],
        xyxy_to_cxcywh(scene.predicted[image]),
        steps[None],
        (points - 0.5)[None, :, 0],
        (points - 0.5)[None, :, 1],
        logits,
        torch.full_like(logits[..., :1], 50.0),
    )
    return mask.nonzero()[:, 0].tolist(), matched.tolist()


def _rtmdet(scene: Scene, image: int, rows: torch.Tensor, points: torch.Tensor, steps: torch.Tensor) -> Any:
    from libreyolo.models.rtmdet.loss import DynamicSoftLabelAssigner  # noqa: PLC0415  # type: ignore

    found = DynamicSoftLabelAssigner(CLASSES)(
        scene.predicted[image : image + 1],
        scene.scores[image : image + 1].transpose(1, 2),
        torch.cat([points * steps[:, None], steps[:, None]], 1),
        scene.labels[rows][None, :, None].float(),
        scene.boxes[rows][None],
        torch.ones(1, len(rows), 1),
    )
    return _by_boxes(found["assigned_bboxes"], scene.boxes[rows])


def _ppyoloe(scene: Scene, image: int, rows: torch.Tensor, points: torch.Tensor, steps: torch.Tensor) -> Any:
    from libreyolo.models.yolonas.loss import ATSSAssigner  # noqa: PLC0415  # type: ignore

    centres, half = points * steps[:, None], steps[:, None] * 2.5
    labels, boxes, _ = ATSSAssigner(9, CLASSES)(
        torch.cat([centres - half, centres + half], 1),
        [h * w for h, w in scene.grid_sizes],
        scene.labels[rows][None, :, None],
        scene.boxes[rows][None],
        torch.ones(1, len(rows), 1),
        CLASSES,
    )
    return _by_boxes(torch.where((labels < CLASSES)[..., None], boxes, 0.0), scene.boxes[rows])


def _by_boxes(assigned: torch.Tensor, boxes: torch.Tensor) -> tuple[list[int], list[int]]:
    """Anchors and rows of positives that are told by their rows' boxes."""
    same = (assigned[0][:, None] == boxes).all(-1)
    return same.any(1).nonzero()[:, 0].tolist(), same.long().argmax(1)[same.any(1)].tolist()


def main(command: str) -> None:
    if command == "record":
        answers = {name: [theirs(name, scene) for scene in scenes()] for name in OURS}
        FILE.write_text(json.dumps(answers, separators=(",", ":")) + "\n")
        return
    print("| peer | rows an image | images | of them alike | positives | of them alike | with shared candidates |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name in OURS:
        for rows in (1, 3, 12):
            drawn = [
                make_scene(500 + seed, layout=LAYOUTS[seed % 6], counts=(rows,) * 4, size=(192, 256))
                for seed in range(24)
            ]
            other = [set(theirs(name, scene)) for scene in drawn]
            mine, shared = ([set(ours(name, scene, shared=x)) for scene in drawn] for x in (False, True))
            seen = agreement(zip(mine, other, strict=True))
            numbers = [seen[k] for k in ("images", "same", "positives", "alike")]
            together = agreement(zip(shared, other, strict=True))["alike"]
            print("|", *(f"{x} |" for x in (name, rows, *numbers, together)))


if __name__ == "__main__":
    main(sys.argv[1])
