"""The values that travel between the parts: fixed-field tuples, so that compile and export see through them.

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
        angles: `[B, 1, A]` turn of an oriented box, radians.
        keypoint_sigmas: `[B, 2*K, A]` raw spread of each keypoint, channel `keypoint*2 + (x, y)`.
        coefficients: `[B, nm, A]` mask coefficients, one for each prototype.
        prototypes: `[B, nm, H_m, W_m]` mask prototypes of the whole image.
        semantic: `[B, C, H_s, W_s]` class logits of every pixel.
        attributes: `[B, D, A]` further channels, for terms of your own (`extras=`); their meaning is yours.

    Fields that a task does not use are None.

    What NaN and infinite numbers in a map do, eager and compiled; no other image's positives or gradients are touched:

    - `boxes`, `keypoints`, `keypoint_sigmas`, `angles`, `coefficients`, `attributes`: their anchor is never positive.
      The loss stays finite, and `num_positives` falls.
    - `scores`: their anchor is never positive of a row of that class, and as every score counts, the cls term and the
      total are not finite.
    - `prototypes`: the seg term is not finite, where a positive's box holds such a pixel. `semantic`: the sem term.
    - -inf in `scores` and in the bins of `boxes` is a number like others: a class or a distance of probability 0.

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

    Every positive anchor stands in exactly one slot. Empty slots have `valid` False, `score` 0 and
    indices that are safe to gather with.

    Args:
        image: `[P]` image of the slot.
        anchor: `[P]` anchor index within the image.
        row: `[P]` target row that the anchor was given to.
        valid: `[P]` bool, True where the slot holds a positive.
        score: `[P]` float, target score of the positive; 0 in empty slots.
        overflow: scalar, target rows with more candidate anchors than the planned pages hold, objects that found no
            slot, and for masks how often a row's positives found no room in the planned tiles.
        weight: `[P]` weight of the positive's terms, where that is not its score: their sum then is what terms are
            divided by; 0 in empty slots. None: the score.

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
        """`[P]` weight of each slot's terms."""
        return self.score if self.weight is None else self.weight


class DenseAssignment(NamedTuple):
    """The same assignment, one entry per anchor.

    Args:
        labels: `[B, A]` class of the anchor; `C` on background.
        boxes: `[B, A, 4]` target box, in the unit that was given (`[B, A, 5]` with an angle); 0 on background.
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
    """What a head says of every anchor, in float32 pixels and probabilities.

    An anchor with a broken number (NaN or infinite; as a class logit -inf is probability 0) has 0 in every field.

    Args:
        boxes: `[B, A, 4]` xyxy, not cut at the image's border; of oriented boxes `[B, A, 5]` (cx, cy, w, h, angle).
        scores: `[B, A, C]` probability of each class.
        keypoints: `[B, A, K, D]` x, y and, with `D = 3`, the probability to be visible.
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
    """The k best detections of every image, best first; of one image, n of them, without the first dimension.

    Where an image has fewer sound anchors than k, the rest is padding: score 0, and 0 in every field.

    Args:
        boxes: `[B, k, 4]` xyxy, pixels; of oriented boxes `[B, k, 5]` (cx, cy, w, h, angle).
        scores: `[B, k]` probability of the class.
        labels: `[B, k]` class.
        anchors: `[B, k]` anchor that each comes from, to read further maps of the head at.
        keypoints: `[B, k, K, D]` x, y and, with `D = 3`, the probability to be visible.
        masks: `[B, k, H, W]` probability of every pixel; 0 outside of the box.

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
        terms: named scalars, each already times its gain and times the batch size.
        num_positives: scalar, anchors that were given to a target.
        overflow: scalar, target rows cut short by the planned pages of candidates, objects that found no slot, and for
            masks how often a row's positives found no room in the planned tiles; 0 when the plan fits.
        per_image: `[B]` of each term by name, what every image adds to it, differentiable; their sums are the terms,
            to rounding. None unless the loss was made with `per_image=True`.

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
        terms: named scalars of both branches together, each in its share, times its gain and the batch size.
        items: named scalars to report: the terms of the one-to-one branch in full; under a plain sum those of both.
        num_positives: scalar, anchors of the one-to-one branch that were given to a target.
        overflow: scalar, as in `LossOutput`, of the branch where it is larger; 0 when the plan fits.
        per_image: `[B]` of each of the `terms`, as in `LossOutput`; None unless the branches' loss tells it.

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
