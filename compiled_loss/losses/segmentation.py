"""The segmentation loss: detection plus instance masks.

Letters: B images, N rows, A anchors, C classes, D prototypes, P positive slots, H and W mask pixels.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from compiled_loss.assign.candidates import Candidates
from compiled_loss.assign.parts import Assigner, Overlap
from compiled_loss.assign.task_aligned import TaskAligned
from compiled_loss.assign.top_k import first_top_k
from compiled_loss.checks import check_shape, given, require, true_or_false
from compiled_loss.data.targets import Targets
from compiled_loss.geometry.boxes import ciou
from compiled_loss.geometry.masks import MaskTargets, index_map_targets, mask_iou, resize_prototypes, stacked_targets
from compiled_loss.grid import Anchors
from compiled_loss.losses.boxes import UprightBoxes
from compiled_loss.losses.comparing import CompareBoxes, OneMinus
from compiled_loss.losses.dense import DenseLoss
from compiled_loss.losses.fields import Field, Map
from compiled_loss.losses.parts import BoxOverlap, BoxTerm, ClassTerm, Extra, Mean, OfImages, Pairing, Term
from compiled_loss.losses.scene import Positives, Scene, View
from compiled_loss.numerics import at_least_float32
from compiled_loss.pages import PAGE
from compiled_loss.terms.masks import mask_cross_entropy, mask_overflow, semantic_error
from compiled_loss.types import Assignment, Predictions


class SegmentationLoss(DenseLoss):
    """Detection loss plus a mask for every object, as one graph.

    Over positives, with mask logits `coefficients . prototypes`: `seg = mean of (sum of BCE over the pixels inside the
    true box / box area)`. Heads with semantic logits add `sem`, half cross-entropy and half Dice of every pixel's
    class; it is 0 without such logits, or if the batch has no positives.

    With `mask_overlap` the assigner uses `(max(CIoU, 0) + mask IoU) / 2`, where the mask IoU is computed for each row's
    `3 top_k` best-aligned candidates and is 0 for the others.

    Args:
        num_classes: C.
        strides: pixels per grid unit of each level, finest level first.
        reg_max: distance bins R per side.
        mask_overlap: let the assigner, which must be `TaskAligned`, take masks into account.
        assigner: matches anchors to target rows, a `parts.Assigner`; None means `TaskAligned()`.
        overlap: overlap of predicted and true boxes `[..., 4]`, xyxy, for the assigner and the default box term.
        box_term: error of the predicted boxes, a `parts.BoxTerm`; None means `OneMinus(overlap)`.
        classification: error of the class logits, a `parts.ClassTerm`; None means `BinaryCrossEntropy()`.
        box_gain: factor of the box term.
        mask_gain: factor of the mask term; None means the same as `box_gain`.
        cls_gain: factor of the classification term.
        dfl_gain: factor of the distance term.
        semantic_gain: factor of the semantic term; None means the same as `box_gain`.
        distributed: average the normaliser of the sums over the ranks of the default process group.
        check_values: check the values of every batch's rows, as `Targets.validate` does, and warn once if a plan is too
            small. This happens only in eager calls with rows on the host, never in traced code or on a device. The
            attribute of the same name switches it on and off.
        per_image: also return what each image contributes to every term, as `LossOutput.per_image`.
        extras: terms of your own in addition to the task's, each a `parts.Extra`.

    Raises:
        ValueError: if a size is not positive, a number is negative or not finite, or an argument has the wrong rank,
            size, dtype or device.

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

    task = "segment"

    def __init__(
        self,
        num_classes: int,
        strides: Sequence[int] | Tensor = (8, 16, 32),
        *,
        reg_max: int = 16,
        mask_overlap: bool = False,
        assigner: Assigner | None = None,
        overlap: BoxOverlap = ciou,
        box_term: BoxTerm | None = None,
        classification: ClassTerm | None = None,
        box_gain: float = 7.5,
        mask_gain: float | None = None,
        cls_gain: float = 0.5,
        dfl_gain: float = 1.5,
        semantic_gain: float | None = None,
        distributed: bool = False,
        check_values: bool = True,
        per_image: bool = False,
        extras: Sequence[Extra] = (),
    ) -> None:
        of_boxes = CompareBoxes(overlap)
        gains = {"box": box_gain, "seg": box_gain if mask_gain is None else mask_gain, "cls": cls_gain}
        gains |= {
            "dfl": dfl_gain,
            "sem": box_gain if semantic_gain is None else semantic_gain,
        }
        super().__init__(
            num_classes,
            strides,
            reg_max,
            boxes=UprightBoxes(),
            assigner=assigner,
            pairing=CompareMasks(of_boxes) if true_or_false("mask_overlap", mask_overlap) else of_boxes,
            box_term=box_term or OneMinus(overlap),
            classification=classification,
            extras=[MaskTerms(num_classes), *extras],
            gains=gains,
            distributed=distributed,
            check_values=check_values,
            per_image=per_image,
            arguments=locals(),
        )


