"""The detection loss.

Letters: B images, N rows, M slots per image, A anchors, C classes, R distance bins, P positive slots.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from compiled_loss.assign.dense import to_dense
from compiled_loss.assign.task_aligned import Overlap, assign_task_aligned
from compiled_loss.checks import check_same_device, check_shape, check_strides, require, whole_number
from compiled_loss.geometry.boxes import ciou
from compiled_loss.grid import Sides, boxes_to_distances, decode_sides, distances_to_boxes
from compiled_loss.losses.exact import ExactModule
from compiled_loss.losses.scene import Scene, check_inputs, detached, gather_positives, gather_rows, make_scene, to_rows
from compiled_loss.numerics import at_least_float32, total
from compiled_loss.padded import PaddedTargets
from compiled_loss.reduce import score_normaliser, weighted_sum
from compiled_loss.targets import Targets
from compiled_loss.terms.box import read_sides, scaled_l1
from compiled_loss.terms.classification import classification_sum
from compiled_loss.types import Assignment, DenseAssignment, LossOutput, Predictions


class DetectionLoss(ExactModule):
    """Boxes and classes of a dense, anchor-free head, task-aligned, as one graph.

    With target scores t of the positives and `S = max(1, sum t)`:
    `cls = sum BCE(score, one-hot t) / S`, `box = sum t (1 - CIoU) / S`, and over the distance bins
    `dfl = sum t mean over sides of cross-entropy / S` (`R = 1`: `l1`, the distance error as a fraction of the
    image). Each term is returned times its gain and times B. Computed in float32 at least.

    Args:
        num_classes: C.
        strides: pixels per grid unit of each level, finest first.
        reg_max: distance bins R per side.
        top_k: anchors that a target row selects.
        keep: anchors that a row keeps of those, where that is less; None keeps all.
        alpha: power of the class score in the alignment.
        beta: power of the overlap in the alignment.
        box_gain: factor of the box term.
        cls_gain: factor of the classification term.
        dfl_gain: factor of the distance term.
        class_weights: `[C]` factor of every logit's classification loss, or None.
        distributed: average the normaliser over the ranks of the default process group.

    Raises:
        ValueError: for a non-positive size, or an argument of the wrong rank, size, dtype or device.

    Source: TOOD (arXiv 2108.07755), CIoU (arXiv 1911.08287), Generalized Focal Loss (arXiv 2006.04388).

    Example:
        >>> criterion = DetectionLoss(num_classes=2, strides=(8, 16))
        >>> predictions = Predictions(torch.zeros(1, 64, 20), torch.zeros(1, 2, 20), ((4, 4), (2, 2)))
        >>> targets = Targets(torch.tensor([0]), torch.tensor([1]), torch.tensor([[0.5, 0.5, 0.5, 0.5]]))
        >>> out = criterion(predictions, targets)
        >>> list(out.terms), out.num_positives
        (['box', 'cls', 'dfl'], tensor(4))
    """

    class_weights: Tensor | None

    def __init__(
        self,
        num_classes: int,
        strides: Sequence[int] = (8, 16, 32),
        reg_max: int = 16,
        *,
        top_k: int = 10,
        keep: int | None = None,
        alpha: float = 0.5,
        beta: float = 6.0,
        box_gain: float = 7.5,
        cls_gain: float = 0.5,
        dfl_gain: float = 1.5,
        class_weights: Tensor | None = None,
        distributed: bool = False,
    ) -> None:
        super().__init__()
        self.num_classes = whole_number("num_classes", num_classes)
        self.strides = check_strides(strides)
        self.reg_max = whole_number("reg_max", reg_max)
        self.top_k = whole_number("top_k", top_k)
        self.keep = None if keep is None else whole_number("keep", keep)
        finite = 0 <= alpha < float("inf") and 0 <= beta < float("inf")
        require(finite, "alpha, beta", "finite numbers of 0 or more", (alpha, beta))
        if class_weights is not None:
            class_weights = torch.as_tensor(class_weights, dtype=torch.float32).detach().clone()
            check_shape("class_weights", class_weights, [num_classes])
        self.alpha = alpha
        self.beta = beta
        self.box_gain = box_gain
        self.cls_gain = cls_gain
        self.dfl_gain = dfl_gain
        self.distributed = distributed
        self.register_buffer("class_weights", class_weights, persistent=False)

    def forward(self, predictions: Predictions, targets: Targets | PaddedTargets) -> LossOutput:
        """Loss of a batch.

        Args:
            predictions: the head's raw output.
            targets: the batch's objects, as flat rows or in slots of each image; padding counts nothing.

        Returns:
            `LossOutput(total, terms, num_positives, overflow)`.

        Raises:
            ValueError: for a wrong rank, size, dtype or device.
        """
        rows, dropped = to_rows(predictions, targets)
        self._check(predictions, rows)
        return self._loss(predictions, rows, self._scene(predictions, rows), dropped)

    def _loss(self, predictions: Predictions, targets: Targets, scene: Scene, dropped: Tensor | int) -> LossOutput:
        """The loss in a scene that another branch may share; objects that were dropped before are overflow too."""
        sides = self._sides(predictions)
        assignment = self._assign(predictions, sides, targets, scene)
        gained = self._terms(predictions, sides, targets, scene, assignment)
        batch = predictions.scores.shape[0]
        terms = {name: term * batch for name, term in gained.items()}
        summed = torch.stack(list(terms.values())).sum()
        return LossOutput(summed, terms, assignment.valid.sum(), assignment.overflow + dropped)

    def assign(self, predictions: Predictions, targets: Targets | PaddedTargets) -> Assignment:
        """The positives that the loss would train on, without a gradient.

        Args:
            predictions: the head's raw output.
            targets: the batch's objects, as for the loss; slot m of image b is row `b M + m`.

        Returns:
            `Assignment` with `P = N*k` slots, `N*keep` where fewer are kept.

        Raises:
            ValueError: for a wrong rank, size, dtype or device.
        """
        rows, dropped = to_rows(predictions, targets)
        self._check(predictions, rows)
        found = self._assign(predictions, self._sides(predictions), rows, self._scene(predictions, rows))
        # Not by `_replace`: torch 2.11 cannot return what that makes from a graph.
        return Assignment(*found[:-1], overflow=found.overflow + dropped)

    def assign_dense(self, predictions: Predictions, targets: Targets | PaddedTargets) -> DenseAssignment:
        """The same positives, one entry per anchor.

        Args:
            predictions: the head's raw output.
            targets: the batch's objects, as for the loss; slot m of image b is row `b M + m`.

        Returns:
            `DenseAssignment`, boxes in xyxy pixels.

        Raises:
            ValueError: for a wrong rank, size, dtype or device.
        """
        rows, _ = to_rows(predictions, targets)
        self._check(predictions, rows)
        scene = self._scene(predictions, rows)
        batch, classes, anchors = predictions.scores.shape
        flat = self._assign(predictions, self._sides(predictions), rows, scene)
        return to_dense(flat, rows.labels, scene.boxes, batch, anchors, classes)

    def _check(self, predictions: Predictions, targets: Targets) -> None:
        check_inputs(predictions, targets, self.num_classes, self.reg_max, self.strides)
        check_same_device(predictions=predictions.scores, class_weights=self.class_weights)

    def _scene(self, predictions: Predictions, targets: Targets) -> Scene:
        """What depends on the targets and the grid alone: anchors, targets in pixels, candidates."""
        return make_scene(predictions, targets, self.strides)

    @torch.no_grad()
    def _sides(self, predictions: Predictions) -> Sides:
        """`[B, 4, A]` distances of every anchor, grid units; without a gradient."""
        # In the layout that the head writes, [B, 4, R, A]: the anchors are the contiguous dimension.
        logits = at_least_float32(predictions.boxes.detach()).unflatten(1, (4, self.reg_max))
        return decode_sides(logits, dim=2)

    def _overlap(self, predictions: Predictions, sides: Sides, targets: Targets, scene: Scene) -> Overlap:
        """How well a prediction overlaps a row, for the assigner: CIoU in pixels."""
        boxes = self._boxes(sides, scene)
        return lambda candidates, logits: ciou(candidates.of_rows(scene.boxes), candidates.take(boxes))

    def _boxes(self, sides: Sides, scene: Scene) -> Tensor:
        """`[B, A, 4]` predicted boxes, xyxy float32 pixels."""
        points, strides = scene.anchors
        distances = sides.distances.transpose(1, 2) * strides[:, None]
        return distances_to_boxes(points * strides[:, None], distances).float()

    @torch.no_grad()
    def _assign(self, predictions: Predictions, sides: Sides, targets: Targets, scene: Scene) -> Assignment:
        predictions = detached(predictions)  # forward-mode derivatives ignore `no_grad`
        return assign_task_aligned(
            predictions.scores,
            targets.batch_idx,
            targets.labels,
            scene.candidates,
            self._overlap(predictions, sides, targets, scene),
            top_k=self.top_k,
            keep=self.keep,
            alpha=self.alpha,
            beta=self.beta,
        )

    def _terms(
        self, predictions: Predictions, sides: Sides, targets: Targets, scene: Scene, assignment: Assignment
    ) -> dict[str, Tensor]:
        """Every term times its gain."""
        points, strides = scene.anchors.points[assignment.anchor], scene.anchors.strides[assignment.anchor]
        true_boxes = gather_rows(scene.boxes, assignment) / strides[:, None]
        true_distances = boxes_to_distances(points, true_boxes)
        distances, error = self._sides_of_positives(
            predictions, sides, assignment, true_distances, strides, scene.image_size
        )
        box = 1 - ciou(distances_to_boxes(points, distances), true_boxes)
        return self._weighted(predictions, targets, assignment, {"box": box, **error})

    def _sides_of_positives(
        self,
        predictions: Predictions,
        sides: Sides,
        assignment: Assignment,
        true_distances: Tensor,  # [P, 4] grid units
        strides: Tensor,  # [P]
        image_size: tuple[int, int],
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """`[P, 4]` distances, grid units, and their `[P]` error: `dfl` over the bins, `l1` without."""
        if self.reg_max > 1:
            distances, error = read_sides(predictions.boxes, sides, assignment, true_distances)
            return distances, {"dfl": error}
        distances = gather_positives(predictions.boxes, assignment)
        return distances, {"l1": scaled_l1(distances, true_distances, strides, image_size)}

    def _weighted(
        self, predictions: Predictions, targets: Targets, assignment: Assignment, errors: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """The box term, the classification and the other terms, times gain: `sum t error / S` of `[P]` errors."""
        scores = at_least_float32(predictions.scores)
        normaliser = score_normaliser(total(assignment.score), over_ranks=self.distributed)
        classification = classification_sum(scores, assignment, targets.labels, self.class_weights)
        terms = {
            name: self._gain(name) * weighted_sum(error, assignment.score, assignment.valid) / normaliser
            for name, error in errors.items()
        }
        return {"box": terms.pop("box"), "cls": self.cls_gain * classification / normaliser, **terms}

    def _gain(self, name: str) -> float:
        """Of a term; the distance term has one gain by either name."""
        return getattr(self, f"{'dfl' if name == 'l1' else name}_gain")
