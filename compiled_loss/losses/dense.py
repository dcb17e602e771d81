"""The engine of every loss: the same steps in the same order, each done by a part.

Letters: B images, N rows, A anchors, C classes, R distance bins, P positive slots.
"""

import inspect
from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any

import torch
from torch import Tensor, nn

from compiled_loss.assign.dense import to_dense
from compiled_loss.assign.parts import Assigner, Pairs, check_assigner, check_assignment
from compiled_loss.assign.regions import Region
from compiled_loss.assign.scheduled import region_or
from compiled_loss.assign.task_aligned import TaskAligned
from compiled_loss.checks import check_part, check_shape, check_strides, require, true_or_false, whole_number
from compiled_loss.data.padded import PaddedTargets
from compiled_loss.data.targets import Targets
from compiled_loss.losses.counting import objects_of
from compiled_loss.losses.fields import ROWS, Field
from compiled_loss.losses.inputs import check_buffers, check_extra, check_inputs, check_terms, checked_gains
from compiled_loss.losses.parts import BoxKind, BoxTerm, ClassTerm, Extra, Pairing, Term, Weighted
from compiled_loss.losses.placing import placed
from compiled_loss.losses.planning import Planner
from compiled_loss.losses.reducing import reduction_of
from compiled_loss.losses.scene import Positives, Scene, View, detached, sound_anchors, to_rows, where_sound, widened
from compiled_loss.numerics import masked
from compiled_loss.reduce import Sums
from compiled_loss.terms.box import read_sides, scaled_l1
from compiled_loss.terms.classification import BinaryCrossEntropy, WeightedClasses
from compiled_loss.types import Assignment, DenseAssignment, LossOutput, Predictions


