"""The segmentation loss: detection plus instance masks.

Letters: B images, N rows, A anchors, C classes, D prototypes, P positive slots, H and W mask pixels.
"""

from typing import Any

import torch
from torch import Tensor

from compiled_loss.assign.candidates import Candidates
from compiled_loss.assign.task_aligned import Overlap, alignment
from compiled_loss.assign.top_k import first_top_k
from compiled_loss.checks import (
    check_floating,
    check_keywords,
    check_same_device,
    check_shape,
    finite_number,
    require,
    true_or_false,
)
from compiled_loss.geometry.masks import MaskTargets, index_map_targets, mask_iou, resize_prototypes, stacked_targets
from compiled_loss.grid import Sides
from compiled_loss.losses.detection import DetectionLoss
from compiled_loss.losses.scene import Scene, gather_positives
from compiled_loss.numerics import at_least_float32
from compiled_loss.pages import PAGE
from compiled_loss.reduce import mean_over_positives
from compiled_loss.targets import Targets
from compiled_loss.terms.masks import mask_cross_entropy, mask_overflow, semantic_error
from compiled_loss.types import Assignment, Predictions


class SegmentationLoss(DetectionLoss):
    """Detection plus a mask for every object, as one graph.

    Over positives, with mask logits `coefficients . prototypes`: `seg = mean of (sum of BCE over the pixels inside the
    true box / box area)`. Heads with semantic logits add `sem`, half cross-entropy and half Dice of every pixel's
    class; it is 0 without such logits, and without a positive in the batch.

    With `mask_overlap` the assigner compares `(max(CIoU, 0) + mask IoU) / 2`, the mask IoU of each row's `3 top_k`
    best-aligned candidates, 0 for the others.

    Args:
        num_classes: C.
        mask_gain: factor of the mask term; None takes the box term's.
        semantic_gain: factor of the semantic term; None takes the box term's.
        mask_overlap: let the assigner see masks.
        options: every other argument of `DetectionLoss`.

    Raises:
        ValueError: for a non-positive size, a negative number or one that is not finite, or an argument of the wrong
            rank, size, dtype or device.
        TypeError: for a keyword that there is not.

    Source: YOLACT, arXiv 1904.02689.

    Example:
        >>> criterion = SegmentationLoss(num_classes=2, strides=(8, 16))
        >>> predictions = Predictions(torch.zeros(1, 64, 20), torch.zeros(1, 2, 20), ((4, 4), (2, 2)),
        ...                           coefficients=torch.zeros(1, 4, 20), prototypes=torch.zeros(1, 4, 8, 8))
        >>> targets = Targets(torch.tensor([0]), torch.tensor([1]), torch.tensor([[0.5, 0.5, 0.5, 0.5]]),
        ...                   index_map=torch.ones(1, 8, 8, dtype=torch.uint8))
        >>> list(criterion(predictions, targets).terms)
        ['box', 'seg', 'cls', 'dfl', 'sem']
    """

    def __init__(
        self,
        num_classes: int,
        *,
        mask_gain: float | None = None,
        semantic_gain: float | None = None,
        mask_overlap: bool = False,
        **options: Any,
    ) -> None:
        check_keywords(type(self).__name__, options, type(self))
        super().__init__(num_classes, **options)
        self.mask_gain = self.box_gain if mask_gain is None else finite_number("mask_gain", mask_gain)
        self.semantic_gain = self.box_gain if semantic_gain is None else finite_number("semantic_gain", semantic_gain)
        self.mask_overlap = true_or_false("mask_overlap", mask_overlap)

    @property
    def _slots_per_row(self) -> int:
        return self.top_k if self.keep is None else min(self.top_k, self.keep)

    def _check(self, predictions: Predictions, targets: Targets) -> None:
        super()._check(predictions, targets)
        batch, classes, anchors = predictions.scores.shape
        coefficients, prototypes = predictions.coefficients, predictions.prototypes
        require(coefficients is not None, "predictions.coefficients", "a tensor", None)
        require(prototypes is not None, "predictions.prototypes", "a tensor", None)
        assert coefficients is not None
        assert prototypes is not None
        check_shape("predictions.coefficients", coefficients, [batch, "D", anchors])
        check_shape("predictions.prototypes", prototypes, [batch, coefficients.shape[1], "H", "W"])
        check_floating("predictions.coefficients", coefficients)
        check_floating("predictions.prototypes", prototypes)
        given = targets.masks is not None or targets.index_map is not None
        require(given, "targets.masks, targets.index_map", "one of them", "neither")
        for name in ("index_map", "class_map"):
            x = getattr(targets, name)
            if x is not None:
                check_shape(f"targets.{name}", x, [batch, "H", "W"])
        if predictions.semantic is not None:
            check_shape("predictions.semantic", predictions.semantic, [batch, classes, "h", "w"])
            check_floating("predictions.semantic", predictions.semantic)
            require(targets.class_map is not None, "targets.class_map", "a tensor, for predictions.semantic", None)
        check_same_device(
            predictions=predictions.scores,
            coefficients=coefficients,
            prototypes=prototypes,
            semantic=predictions.semantic,
        )

    def _overlap(self, predictions: Predictions, sides: Sides, targets: Targets, scene: Scene) -> Overlap:
        of_boxes = super()._overlap(predictions, sides, targets, scene)
        if not self.mask_overlap:
            return of_boxes
        prototypes, coefficients = predictions.prototypes, predictions.coefficients
        assert prototypes is not None
        assert coefficients is not None
        prototypes, truth = at_least_float32(prototypes), _mask_targets(targets)
        size = (prototypes.shape[2], prototypes.shape[3])
        boxes = _in_mask_pixels(self._boxes(sides, scene), scene, size)

        def overlap(candidates: Candidates, logits: Tensor) -> Tensor:
            first = of_boxes(candidates, logits)
            # A candidate whose box is broken must not be picked for its mask.
            sound = candidates.inside & first.isfinite()
            first = torch.where(sound & (first > 0), first, 0.0)
            aligned = alignment(logits, first, self.alpha, self.beta)
            # Candidates without overlap come after the others, by their anchor, and before what is none.
            ranked = torch.where(sound, aligned.clamp(min=torch.finfo(torch.float32).tiny), 0.0)
            best, entry = first_top_k(ranked, candidates.layout, 3 * self.top_k)
            page, valid, entry = entry.flatten() // PAGE, (best > 0).flatten(), entry.flatten()
            image, anchor = candidates.image[page], candidates.anchor.flatten()[entry]
            second = mask_iou(
                at_least_float32(coefficients[image, :, anchor]).to(prototypes.dtype),
                prototypes,
                boxes[image, anchor],
                image,
                candidates.layout.group[page],
                valid,
                truth,
            )
            # Entries without a candidate write into one more, which is none.
            entry = torch.where(valid, entry, first.numel())
            shares = first.new_zeros(first.numel() + 1).scatter(0, entry, second.to(first.dtype))
            return (first + shares[:-1].view_as(first)) / 2

        return overlap

    def _read_at_positives(self, predictions: Predictions) -> list[Tensor]:
        assert predictions.coefficients is not None
        return [predictions.coefficients]

    def _assign(self, predictions: Predictions, sides: Sides, targets: Targets, scene: Scene) -> Assignment:
        assignment = super()._assign(predictions, sides, targets, scene)
        size = _mask_targets(targets).size
        boxes = _in_mask_pixels(scene.boxes, scene, size)
        cut = mask_overflow(assignment, boxes, size, slots_per_row=self._slots_per_row, tiles=targets.mask_tiles)
        # Not by `_replace`: torch 2.11 cannot return what that makes from a graph.
        return Assignment(*assignment[:-1], overflow=assignment.overflow + cut)

    def _terms(
        self, predictions: Predictions, sides: Sides, targets: Targets, scene: Scene, assignment: Assignment
    ) -> dict[str, Tensor]:
        detection = super()._terms(predictions, sides, targets, scene, assignment)
        assert predictions.coefficients is not None
        assert predictions.prototypes is not None
        truth = _mask_targets(targets)
        masks = mask_cross_entropy(
            gather_positives(predictions.coefficients, assignment),
            resize_prototypes(at_least_float32(predictions.prototypes), truth.size),
            assignment,
            _in_mask_pixels(scene.boxes, scene, truth.size),
            truth,
            slots_per_row=self._slots_per_row,
            tiles=targets.mask_tiles,
        )
        seg = self.mask_gain * mean_over_positives(masks[:, None], assignment.valid)
        sem = torch.zeros_like(seg)
        if predictions.semantic is not None:
            assert targets.class_map is not None
            covered = _covered(targets, predictions.scores.shape[0])
            sem = semantic_error(at_least_float32(predictions.semantic), targets.class_map, covered)
            sem = torch.where(assignment.valid.sum() > 0, self.semantic_gain * sem, 0.0)
        return {"box": detection.pop("box"), "seg": seg, **detection, "sem": sem}


def _mask_targets(targets: Targets) -> MaskTargets:
    if targets.index_map is not None:
        return index_map_targets(targets.index_map, targets.batch_idx)
    assert targets.masks is not None
    return stacked_targets(targets.masks)


def _in_mask_pixels(boxes: Tensor, scene: Scene, size: tuple[int, int]) -> Tensor:
    """Boxes `[..., 4]`, xyxy pixels, on a mask of another size."""
    left, top, right, bottom = boxes.unbind(-1)
    (height, width), (rows, columns) = scene.image_size, size
    return torch.stack(
        [left / width * columns, top / height * rows, right / width * columns, bottom / height * rows], -1
    )


def _covered(targets: Targets, images: int) -> Tensor:
    """`[B, H, W]` bool: pixels of any instance."""
    if targets.index_map is not None:
        return targets.index_map > 0
    assert targets.masks is not None
    real = (targets.batch_idx >= 0) & (targets.batch_idx < images)
    image = torch.where(real, targets.batch_idx, images).long()
    counts = torch.zeros(images + 1, *targets.masks.shape[1:], device=image.device)
    covered = (targets.masks > 0).float()
    return counts.scatter_add(0, image[:, None, None].expand_as(covered), covered)[:images] > 0
