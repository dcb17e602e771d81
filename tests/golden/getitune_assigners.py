"""Our assigners beside those of getitune 0.4.0 (Apache-2.0), called as they are, where that is installed.

    python -m tests.golden.getitune_assigners record    # writes getitune.json: their answers
    python -m tests.golden.getitune_assigners compare   # a table: how many images agree, by how many rows they have

The assigners need torch, numpy and scipy of all that the package asks for; its packages' own `__init__` are passed by.
Nothing of it is copied here; `tests/assign/test_peer_answers.py` compares with the file that was written.
"""

import importlib
import importlib.util
import json
import sys
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch

from compiled_loss import ATSS, DynamicSoftLabel, NearCentre, SimOTA
from compiled_loss.geometry.boxes import iou
from tests.assign.scenes import Scene, assign, make_scene, readable
from tests.golden.agreement import agreement
from tests.reference.batches import LAYOUTS
from tests.reference.losses import anchor_grid

FILE = Path(__file__).with_name("getitune.json")
# Ours, with the candidates that they have.
OURS: dict[str, Any] = {
    "SimOTA": SimOTA(shared=NearCentre(2.5, or_inside=True)),
    "dynamic soft label": DynamicSoftLabel(shared=NearCentre(0.0, or_inside=True)),
    "ATSS": ATSS(9, 8.0),
}
_HOME = "getitune.backend.lightning.models"
_COMMON = f"{_HOME}.common.utils.assigners"
_MODULES = {
    "SimOTA": (f"{_HOME}.detection.utils.assigners.sim_ota_assigner", "SimOTAAssigner"),
    "dynamic soft label": (f"{_COMMON}.dynamic_soft_label_assigner", "DynamicSoftLabelAssigner"),
    "ATSS": (f"{_HOME}.detection.utils.assigners.atss_assigner", "ATSSAssigner"),
}
Positives = list[tuple[int, int, int]]  # image, anchor, row


def scenes(seeds: range = range(9), rows: int | None = None, size: tuple[int, int] = (96, 128)) -> list[Scene]:
    """Hard random batches, of 1, 3 and 6 rows an image in turn where they are not told."""
    counts = [(rows or (1, 3, 6)[seed % 3],) * 4 for seed in seeds]
    return [
        make_scene(seed, layout=LAYOUTS[seed % 6], counts=c, size=size) for seed, c in zip(seeds, counts, strict=True)
    ]


def ours(name: str, scene: Scene) -> Positives:
    """The positives of our assigner, in order."""
    return sorted(readable(assign(*scene, assigner=OURS[name], overlap=iou)))


def theirs(name: str, scene: Scene) -> Positives:
    """The positives of theirs, in order."""
    points, steps = (torch.from_numpy(x) for x in anchor_grid(scene.grid_sizes, scene.strides))
    centres, steps = points * steps[:, None], steps[:, None]
    assigner, found = _assigner(name), []
    for image in range(len(scene.scores)):
        rows = (scene.batch_idx == image).nonzero()[:, 0]
        if not len(rows):
            continue
        true = SimpleNamespace(bboxes=scene.boxes[rows], labels=scene.labels[rows])
        if name == "ATSS":
            squares = _Priors(priors=torch.cat([centres - 4 * steps, centres + 4 * steps], 1))
            answer = assigner.assign(squares, [h * w for h, w in scene.grid_sizes], true)
        else:
            logits = scene.scores[image].T
            scores = logits.sigmoid() if name == "SimOTA" else logits
            priors = torch.cat([centres, steps, steps], 1)
            answer = assigner.assign(_Priors(bboxes=scene.predicted[image], scores=scores, priors=priors), true)
        anchors = (answer.gt_inds > 0).nonzero()[:, 0].tolist()
        found += [(image, a, int(rows[answer.gt_inds[a] - 1])) for a in anchors]
    return sorted(found)


class _Priors(SimpleNamespace):
    """What is predicted, with the test that they make of it."""

    def __contains__(self, name: str) -> bool:
        return name in vars(self)


def _assigner(name: str) -> Any:
    _find()
    path, kind = _MODULES[name]
    made = getattr(importlib.import_module(path), kind)
    return made(9) if name == "ATSS" else made()


@cache
def _find() -> None:
    """Let its modules be imported without what its packages import first."""
    spec = importlib.util.find_spec("getitune")
    assert spec is not None
    assert spec.origin is not None
    for package in (_COMMON, f"{_HOME}.detection.utils.assigners"):
        parts = package.split(".")
        for i in range(1, len(parts) + 1):
            module = ModuleType(".".join(parts[:i]))
            module.__path__ = [str(Path(spec.origin).parent.joinpath(*parts[1:i]))]
            sys.modules.setdefault(module.__name__, module)
    overlaps = importlib.import_module(f"{_COMMON}.iou2d_calculator")
    sys.modules[_COMMON].BboxOverlaps2D = overlaps.BboxOverlaps2D  # type: ignore[attr-defined]


def main(command: str) -> None:
    """Record or compare."""
    if command == "record":
        answers = {name: [theirs(name, scene) for scene in scenes()] for name in OURS}
        FILE.write_text(json.dumps(answers, separators=(",", ":")) + "\n")
        return
    print("| assigner | rows an image | images | of them alike | positives | of them alike |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name in OURS:
        for rows in (1, 3, 12):
            drawn = scenes(range(500, 524), rows, (192, 256))
            seen = agreement((set(ours(name, scene)), set(theirs(name, scene))) for scene in drawn)
            print(f"| {name} | {rows} | {seen['images']} | {seen['same']} | {seen['positives']} | {seen['alike']} |")


if __name__ == "__main__":
    main(sys.argv[1])
