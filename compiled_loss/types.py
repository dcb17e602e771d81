"""The values passed between the parts: named tuples with fixed fields, which compile and export see through.

Letters: B images, N target rows, A anchors, C classes, R distance bins, K keypoints, nm mask prototypes of H_m by W_m
pixels, P positive slots, k detections of an image, D values of a keypoint.
"""

from typing import NamedTuple

from torch import Tensor


class Predictions(NamedTuple):
    """Raw output of a dense detection head, levels concatenated finest first.

    Args:
        boxes: `[B, 4*R, A]` side-distance logits, channel `side*R + bin`, sides left, top, right, bottom.
            With `R = 1` the distances themselves, in grid units.
        scores: `[B, C, A]` class logits.
        grid_sizes: rows and columns `(h, w)` of each level, finest first; `A` is the sum of `h*w`.
        keypoints: `[B, K*D, A]` raw keypoints, channel `keypoint*D + d`, `D` 2 or 3 (third: visibility logit).
        angles: `[B, 1, A]` rotation of an oriented box, radians.
        keypoint_sigmas: `[B, 2*K, A]` raw spread of each keypoint, channel `keypoint*2 + (x, y)`.
        coefficients: `[B, nm, A]` mask coefficients, one for each prototype.
        prototypes: `[B, nm, H_m, W_m]` mask prototypes of the whole image.
        semantic: `[B, C, H_s, W_s]` class logits of every pixel.
        attributes: `[B, D, A]` additional channels with a meaning of your choice, for terms of your own (`extras=`).

    Fields that a task does not use are None.

    Effect of NaN and infinite values in a map, eager and compiled; positives and gradients of other images are never
    affected:

    - `boxes`, `keypoints`, `keypoint_sigmas`, `angles`, `coefficients`, `attributes`: the anchor is never positive.
      The loss stays finite, and `num_positives` decreases.
    - `scores`: the anchor is never positive for a row of that class. Since every score counts, the cls term and the
      total are not finite.
    - `prototypes`: the seg term is not finite if a positive's box contains such a pixel. `semantic`: the sem term.
    - -inf in `scores` and in the bins of `boxes` is a valid value: a class or a distance of probability 0.

    Example:
        >>> import torch
        >>> p = Predictions(torch.zeros(2, 64, 5), torch.zeros(2, 3, 5), ((2, 2), (1, 1)))
        >>> p.scores.shape
        torch.Size([2, 3, 5])
    """

    boxes: Tensor
    scores: Tensor
    grid_sizes: tuple[tuple[int, int], ...]
    keypoints: Tensor | None = None
    angles: Tensor | None = None
    keypoint_sigmas: Tensor | None = None
    coefficients: Tensor | None = None
    prototypes: Tensor | None = None
    semantic: Tensor | None = None
    attributes: Tensor | None = None


class Assignment(NamedTuple):
    """Which anchors are positive, for which target row and with what score: `P` flat slots, most of them empty.

    Every positive anchor is in exactly one slot. Empty slots have `valid` False, `score` 0 and
    indices that are safe to gather with.

    Args:
        image: `[P]` image of the slot.
        anchor: `[P]` anchor index within the image.
        row: `[P]` target row that the anchor is assigned to.
        valid: `[P]` bool, True where the slot holds a positive.
        score: `[P]` float, target score of the positive; 0 in empty slots.
        overflow: scalar, the number of target rows with more candidate anchors than the planned pages hold, of objects
            without a slot, and for masks of times that a row's positives did not fit into the planned tiles.
        weight: `[P]` weight of the positive's terms, if different from its score; 0 in empty slots. The terms are then
            divided by the sum of the weights. None means the score.

    Example:
        >>> import torch
        >>> one = Assignment(*torch.tensor([[0], [7], [2]]), torch.tensor([True]), torch.tensor([0.9]), torch.tensor(0))
        >>> one.anchor[one.valid]
        tensor([7])
    """

    image: Tensor
    anchor: Tensor
    row: Tensor
    valid: Tensor
    score: Tensor
    overflow: Tensor
    weight: Tensor | None = None

    def weights(self) -> Tensor:
        """`[P]` weight of each slot's terms: `weight`, or `score` if that is None."""
        return self.score if self.weight is None else self.weight


class DenseAssignment(NamedTuple):
    """The same assignment, one entry per anchor.

    Args:
        labels: `[B, A]` class of the anchor; `C` on background.
        boxes: `[B, A, 4]` target box, in the unit of the input (`[B, A, 5]` with an angle); 0 on background.
        scores: `[B, A, C]` class targets: one-hot times target score.
        foreground: `[B, A]` bool.
        row: `[B, A]` target row of the anchor; -1 on background.

    Example:
        >>> import torch
        >>> background = torch.full((1, 5), 3), torch.zeros(1, 5, 4), torch.zeros(1, 5, 3)
        >>> DenseAssignment(*background, torch.zeros(1, 5).bool(), torch.full((1, 5), -1)).foreground.any()
        tensor(False)
    """

    labels: Tensor
    boxes: Tensor
    scores: Tensor
    foreground: Tensor
    row: Tensor