class DenseLoss(Planner):
    """The loss of a dense, anchor-free head, assembled from parts.

    Candidates are paired with rows and an assigner makes some of them positives. The box term, the distance term (`dfl`
    over bins, `l1` for `R = 1`) and the extras' terms are summed over the positives, the class term over all anchors.
    Each is returned multiplied by its gain and by B.

    Args:
        num_classes: C.
        strides: pixels per grid unit of each level, finest level first.
        reg_max: distance bins R per side.
        boxes: the kind of boxes, upright or oriented.
        assigner: selects the positives among the pairs; None means `TaskAligned()`.
        pairing: computes how well candidates overlap rows.
        box_term: error of the predicted boxes.
        classification: error of the class logits; None means `BinaryCrossEntropy()`.
        extras: further terms.
        gains: factor of each term, in the order in which they are returned; for `R = 1` that of `dfl` applies to `l1`.
        distributed: average the normaliser of the sums over the ranks of the default process group.
        check_values: check the values of every batch's rows, as `Targets.validate` does, and warn once if a plan is too
            small. This happens only in eager calls with rows on the host, never in traced code or on a device. The
            attribute of the same name switches it on and off.
        per_image: also return what each image contributes to every term, as `LossOutput.per_image`.
        arguments: the arguments that a task's loss was constructed with, as given.

    Raises:
        ValueError: if a size is not positive or a gain is negative.

    Example:
        >>> from compiled_loss import OneMinus
        >>> from compiled_loss.geometry.boxes import giou
        >>> from compiled_loss.losses.boxes import UprightBoxes
        >>> from compiled_loss.losses.comparing import CompareBoxes
        >>> criterion = DenseLoss(2, [8, 16], 16, boxes=UprightBoxes(), box_term=OneMinus(giou),
        ...                       pairing=CompareBoxes(giou), gains={"box": 2.0, "cls": 1.0, "dfl": 0.25})
        >>> [x.name for x in criterion.maps]
        ['boxes', 'scores']
    """

    task = "detect"

    def __init__(
        self,
        num_classes: int,
        strides: Sequence[int] | Tensor,
        reg_max: int,
        *,
        boxes: BoxKind,
        assigner: Assigner | None = None,
        pairing: Pairing,
        box_term: BoxTerm,
        classification: ClassTerm | None = None,
        extras: Sequence[Extra] = (),
        gains: Mapping[str, float],
        distributed: bool = False,
        check_values: bool = True,
        per_image: bool = False,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.num_classes = whole_number("num_classes", num_classes)
        self.strides = check_strides(strides)
        self.reg_max = whole_number("reg_max", reg_max)
        assigner = TaskAligned() if assigner is None else assigner
        classification = BinaryCrossEntropy() if classification is None else classification
        check_part("box_term", box_term, "predicted", "true", "strides")
        check_part("classification", classification, "scores", "assignment", "labels")
        self.boxes = boxes
        self.assigner = check_assigner("assigner", assigner)
        self.pairing = pairing
        self.box_term = box_term
        self.classification = classification
        if isinstance(classification, WeightedClasses):
            classification.check(self.num_classes)
        self.extras = tuple(extras)
        for i, extra in enumerate(self.extras):
            check_extra(f"extras[{i}]", extra)
            if isinstance(extra, nn.Module):  # its buffers move with this one's
                self.add_module(f"extra{i}", extra)
        self.gains = checked_gains(gains, self.extras, self.reg_max)
        self.distributed = true_or_false("distributed", distributed)
        self.check_values = true_or_false("check_values", check_values)
        self.per_image = true_or_false("per_image", per_image)
        names = inspect.signature(type(self).__init__).parameters  # its `locals()` hold more
        self.arguments = {name: value for name, value in (arguments or {}).items() if name in names and name != "self"}

    @property
    def fields(self) -> list[Field]:
        """The fields of `Targets` that the loss reads."""
        return [*ROWS, *self.boxes.fields, *(x for extra in self.extras for x in extra.fields)]

    @property
    def region(self) -> Region:
        """Where candidates lie; `plan` counts pages from it."""
        return region_or(self.assigner.region, self.boxes.region)

    def forward(self, predictions: Predictions, targets: Targets | PaddedTargets) -> LossOutput:
        """Loss of a batch.

        Args:
            predictions: the head's raw output.
            targets: the batch's objects, as flat rows or in per-image slots; padding does not contribute.

        Returns:
            `LossOutput(total, terms, num_positives, overflow, per_image)`.

        Raises:
            ValueError: for a wrong rank, size, dtype or device, or if `Targets.validate` finds a fault.
        """
        return self.evaluate(predictions, self._checked(predictions, targets), self.assigner)

    def assign(self, predictions: Predictions, targets: Targets | PaddedTargets) -> Assignment:
        """The positives that the loss would train on, computed without gradients.

        Args:
            predictions: the head's raw output.
            targets: the batch's objects, as for the loss; slot m of image b is row `b M + m`.

        Returns:
            `Assignment` with `P = N * slots`, where `slots` is the assigner's number of slots per row.

        Raises:
            ValueError: for a wrong rank, size, dtype or device, or if `Targets.validate` finds a fault.
        """
        return self.positives(self.view(predictions, self._checked(predictions, targets)), self.assigner)

    def assign_dense(self, predictions: Predictions, targets: Targets | PaddedTargets) -> DenseAssignment:
        """The same positives, one entry per anchor.

        Args:
            predictions: the head's raw output.
            targets: the batch's objects, as for the loss; slot m of image b is row `b M + m`.

        Returns:
            `DenseAssignment`, boxes in xyxy pixels.

        Raises:
            ValueError: for a wrong rank, size, dtype or device, or if `Targets.validate` finds a fault.
        """
        scene = self._checked(predictions, targets)
        batch, classes, anchors = predictions.scores.shape
        flat = self.positives(self.view(predictions, scene), self.assigner)
        return to_dense(flat, scene.targets.labels, scene.boxes, batch, anchors, classes)

    def with_assigner(self, assigner: Assigner) -> "DenseLoss":
        """The same loss with another assigner, sharing its weights.

        Raises:
            ValueError: if the argument is not an assigner.
        """
        other = copy(self)
        other._modules = dict(self._modules)  # of which the copy is shallow
        del other.assigner
        other.assigner = check_assigner("assigner", assigner)
        if "assigner" in self.arguments:
            other.arguments = {**self.arguments, "assigner": assigner}
        return other

    def check(self, predictions: Predictions, targets: Targets) -> None:
        """Check ranks, sizes, dtypes and devices, without reading any values.

        Raises:
            ValueError: naming the argument, what was expected and what was given.
        """
        check_inputs(predictions, targets, self.maps, self.strides)
        self.boxes.check(targets)
        for extra in self.extras:
            extra.check(predictions, targets)
        check_buffers(predictions, self)

    def place(self, predictions: Predictions, targets: Targets | PaddedTargets) -> Scene:
        """Check both and compute what depends only on targets and grid: anchors, rows in pixels, candidates.

        Raises:
            ValueError: naming the argument, what was expected and what was given.
        """
        targets, dropped = to_rows(predictions, targets)
        self.check(predictions, targets)
        return placed(predictions, targets, self.strides, self.boxes, self.region, dropped)

    @torch.no_grad()
    def view(self, predictions: Predictions, scene: Scene) -> View:
        """The predictions in a scene, with distances and boxes decoded without gradients."""
        given = detached(predictions)  # forward-mode derivatives ignore `no_grad`
        sides = self.sides(given)
        return View(predictions, sides, self.boxes.predicted(given, sides, scene.anchors), scene)

    @torch.no_grad()
    def positives(self, view: View, assigner: Assigner) -> Assignment:
        """The positives that an assigner, this loss's own or another, selects."""
        view = view._replace(predictions=detached(view.predictions))  # as in `view`
        scene, targets = view.scene, view.scene.targets
        # An anchor with a NaN or infinity in a map that is read at positives is never picked, like one with such a box.
        read = [getattr(view.predictions, x.name) for extra in self.extras for x in extra.maps if not x.pixels]
        read = [x for x in read if x is not None]
        overlap = where_sound(self.pairing(view, assigner), read)
        rows = objects_of(targets), targets.labels, scene.boxes, scene.pixels, scene.anchors.strides

        def sound() -> Tensor:  # only computed if the assigner asks for it
            return sound_anchors([view.boxes.mT, *read])

        pairs = Pairs(view.predictions.scores, *rows, scene.candidates, overlap, sound)
        found = check_assignment(assigner(pairs), targets.labels.shape[0], assigner)
        beside = sum([extra.overflow(view, found, assigner.slots) for extra in self.extras])
        self.look_at_room(scene, beside)
        overflow = found.overflow + scene.dropped + scene.cut + beside
        # Not by `_replace`: torch 2.11 cannot return its result from a graph.
        return Assignment(*found[:5], overflow=overflow, weight=found.weight)

    def evaluate(self, predictions: Predictions, scene: Scene, assigner: Assigner) -> LossOutput:
        """The loss in a scene that another branch may share."""
        view = self.view(widened(predictions, self.boxes.maps), scene)
        assignment = self.positives(view, assigner)
        points, strides = scene.anchors.points[assignment.anchor], scene.anchors.strides[assignment.anchor]
        true = masked(scene.boxes[assignment.row], assignment.valid)
        slots = Positives(view, assignment, assigner.slots, points, strides, self.boxes.scaled(true, strides))
        found = self._terms(slots)
        batch = predictions.scores.shape[0]
        terms = {name: found[name].batch * batch for name in self.gains if name in found}
        images = {name: x * batch for name in terms if (x := found[name].images) is not None}
        summed = torch.stack(list(terms.values())).sum()
        return LossOutput(summed, terms, assignment.valid.sum(), assignment.overflow, images or None)

    def _checked(self, predictions: Predictions, targets: Targets | PaddedTargets) -> Scene:
        scene = self.place(predictions, targets)
        self.look_at_rows(predictions, scene.targets)
        return scene

    def _terms(self, slots: Positives) -> dict[str, Sums]:
        """Every term multiplied by its gain."""
        distances, error = self._distances(slots)
        reduction = reduction_of(slots, over_ranks=self.distributed, per_image=self.per_image)
        # To a box term, which may keep a mean over the others, rows of weight 0 are empty slots.
        true = slots.boxes if reduction.weights is None else masked(slots.boxes, reduction.weights > 0)
        box = self.box_term(self.boxes.read(slots, distances), true, slots.strides)
        check_shape("box_term(...)", box, ["P"], "see parts.BoxTerm")  # a mean would be spread over the positives
        terms: dict[str, Term] = {"box": Weighted(box), **error}
        for i, extra in enumerate(self.extras):
            terms |= check_terms(f"extras[{i}](...)", extra(slots))
        require({*terms} <= {*self.gains}, "extras", "only terms that their gains name", [*terms])
        reduced = {name: reduction.of_term(name, term, self.gains[name]) for name, term in terms.items()}
        return {**reduced, "cls": reduction.of_classes(self.classification, self.gains["cls"])}

    def _distances(self, slots: Positives) -> tuple[Tensor, dict[str, Term]]:
        """`[P, 4]` distances, grid units, and their `[P]` error: `dfl` with bins, `l1` without."""
        view, assignment = slots.view, slots.assignment
        true = self.boxes.distances(slots.points, slots.boxes)
        if self.reg_max > 1:
            distances, error = read_sides(view.predictions.boxes, view.sides, assignment, true)
            return distances, {"dfl": Weighted(error)}
        distances = slots.read(view.predictions.boxes)
        return distances, {"l1": Weighted(scaled_l1(distances, true, slots.strides, view.scene.image_size))}