class MaskTerms(nn.Module):
    """`seg` and `sem`, the errors of the positives' masks and of every pixel's class.

    Args:
        num_classes: C.
    """

    gains: Mapping[str, float] = {}  # the loss's

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.maps: Sequence[Map] = [
            Map("coefficients", "D", "mask coefficients, one for each prototype"),
            Map("prototypes", "D", "mask prototypes", pixels=1),
            Map(
                "semantic",
                num_classes,
                "class logits of every pixel",
                pixels=2,
                optional=True,
                why="num_classes channels",
            ),
        ]
        meaning = "masks of an image: 0 where there is none, i + 1 on the image's i-th row"
        self.fields: Sequence[Field] = [
            Field("index_map", ("H", "W"), "int64", meaning),
            Field("class_map", ("H", "W"), "int64", "class of every pixel, in [0, C)", optional=True),
        ]

    def check(self, predictions: Predictions, targets: Targets) -> None:
        """Check that rows have masks, and every pixel a class if the head predicts one."""
        batch = predictions.scores.shape[0]
        channels = given("predictions.coefficients", predictions.coefficients).shape[1]
        prototypes = given("predictions.prototypes", predictions.prototypes)
        check_shape("predictions.prototypes", prototypes, [batch, channels, "H", "W"])
        some = targets.masks is not None or targets.index_map is not None
        require(some, "targets.masks, targets.index_map", "one of the two", "neither")
        for name in ("index_map", "class_map"):
            x = getattr(targets, name)
            if x is not None:
                check_shape(f"targets.{name}", x, [batch, "H", "W"])
        needed = predictions.semantic is None or targets.class_map is not None
        require(needed, "targets.class_map", "a tensor, which predictions.semantic needs", None)

    def overflow(self, view: View, assignment: Assignment, slots: int) -> Tensor:
        """How often a row's positives did not fit into the planned tiles."""
        targets, scene = view.scene.targets, view.scene
        size = mask_targets(targets).size
        boxes = in_mask_pixels(scene.boxes, scene, size)
        return mask_overflow(assignment, boxes, size, slots_per_row=slots, tiles=targets.mask_tiles)

    def decoded(self, predictions: Predictions, anchors: Anchors) -> dict[str, Tensor]:
        """The mask coefficients."""
        return {"coefficients": given("predictions.coefficients", predictions.coefficients).transpose(1, 2).float()}

    def forward(self, positives: Positives) -> dict[str, Term]:
        """The terms."""
        (predictions, *_, scene), assignment = positives.view, positives.assignment
        targets = scene.targets
        truth = mask_targets(targets)
        masks = mask_cross_entropy(
            positives.read(given("predictions.coefficients", predictions.coefficients)),
            resize_prototypes(at_least_float32(given("predictions.prototypes", predictions.prototypes)), truth.size),
            assignment,
            in_mask_pixels(scene.boxes, scene, truth.size),
            truth,
            slots_per_row=positives.slots,
            tiles=targets.mask_tiles,
        )
        sem = masks.new_zeros(predictions.scores.shape[0], 1)
        if predictions.semantic is not None:
            class_map = given("targets.class_map", targets.class_map)
            covered = _covered(targets, predictions.scores.shape[0])
            sem = semantic_error(at_least_float32(predictions.semantic), class_map, covered)
            sem = torch.where(assignment.valid.sum() > 0, sem, 0.0)
        return {"seg": Mean(masks[:, None]), "sem": OfImages(sem)}