class Decoded(NamedTuple):
    """A head's predictions at every anchor, decoded to float32 pixels and probabilities.

    An anchor with a NaN or infinite prediction (except -inf as a class logit, probability 0) has 0 in every field.

    Args:
        boxes: `[B, A, 4]` xyxy, not clipped to the image; oriented boxes are `[B, A, 5]` (cx, cy, w, h, angle).
        scores: `[B, A, C]` probability of each class.
        keypoints: `[B, A, K, D]` x, y and, with `D = 3`, the probability of being visible.
        coefficients: `[B, A, nm]` mask coefficients, one for each prototype.

    Fields that a task does not have are None.

    Example:
        >>> import torch
        >>> boxes = torch.tensor([[[0.0, 0, 8, 8], [8, 0, 24, 16]]])
        >>> decoded = Decoded(boxes, torch.tensor([[[0.1, 0.2], [0.9, 0.3]]]))
        >>> decoded.boxes[decoded.scores.amax(2) > 0.5]
        tensor([[ 8.,  0., 24., 16.]])
    """

    boxes: Tensor
    scores: Tensor
    keypoints: Tensor | None = None
    coefficients: Tensor | None = None


class Detections(NamedTuple):
    """The k best detections of every image, best first; for a single image, n detections without the first dimension.

    If an image has fewer detections than k, the rest is padding: score 0, and 0 in every field.

    Args:
        boxes: `[B, k, 4]` xyxy, pixels; oriented boxes are `[B, k, 5]` (cx, cy, w, h, angle).
        scores: `[B, k]` probability of the class.
        labels: `[B, k]` class.
        anchors: `[B, k]` anchor of each detection, for reading further maps of the head.
        keypoints: `[B, k, K, D]` x, y and, with `D = 3`, the probability of being visible.
        masks: `[B, k, H, W]` probability of every pixel; 0 outside the box.

    Fields that a task does not have are None.

    Example:
        >>> import torch
        >>> two = Detections(torch.zeros(2, 4), torch.tensor([0.9, 0.2]), torch.tensor([7, 3]), torch.tensor([0, 5]))
        >>> two.labels[two.scores > 0.5]
        tensor([7])
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    anchors: Tensor
    keypoints: Tensor | None = None
    masks: Tensor | None = None


class LossOutput(NamedTuple):
    """What every loss returns.

    Args:
        total: scalar, differentiable: the sum of `terms`.
        terms: named scalars, each already multiplied by its gain and by the batch size.
        num_positives: scalar, the number of anchors assigned to a target.
        overflow: scalar, the number of target rows cut short by the planned pages of candidates, of objects without a
            slot, and for masks of times that a row's positives did not fit into the planned tiles; 0 if the plan fits.
        per_image: for each term by name, `[B]` contributions of the images, differentiable, which sum to the term up
            to rounding. None unless the loss was constructed with `per_image=True`.

    Example:
        >>> import torch
        >>> box, cls = torch.tensor(1.5), torch.tensor(0.5)
        >>> LossOutput(box + cls, {"box": box, "cls": cls}, torch.tensor(10), torch.tensor(0)).total
        tensor(2.)
    """

    total: Tensor
    terms: dict[str, Tensor]
    num_positives: Tensor
    overflow: Tensor
    per_image: dict[str, Tensor] | None = None


class EndToEndOutput(NamedTuple):
    """What the loss of an end-to-end head returns.

    Args:
        total: scalar, differentiable: the sum of `terms`.
        terms: named scalars, both branches combined by their shares, multiplied by gain and batch size.
        items: named scalars to report: the one-to-one branch's terms without its share; for a plain sum, both summed.
        num_positives: scalar, the number of the one-to-one branch's anchors assigned to a target.
        overflow: scalar, as in `LossOutput`, the larger of the two branches' values; 0 if the plan fits.
        per_image: `[B]` for each of the `terms`, as in `LossOutput`; None unless the branches' loss returns it.

    Example:
        >>> import torch
        >>> many, one = torch.tensor(2.0), torch.tensor(4.0)
        >>> box = 0.75 * many + 0.25 * one
        >>> EndToEndOutput(box, {"box": box}, {"box": one}, torch.tensor(1), torch.tensor(0)).total
        tensor(2.5000)
    """

    total: Tensor
    terms: dict[str, Tensor]
    items: dict[str, Tensor]
    num_positives: Tensor
    overflow: Tensor
    per_image: dict[str, Tensor] | None = None
