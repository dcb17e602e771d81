"""The detection loss.

Letters: B images, N rows, A anchors, C classes, R distance bins, P positive slots.
"""

from collections.abc import Sequence

from torch import Tensor

from compiled_loss.assign.parts import Assigner
from compiled_loss.geometry.boxes import ciou
from compiled_loss.losses.boxes import UprightBoxes
from compiled_loss.losses.comparing import CompareBoxes, OneMinus
from compiled_loss.losses.dense import DenseLoss
from compiled_loss.losses.parts import BoxOverlap, BoxTerm, ClassTerm, Extra


class DetectionLoss(DenseLoss):
    """Task-aligned loss for the boxes and classes of a dense, anchor-free head, as one graph.

    With t the target scores of the positives and `S = max(1, sum t)`:
    `cls = sum BCE(score, one-hot t) / S`, `box = sum t (1 - CIoU) / S`, and over the distance bins
    `dfl = sum t mean over sides of cross-entropy / S` (`R = 1`: `l1`, the distance error as a fraction of the
    image). Each term is returned multiplied by its gain and by B. Computation is in float32 or wider.

    Args:
        num_classes: C.
        strides: pixels per grid unit of each level, finest level first.
        reg_max: distance bins R per side.
        assigner: matches anchors to target rows, a `parts.Assigner`; None means `TaskAligned()`.
        overlap: overlap of predicted and true boxes `[..., 4]`, xyxy, for the assigner and the default box term.
        box_term: error of the predicted boxes, a `parts.BoxTerm`; None means `OneMinus(overlap)`.
        classification: error of the class logits, a `parts.ClassTerm`; None means `BinaryCrossEntropy()`.
        box_gain: factor of the box term.
        cls_gain: factor of the classification term.
        dfl_gain: factor of the distance term.
        distributed: average the normaliser of the sums over the ranks of the default process group.
        check_values: check the values of every batch's rows, as `Targets.validate` does, and warn once if a plan is too
            small. This happens only in eager calls with rows on the host, never in traced code or on a device. The
            attribute of the same name switches it on and off.
        per_image: also return what each image contributes to every term, as `LossOutput.per_image`.
        extras: terms of your own in addition to the task's, each a `parts.Extra`.

    Raises:
        ValueError: if a size is not positive, a number is negative or not finite, or an argument has the wrong rank,
            size, dtype or device.

    Source: TOOD (arXiv 2108.07755), CIoU (arXiv 1911.08287), Generalized Focal Loss (arXiv 2006.04388).

    Example:
        >>> import torch
        >>> from compiled_loss import Predictions, Targets
        >>> criterion = DetectionLoss(num_classes=2, strides=(8, 16))
        >>> predictions = Predictions(torch.zeros(1, 64, 20), torch.zeros(1, 2, 20), ((4, 4), (2, 2)))
        >>> targets = Targets(torch.tensor([0]), torch.tensor([1]), torch.tensor([[0.5, 0.5, 0.5, 0.5]]))
        >>> out = criterion(predictions, targets)
        >>> list(out.terms), out.num_positives
        (['box', 'cls', 'dfl'], tensor(4))
    """

    task = "detect"

    def __init__(
        self,
        num_classes: int,
        strides: Sequence[int] | Tensor = (8, 16, 32),
        *,
        reg_max: int = 16,
        assigner: Assigner | None = None,
        overlap: BoxOverlap = ciou,
        box_term: BoxTerm | None = None,
        classification: ClassTerm | None = None,
        box_gain: float = 7.5,
        cls_gain: float = 0.5,
        dfl_gain: float = 1.5,
        distributed: bool = False,
        check_values: bool = True,
        per_image: bool = False,
        extras: Sequence[Extra] = (),
    ) -> None:
        super().__init__(
            num_classes,
            strides,
            reg_max,
            boxes=UprightBoxes(),
            assigner=assigner,
            pairing=CompareBoxes(overlap),
            box_term=box_term or OneMinus(overlap),
            classification=classification,
            extras=extras,
            gains={"box": box_gain, "cls": cls_gain, "dfl": dfl_gain},
            distributed=distributed,
            check_values=check_values,
            per_image=per_image,
            arguments=locals(),
        )
