"""A loss written from what `compiled_loss.parts` says: a box term, a class term, an assigner and an extra."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from compiled_loss import (
    Assignment,
    DetectionLoss,
    EndToEndLoss,
    NearCentre,
    PaddedTargets,
    Pairs,
    PoseLoss,
    Predictions,
    TargetPlan,
    Targets,
    TaskAligned,
    overlaps,
)
from compiled_loss.parts import Extra, Field, Map, Mean, Positives, Weighted, select

GRIDS, SIZE = ((8, 12), (4, 6), (2, 3)), (64, 96)
ANCHORS = sum(h * w for h, w in GRIDS)


def corners(predicted: Tensor, true: Tensor, strides: Tensor) -> Tensor:
    """A box term: the mean distance of the sides, in strides."""
    return (predicted - true).abs().mean(1)


def squares(scores: Tensor, assignment: Assignment, labels: Tensor) -> Tensor:
    """A class term: squared differences of probabilities, positives corrected."""
    image, anchor, row, valid, score, *_ = assignment
    found = scores.sigmoid()
    own = found[image, torch.where(valid, labels[row], 0), anchor]
    return found.square().sum() + torch.where(valid, (own - score).square() - own.square(), 0.0).sum()


@dataclass(frozen=True)
class NearestOfThree:
    """An assigner: of the anchors near a row's centre the three with the highest class score."""

    slots: int = 3
    region: NearCentre = field(default_factory=NearCentre)

    def __call__(self, pairs: Pairs) -> Assignment:
        """The positives."""
        logits = pairs.logits()
        probability = torch.where(pairs.usable(logits), logits.sigmoid(), 0.0)
        held = select(pairs, merit=probability, contest=probability, k=self.slots)
        return held.assignment(pairs, score=held.valid.float())


class Seen(Extra):
    """An extra: whether an object is in full view, and how far away it is."""

    maps = (Map("attributes", 2, "logit of being in full view; logarithm of the depth in metres"),)
    fields = (Field("attributes", (2,), "float32", "1 in full view, else 0; depth, metres"),)
    gains: Mapping[str, float] = {"view": 0.5, "depth": 2.0}

    def __call__(self, positives: Positives):
        """The terms."""
        predictions, targets = positives.view.predictions, positives.view.scene.targets
        assert predictions.attributes is not None
        assert targets.attributes is not None
        logit, depth = positives.read(predictions.attributes).unbind(1)
        view, metres = positives.of_rows(targets.attributes).unbind(1)
        error = F.softplus(logit) - view * logit
        return {"view": Weighted(error), "depth": Mean((depth - metres.clamp(min=0.1).log()).abs()[:, None])}


def own_loss(**options) -> DetectionLoss:
    parts = {"assigner": NearestOfThree(), "box_term": corners, "classification": squares, "extras": [Seen()]}
    return DetectionLoss(2, overlap=overlaps.iou, **(parts | options))


def batch(seed: int, rows: int = 5, images: int = 2) -> tuple[Predictions, Targets]:
    torch.manual_seed(seed)
    maps = [torch.randn(images, n, ANCHORS).requires_grad_() for n in (64, 2, 2)]
    attributes = torch.stack([torch.randint(0, 2, (rows,)).float(), torch.rand(rows) * 9 + 1], 1)
    boxes = torch.cat([torch.rand(rows, 2), torch.rand(rows, 2) * 0.4 + 0.1], 1)
    labels = torch.randint(0, 2, (rows,))
    targets = Targets(torch.arange(rows) % images, labels, boxes, attributes=attributes)
    return Predictions(maps[0], maps[1], GRIDS, attributes=maps[2]), targets


def test_the_terms_are_those_of_loops_over_the_positives():
    criterion, (predictions, targets) = own_loss(), batch(0)
    out, found = criterion(predictions, targets), criterion.assign(predictions, targets)
    slots = list(zip(*(x[found.valid].tolist() for x in (found.image, found.anchor, found.row)), strict=True))
    assert out.num_positives == len(slots) > 5
    strides = torch.tensor([s for (h, w), s in zip(GRIDS, (8, 16, 32), strict=True) for _ in range(h * w)])
    points = torch.cat([torch.cartesian_prod(torch.arange(h) + 0.5, torch.arange(w) + 0.5).flip(1) for h, w in GRIDS])
    box, view, depth = [], [], []
    dense = torch.zeros(2, 2, ANCHORS, dtype=torch.float64)
    for image, anchor, row in slots:
        dense[image, targets.labels[row], anchor] = 1
        sides = predictions.boxes[image, :, anchor].double().view(4, 16).softmax(1) @ torch.arange(16).double()
        cx, cy, w, h = (targets.boxes[row].double() * torch.tensor([96, 64, 96, 64])).tolist()
        true = torch.tensor([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]).double() / strides[anchor]
        guess = torch.cat([points[anchor] - sides[:2], points[anchor] + sides[2:]])
        box.append((guess - true).abs().mean())
        logit, far = predictions.attributes[:, :, anchor][image].double()  # type: ignore[index]
        seen, metres = targets.attributes[row].double()  # type: ignore[index]
        view.append(F.binary_cross_entropy_with_logits(logit, seen))
        depth.append((far - metres.log()).abs())
    squared = (predictions.scores.double().sigmoid() - dense).square().sum()
    wanted = {
        "box": 7.5 * torch.stack(box).mean() * 2,
        "cls": 0.5 * squared / len(slots) * 2,
        "view": 0.5 * torch.stack(view).mean() * 2,
        "depth": 2.0 * torch.stack(depth).mean() * 2,
    }
    assert list(out.terms) == ["box", "cls", "dfl", "view", "depth"]
    for name, value in wanted.items():
        torch.testing.assert_close(out.terms[name].double(), value, rtol=1e-5, atol=1e-6)


