"""One batch through two criteria: the errors, and whether ties or rounding explain a difference."""

from typing import Any, NamedTuple

from compiled_loss.integrations.ultralytics import Criterion
from compiled_loss.losses.end_to_end import EndToEndLoss
from tests.golden.oracle import Oracle, Outcome, gradients, preds_and_batch
from tests.reference.any_head import reference_loss
from tests.reference.batches import Batch, Raw
from tests.reference.end_to_end import Pair
from tests.reference.parts import ReferenceLoss

TOLERANCE = 1e-5
# The oracle's own distance from float64 beyond which nothing is excused. Its classification item is the largest: with
# logits near -11, as an untrained head gives, it is off by 1e-4.
ROUNDING = 5e-4
# The overlap of rotated boxes has a logarithm that cancels where prediction and truth are close.
ROTATED_ROUNDING = 5e-3


class Verdict(NamedTuple):
    """How one batch came out."""

    name: str
    item_error: float
    gradient_error: float
    differing: int = 0  # positives that only one of the two has
    unexplained: int = 0  # positives in which either differs from its own reference


def ours(criterion: Criterion, batch: Batch, raw: Raw | Pair) -> Outcome:
    """Our criterion's answer, and the positives it was trained on."""
    preds, rows = preds_and_batch(batch, raw)
    vector, items = criterion(preds, rows)
    loss, targets = criterion.loss, criterion.targets(rows)
    losses = (loss.many, loss.one) if isinstance(loss, EndToEndLoss) else (loss,)
    positives = set()
    for branch, (each, predictions) in enumerate(zip(losses, criterion.predictions(preds), strict=True)):
        a = each.assign(predictions, targets)
        slots = zip(*(x[a.valid].tolist() for x in (a.image, a.anchor, a.row)), strict=True)
        positives |= {(image + branch * batch.batch_size, anchor, row) for image, anchor, row in slots}
    return Outcome(vector.detach(), items, gradients(vector, preds), positives)


def reference(batch: Batch, raw: Raw | Pair, oracle: Oracle, *, oracle_ties: bool) -> ReferenceLoss:
    """The float64 loops' answer: the oracle's, or ours, whose masks are learnt by positives of alignment 0 too."""
    head = oracle.head
    zeros: dict[str, Any] = {"keep_zeros": True} if head.masks else {}
    return reference_loss(
        batch,
        raw,
        class_weights=list(head.class_weights) if head.class_weights else None,
        mask_overlap=head.mask_overlap,
        flow=oracle.flow,
        shares=oracle.shares if head.end_to_end else None,
        oracle_ties=oracle_ties,
        **zeros,
    )


def errors(got: Outcome, expected: Outcome | ReferenceLoss, batch_size: int) -> tuple[float, float]:
    """Largest relative error of an item, and of a gradient entry relative to its tensor's largest."""
    if isinstance(expected, Outcome):
        right = {"items": expected.terms(batch_size), "vector": expected.weighted()}
    else:
        right = {"items": expected.items or expected.terms, "vector": expected.terms}
    found = {"items": got.terms(batch_size), "vector": got.weighted()}
    item = max(
        abs(x - right[kind][name]) / max(abs(right[kind][name]), 1e-3)
        for kind, terms in found.items()
        for name, x in terms.items()
    )
    gradient = max(
        float((x - expected.gradients[name]).abs().max() / expected.gradients[name].abs().max().clamp(min=1e-8))
        for name, x in got.gradients.items()
    )
    return item, gradient


def judge(batch: Batch, raw: Raw | Pair, oracle: Oracle, theirs: Outcome, mine: Outcome | None) -> Verdict:
    """Compare the two with each other and, unless they are equal, each with its reference.

    `equal`: every item within 1e-5 relative, every gradient within 1e-5 of the tensor's largest entry, same positives.
    `ties`: other positives, in anchors of zero or equal alignment alone: the float64 reference gives the oracle's
    numbers when it breaks ties as a dense `torch.topk` does, and ours when the lowest anchor wins.
    `float32`: same positives, and ours is no farther from the reference than twice the oracle's distance.
    `FAILED`: anything else.

    Without ours the oracle is compared with the reference that has its order of ties.
    """
    allowed = ROTATED_ROUNDING if oracle.head.oriented else ROUNDING
    if mine is None:
        dense = reference(batch, raw, oracle, oracle_ties=True)
        found = errors(theirs, dense, batch.batch_size)
        differing = len(theirs.positives ^ {p[:3] for p in dense.positives})
        close = max(found) <= (allowed if differing == 0 else 0)
        name = "equal" if max(found) <= TOLERANCE and not differing else "float32" if close else "FAILED"
        return Verdict(name, *found, differing, differing)
    found = errors(mine, theirs, batch.batch_size)
    differing = len(mine.positives ^ theirs.positives)
    if max(found) <= TOLERANCE and not differing:
        return Verdict("equal", *found)
    dense, lowest = (reference(batch, raw, oracle, oracle_ties=ties) for ties in (True, False))
    unexplained = len(theirs.positives ^ {p[:3] for p in dense.positives})
    unexplained += len(mine.positives ^ {p[:3] for p in lowest.positives})
    rounding = errors(theirs, dense, batch.batch_size)
    found = errors(mine, lowest, batch.batch_size)
    close = all(e <= max(TOLERANCE, 2 * limit) for e, limit in zip(found, rounding, strict=True))
    name = "ties" if differing else "float32"
    return Verdict(name if close and max(rounding) <= allowed else "FAILED", *found, differing, unexplained)
