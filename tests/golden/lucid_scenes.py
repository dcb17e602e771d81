"""Assignments and whole losses beside those of lucid-yolo 0.5.0.dev2, for `tests.golden.lucid`."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from compiled_loss import (
    Assignment,
    DetectionLoss,
    EndToEndLoss,
    OneMinus,
    Pairs,
    Predictions,
    Targets,
    TaskAligned,
    select,
)
from compiled_loss.assign.parts import Assigner
from compiled_loss.geometry.boxes import ciou, iou
from tests.assign.scenes import Scene, assign, make_scene, readable
from tests.reference.batches import LAYOUTS
from tests.reference.losses import anchor_grid

STRIDES, CLASSES = (8, 16, 32), 3
Positives = dict[tuple[int, int, int], float]  # target score of each (image, anchor, row)


@dataclass(frozen=True)
class ByAlignment:
    """The task-aligned assigner with its rule for an anchor that several rows select: the best aligned one has it."""

    rule: TaskAligned
    region = None

    @property
    def slots(self) -> int:
        """Positive slots of each row."""
        return self.rule.top_k

    def __call__(self, pairs: Pairs) -> Assignment:
        """The positives, each with its alignment as target score."""
        logits = pairs.logits()
        merit = self.rule.alignment(logits, pairs.overlaps(logits))
        held = select(pairs, merit, merit, self.rule.top_k, among_selecting=True)
        return held.assignment(pairs, held.read(merit))


MANY, ONE = TaskAligned(alpha=1.0), TaskAligned(top_k=7, keep=1, alpha=1.0)


def our_positives(scene: Scene, assigner: Assigner) -> Positives:
    """Target scores of our positives."""
    return readable(assign(*scene, assigner=assigner, overlap=iou))


def their_positives(scene: Scene, *, one: bool = False, grown: float = 16.0) -> Positives:
    """Target scores of theirs that are above 0; sides below `grown` pixels grow to 16."""
    from lucid_yolo.assign.one_to_one import UniqueAssigner  # noqa: PLC0415  # type: ignore
    from lucid_yolo.assign.stal import SmallTargetAssigner  # noqa: PLC0415  # type: ignore

    assigner = UniqueAssigner(s_min=grown) if one else SmallTargetAssigner(10, s_min=grown)
    points, steps = (torch.from_numpy(x) for x in anchor_grid(scene.grid_sizes, scene.strides))
    boxes, labels, rows = _padded(scene)
    predicted = scene.scores.transpose(1, 2).sigmoid(), scene.predicted
    found = assigner(*predicted, (points * steps[:, None]).float(), boxes, labels, rows >= 0)
    images, anchors = (found.fg_mask & (found.align_weights > 0)).nonzero(as_tuple=True)
    held = rows[images, found.gt_index[images, anchors]]
    scores = found.align_weights[images, anchors]
    return dict(zip(zip(*(x.tolist() for x in (images, anchors, held)), strict=True), scores.tolist(), strict=True))


def _padded(scene: Scene) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes, labels and numbers of the rows of each image; -1 for no row."""
    images = len(scene.scores)
    each = [(scene.batch_idx == b).nonzero()[:, 0] for b in range(images)]
    rows = torch.nn.utils.rnn.pad_sequence([*each, torch.zeros(1).long()], batch_first=True, padding_value=-1)[:images]
    return scene.boxes[rows], scene.labels[rows], rows


def scenes(seeds: Iterable[int], rows: int, size: tuple[int, int] = (96, 128)) -> list[Scene]:
    """Hard random batches of so many rows an image, without boxes whose sides pass through anchors."""
    layouts = [x for x in LAYOUTS if x not in ("on_grid", "mixed")]
    return [make_scene(s, layout=layouts[s % len(layouts)], counts=(rows,) * 4, size=size) for s in seeds]


class Branches(NamedTuple):
    """A batch for a whole loss of a head with two branches, one row an image."""

    maps: list[Tensor]  # boxes [B, 4, A] grid units and scores [B, C, A] of either branch, leaves
    scene: Scene
    size: tuple[int, int]


def make_branches(seed: int) -> Branches:
    """One of them."""
    size = (96, 128)
    (scene,), generator = scenes([seed], 1, size), torch.Generator().manual_seed(seed)
    points, steps = (torch.from_numpy(x).float() for x in anchor_grid(scene.grid_sizes, STRIDES))
    centre, maps = points * steps[:, None], []
    sides = torch.cat([centre - scene.predicted[..., :2], scene.predicted[..., 2:] - centre], -1) / steps[:, None]
    for _ in range(2):
        noise = torch.randn(sides.shape, generator=generator) * 0.2
        maps += [(sides + noise).mT.contiguous().requires_grad_(), scene.scores.clone().requires_grad_()]
    return Branches(maps, scene, size)


def our_loss(batch: Branches) -> list[np.ndarray]:
    """Box and class terms of both branches, without the images' number, and the gradients of their sum."""
    criterion = DetectionLoss(
        CLASSES, STRIDES, reg_max=1, assigner=MANY, overlap=iou, box_term=OneMinus(ciou), dfl_gain=0.0
    )
    scene, images = batch.scene, len(batch.scene.scores)
    scale = torch.tensor([*batch.size[::-1]] * 2)
    low, high = (scene.boxes / scale).split(2, 1)
    targets = Targets(scene.batch_idx, scene.labels, torch.cat([(low + high) / 2, high - low], 1))
    heads = [Predictions(batch.maps[i], batch.maps[i + 1], scene.grid_sizes) for i in (0, 2)]
    out = EndToEndLoss(criterion, one_to_one=ONE)(*heads, targets)
    return _with_gradients(out.terms["box"] / images, out.terms["cls"] / images, batch.maps)


def their_loss(batch: Branches) -> list[np.ndarray]:
    """The same of its dual loss, with the shares of a training's first epoch."""
    from lucid_yolo.losses import DualBranchLoss  # noqa: PLC0415  # type: ignore

    points, steps = (torch.from_numpy(x).float() for x in anchor_grid(batch.scene.grid_sizes, STRIDES))
    given = []
    for sides, scores in (batch.maps[:2], batch.maps[2:]):
        low, high = sides.mT.split(2, -1)
        given += [scores.mT, torch.cat([points - low, points + high], -1) * steps[:, None]]
    boxes, labels, rows = _padded(batch.scene)
    loss = DualBranchLoss(l1_gain=0.0, alpha=0.8, s_min=16.0)
    out = loss(*given, points * steps[:, None], boxes, labels, rows >= 0, steps)
    box, classes = (0.8 * getattr(out.o2m, name) + 0.2 * getattr(out.o2o, name) for name in ("box", "cls"))
    return _with_gradients(7.5 * box, 0.5 * classes, batch.maps)


def _with_gradients(box: Tensor, classes: Tensor, maps: list[Tensor]) -> list[np.ndarray]:
    gradients = torch.autograd.grad(box + classes, maps)
    return [np.array([box.item(), classes.item()]), *(x.numpy() for x in gradients)]