class CompareMasks:
    """The mean of box overlap and mask overlap, for each row's best-aligned candidates.

    Args:
        boxes: how boxes are compared.
    """

    def __init__(self, boxes: Pairing) -> None:
        self.boxes = boxes

    def __call__(self, view: View, assigner: Assigner) -> Overlap:
        """The overlap of every candidate with its row."""
        aligned_by = type(assigner).__name__
        require(isinstance(assigner, TaskAligned), "assigner", "TaskAligned, which mask_overlap needs", aligned_by)
        assert isinstance(assigner, TaskAligned)
        predictions, *_, scene = view
        of_boxes = self.boxes(view, assigner)
        prototypes = at_least_float32(given("predictions.prototypes", predictions.prototypes))
        coefficients = given("predictions.coefficients", predictions.coefficients)
        truth = mask_targets(scene.targets)
        size = (prototypes.shape[2], prototypes.shape[3])
        predicted = view.boxes
        predicted = in_mask_pixels(predicted, scene, size)

        def overlap(candidates: Candidates, logits: Tensor) -> Tensor:
            first = of_boxes(candidates, logits)
            # A candidate with a non-finite box must not be picked for its mask.
            sound = candidates.inside & first.isfinite()
            first = torch.where(sound & (first > 0), first, 0.0)
            aligned = assigner.alignment(logits, first)
            # Candidates without overlap rank after the others, in anchor order, and before empty entries.
            ranked = torch.where(sound, aligned.clamp(min=torch.finfo(torch.float32).tiny), 0.0)
            best, entry = first_top_k(ranked, candidates.layout, 3 * assigner.top_k)
            page, valid, entry = entry.flatten() // PAGE, (best > 0).flatten(), entry.flatten()
            image, anchor = candidates.image[page], candidates.anchor.flatten()[entry]
            second = mask_iou(
                at_least_float32(coefficients[image, :, anchor]).to(prototypes.dtype),
                prototypes,
                predicted[image, anchor],
                image,
                candidates.layout.group[page],
                valid,
                truth,
            )
            # Entries without a candidate write into an extra slot that is never read.
            entry = torch.where(valid, entry, first.numel())
            shares = first.new_zeros(first.numel() + 1).scatter(0, entry, second.to(first.dtype))
            return (first + shares[:-1].view_as(first)) / 2

        return overlap


def mask_targets(targets: Targets) -> MaskTargets:
    """True masks in either form."""
    if targets.index_map is not None:
        return index_map_targets(targets.index_map, targets.batch_idx)
    return stacked_targets(given("targets.masks", targets.masks))


def in_mask_pixels(boxes: Tensor, scene: Scene, size: tuple[int, int]) -> Tensor:
    """Boxes `[..., 4]`, xyxy pixels, scaled to a mask of another size."""
    left, top, right, bottom = boxes.unbind(-1)
    (height, width), (rows, columns) = scene.image_size, size
    return torch.stack(
        [left / width * columns, top / height * rows, right / width * columns, bottom / height * rows], -1
    )


def _covered(targets: Targets, images: int) -> Tensor:
    """`[B, H, W]` bool: pixels of any instance."""
    if targets.index_map is not None:
        return targets.index_map > 0
    masks = given("targets.masks", targets.masks)
    real = (targets.batch_idx >= 0) & (targets.batch_idx < images)
    image = torch.where(real, targets.batch_idx, images).long()
    counts = torch.zeros(images + 1, *masks.shape[1:], device=image.device)
    covered = (masks > 0).float()
    return counts.scatter_add(0, image[:, None, None].expand_as(covered), covered)[:images] > 0