def test_it_is_one_graph_whatever_the_batch_holds(graph_audit):
    criterion = own_loss()
    plan = TargetPlan(SIZE, region=criterion.region)

    def compute(boxes: Tensor, scores: Tensor, attributes: Tensor, targets: Targets) -> Tensor:
        return criterion(Predictions(boxes, scores, GRIDS, attributes=attributes), targets).total

    def batches():
        for rows in (3, 40, 0, 17):
            predictions, targets = batch(rows, rows)
            maps = predictions.boxes, predictions.scores, predictions.attributes
            yield *maps, plan.apply(targets, 2)

    graph_audit(compute, batches(), backend="aot_eager", warmup=2)


def test_rows_keep_their_attributes_in_every_form_of_targets():
    criterion = own_loss(classification=None)
    predictions, targets = batch(1, 7)
    plain = criterion(predictions, targets)
    planned = TargetPlan(SIZE, region=criterion.region).apply(targets, 2)
    padded = TargetPlan(SIZE, region=criterion.region).apply(targets, 2, padded=True)
    for form in (planned, padded, PaddedTargets.from_rows(targets, 2)):
        torch.testing.assert_close(criterion(predictions, form).terms, plain.terms)
    weights = torch.tensor([1.0, 0, 2, 1, 1, 1, 1])
    each = own_loss(classification=None, per_image=True)(predictions, targets._replace(weights=weights))
    assert each.per_image is not None
    for name, term in each.terms.items():
        torch.testing.assert_close(each.per_image[name].sum(), term)
    assert each.terms["view"] != plain.terms["view"]


def test_an_extra_goes_into_every_loss_and_both_branches():
    predictions, targets = batch(2)
    pose = PoseLoss(2, 3, extras=[Seen()])
    keypoints = torch.randn(2, 9, ANCHORS)
    out = pose(predictions._replace(keypoints=keypoints), targets._replace(keypoints=torch.rand(5, 3, 3)))
    assert list(out.terms) == ["box", "pose", "kobj", "cls", "dfl", "view", "depth"]
    both = EndToEndLoss(DetectionLoss(2, extras=[Seen()]))(predictions, predictions, targets)
    assert both.terms["view"] > 0
    alone, more = DetectionLoss(2), DetectionLoss(2, extras=[Seen()])
    assert alone(predictions, targets).terms["box"] == more(predictions, targets).terms["box"]


def test_broken_attributes_are_refused_where_values_are_seen_and_match_nothing_elsewhere():
    criterion, (predictions, targets) = own_loss(), batch(3)
    assert targets.attributes is not None
    broken = targets._replace(attributes=torch.where(targets.labels[:, None] == 1, torch.nan, targets.attributes))
    with pytest.raises(ValueError, match=r"Targets.attributes: expected finite numbers, got .*bad rows: "):
        criterion(predictions, broken)
    criterion.check_values = False
    found = criterion.assign(predictions, broken)
    assert set(found.row[found.valid].tolist()) == set(range(5)) - set((targets.labels == 1).nonzero()[:, 0].tolist())
    assert predictions.attributes is not None
    lost = predictions.attributes.detach().clone()
    lost[0] = torch.inf
    found = criterion.assign(predictions._replace(attributes=lost), targets)
    assert set(found.image[found.valid].tolist()) == {1}


class Misnamed(Seen):
    gains: Mapping[str, float] = {"view": 0.5}


class Taken(Seen):
    gains: Mapping[str, float] = {"box": 0.5}


class Negative(Seen):
    gains: Mapping[str, float] = {"view": -1.0, "depth": 1.0}


def test_what_does_not_fit_is_named():
    predictions, targets = batch(4)
    for extra, message in (
        (Seen, r"extras\[0\]: expected an object whose class derives from parts.Extra, got the class Seen"),
        (corners, r"extras\[0\]: expected an object whose class derives from parts.Extra, got function"),
        (Taken(), r"extras\[0\].gains: expected a name not among \['box', 'cls', 'dfl'\], got box"),
        (Negative(), r"extras\[0\].gains\['view'\]: expected a finite number of 0 or more, got -1.0"),
    ):
        with pytest.raises(ValueError, match=message):
            DetectionLoss(2, extras=[extra])  # type: ignore[list-item]
    criterion = own_loss()
    for given, rows, message in (
        (predictions._replace(attributes=None), targets, "predictions.attributes: expected a tensor, got None"),
        (predictions, targets._replace(attributes=None), "targets.attributes: expected a tensor, got None"),
        (predictions, targets._replace(attributes=torch.ones(5, 3)), r"targets.attributes: expected shape \[5, 2\]"),
        (
            predictions._replace(attributes=torch.ones(2, 3, ANCHORS)),
            targets,
            r"predictions.attributes: expected shape",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            criterion(given, rows)
    with pytest.raises(ValueError, match=r"extras: expected only terms that their gains name, got .*'depth'"):
        own_loss(extras=[Misnamed()])(predictions, targets)


def test_an_assigner_of_ones_own_may_be_changed_for_the_other_branch():
    own = NearestOfThree()
    pair = EndToEndLoss(DetectionLoss(2, assigner=own), one_to_one=replace(own, slots=1))
    predictions, targets = batch(5)
    assert 0 < pair(predictions, predictions, targets).num_positives <= 5
    with pytest.raises(ValueError, match="one_to_one: expected the same candidates as the loss's assigner"):
        EndToEndLoss(DetectionLoss(2, assigner=own), one_to_one=TaskAligned(1))
