"""What is handed to a loss as a part: a class, a name or another shape in its place is refused by name."""

from collections.abc import Mapping
from functools import partial

import pytest
import torch

from compiled_loss import (
    DetectionLoss,
    DynamicSoftLabel,
    EndToEndLoss,
    FocalLoss,
    InBox,
    OneMinus,
    OrientedLoss,
    Predictions,
    Scheduled,
    SimOTA,
    TargetPlan,
    Targets,
    TaskAligned,
    WIoU,
    overlaps,
    pad_rows,
)
from compiled_loss.exporting.constants import loss_of, plain_loss
from compiled_loss.parts import Extra, Mean, Region, Weighted
from tests.losses.tasks import CLASSES


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"box_term": WIoU}, "box_term: expected a function.*, got the class WIoU"),
        ({"classification": FocalLoss}, "classification: expected a function.*, got the class FocalLoss"),
        ({"overlap": overlaps.NWD}, "overlap: expected a function.*, got the class NWD"),
        ({"overlap": "ciou"}, "overlap: expected a function.*, got 'ciou'"),
    ],
)
def test_a_class_or_a_name_in_place_of_a_part_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        DetectionLoss(3, **options)
    for make in (OneMinus, partial(overlaps.InnerIoU, 0.8)):
        if "overlap" in options:
            with pytest.raises(ValueError, match=message):
                make(options["overlap"])


def outcome(**parts):
    predictions = Predictions(torch.ones(2, 4, 20), torch.zeros(2, 3, 20), ((4, 4), (2, 2)))
    rows = Targets(torch.tensor([0, 1, 1]), torch.tensor([1, 2, 0]), torch.full((3, 4), 0.5))
    return DetectionLoss(3, (8, 16), reg_max=1, **parts)(predictions, rows)


class Own:
    """An assigner whose answer is another's, changed."""

    slots, region = 10, None

    def __init__(self, change):
        self.change = change

    def __call__(self, pairs):
        return self.change(TaskAligned()(pairs))


class Ten:
    slots = 10

    def __call__(self, pairs): ...


class TwoArguments:
    slots, region = 10, None

    def __call__(self, pairs, more): ...


class SlotsAsText(Own):
    slots = "10"  # type: ignore[assignment]


class RegionAsText(Own):
    region = "inside"  # type: ignore[assignment]


class Terms(Extra):
    gains: Mapping[str, float] = {"own": 1.0}

    def __init__(self, value):
        self.value = value

    def __call__(self, positives):
        return self.value


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            {"box_term": lambda predicted, true: 0},
            r"box_term: expected a function of \(predicted, true, strides\), see compiled_loss.parts, "
            r"got <lambda>\(predicted, true\)$",
        ),
        ({"box_term": lambda p, t, *, s: 0}, r"box_term: expected a function of .*, got <lambda>\(p, t, \*, s\)$"),
        (
            {"classification": torch.nn.BCEWithLogitsLoss()},
            r"classification: expected a function of .* got BCEWith.*\(",
        ),
        ({"overlap": lambda boxes: 0}, r"overlap: expected a function of \(boxes1, boxes2\), see compiled_loss.parts"),
        ({"assigner": lambda pairs: 0}, "assigner: .*, see parts.Assigner, got function without slots and region$"),
        ({"assigner": Ten()}, "assigner: .*, see parts.Assigner, got Ten without region$"),
        (
            {"assigner": TwoArguments()},
            r"assigner: expected a function of \(pairs\), .*, got TwoArguments\(pairs, more\)",
        ),
        ({"assigner": SlotsAsText(None)}, "assigner.slots: expected an integer of at least 1, got '10'"),
        ({"assigner": RegionAsText(None)}, "assigner.region: expected a region, .* got str"),
    ],
)
def test_a_part_of_another_signature_is_refused_at_once_with_where_its_own_is_told(parts, message):
    with pytest.raises(ValueError, match="^" + message):
        DetectionLoss(3, **parts)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"assigner": Own(lambda a: None)}, r"Own\(...\): expected an Assignment, see parts.Assigner, got NoneType"),
        ({"assigner": Own(tuple)}, r"Own\(...\): expected an Assignment, see parts.Assigner, got tuple"),
        (
            {"assigner": Own(lambda a: a._replace(anchor=a.anchor[:-1]))},
            r"Own\(...\).anchor: expected shape \[30\], got \(29,\); N \* slots, see parts.Assigner",
        ),
        ({"assigner": Own(lambda a: a._replace(row=a.row.float()))}, r"Own\(...\).row: expected an integer dtype"),
        ({"assigner": Own(lambda a: a._replace(valid=a.score))}, r"Own\(...\).valid: expected torch.bool"),
        ({"assigner": Own(lambda a: a._replace(score=a.valid))}, r"Own\(...\).score: expected a floating-point dtype"),
        ({"box_term": lambda p, t, s: None}, r"box_term\(...\): expected shape \[P\], got NoneType"),
        ({"classification": lambda s, a, n: s}, r"classification\(...\): .* got \(2, 3, 20\); see parts.ClassTerm"),
        ({"classification": lambda s, a, n: None}, r"classification\(...\): expected shape \[\], got NoneType"),
        ({"overlap": lambda a, b: None, "box_term": lambda p, t, s: p[:, 0]}, r"overlap\(...\): .*, got NoneType"),
        ({"overlap": lambda a, b: a, "box_term": lambda p, t, s: p[:, 0]}, r"overlap\(...\): .*; see parts.BoxOverlap"),
        ({"extras": [Terms(None)]}, r"extras\[0\]\(...\): expected a dict of terms by name, .*, got NoneType"),
        ({"extras": [Terms({"own": None})]}, r"term 'own': expected shape \[\], got NoneType"),
        ({"extras": [Terms({"own": torch.zeros(3)})]}, r"term 'own': expected shape \[\], got \(3,\); or Weighted"),
        (
            {"extras": [Terms({"own": Weighted(torch.zeros(30, 2))})]},
            r"term 'own': Weighted.errors: .*\[P\], got \(30, 2\)",
        ),
        ({"extras": [Terms({"own": Mean(torch.zeros(30))})]}, r"term 'own': Mean.errors: .*\[P, K\], got \(30,\)"),
    ],
)
def test_what_a_part_returns_is_refused_by_its_name(parts, message):
    with pytest.raises(ValueError, match="^" + message):
        outcome(**parts)


class Far(Region):
    def reach(self, boxes, strides, grid_sizes):
        return boxes[:, :2]


def test_a_region_that_tells_no_boxes_is_refused():
    with pytest.raises(ValueError, match=r"^region.reach\(...\): expected boxes \[N, 4\] or .*, got \(3, 2\)"):
        outcome(assigner=TaskAligned(region=Far()))


@pytest.mark.parametrize("term", [lambda p, t, s: (p - t).abs().mean(), lambda p, t, s: (p - t).abs()])
def test_a_box_term_that_tells_no_error_of_each_positive_is_refused(term):
    predictions = Predictions(torch.ones(1, 4, 20), torch.zeros(1, 3, 20), ((4, 4), (2, 2)))
    targets = Targets(torch.tensor([0]), torch.tensor([1]), torch.tensor([[0.5, 0.5, 0.5, 0.5]]))
    with pytest.raises(ValueError, match=r"box_term\(...\): expected shape \[P\], got \("):
        DetectionLoss(3, (8, 16), reg_max=1, box_term=term)(predictions, targets)


def test_a_mask_size_is_refused_where_there_are_no_masks():
    predictions = Predictions(torch.ones(1, 4, 20), torch.zeros(1, 3, 20), ((4, 4), (2, 2)))
    with pytest.raises(ValueError, match=r"mask_size: expected None, since there are no masks, got \(4, 4\)"):
        DetectionLoss(3, (8, 16), reg_max=1).detect(predictions, 2, mask_size=(4, 4))


@pytest.mark.parametrize(
    ("value", "kind"), [(TaskAligned, "the class TaskAligned"), ("atss", "str"), (None, "NoneType")]
)
def test_what_is_no_assigner_is_refused(value, kind):
    loss, got = DetectionLoss(CLASSES), f": expected an assigner, such as TaskAligned\\(\\), got {kind}$"
    with pytest.raises(ValueError, match="^assigner" + got):
        loss.with_assigner(value)
    with pytest.raises(ValueError, match="^first" + got):
        Scheduled(value, TaskAligned())
    if value is not None:
        with pytest.raises(ValueError, match="^assigner" + got):
            DetectionLoss(CLASSES, assigner=value)
        with pytest.raises(ValueError, match="^one_to_one" + got):
            EndToEndLoss(loss, one_to_one=value)


@pytest.mark.parametrize("value", [InBox, "inside"])
def test_what_is_no_region_is_refused(value):
    for made in (TaskAligned, SimOTA, DynamicSoftLabel, partial(TargetPlan, (64, 64))):
        with pytest.raises(ValueError, match=r"^region: expected a region, such as "):
            made(region=value)


def test_a_region_of_upright_boxes_refuses_oriented_ones():
    loss = OrientedLoss(CLASSES, assigner=TaskAligned(region=InBox(farthest=5)))
    rows = Targets(torch.tensor([0]), torch.tensor([0]), torch.full((1, 4), 0.5), angles=torch.zeros(1))
    head = Predictions(torch.zeros(1, 64, 84), torch.zeros(1, CLASSES, 84), ((8, 8), (4, 4), (2, 2)))
    with pytest.raises(ValueError, match=r"upright boxes: expected shape \[N, 4\], got \(1, 5\)$"):
        loss(head._replace(angles=torch.zeros(1, 1, 84)), rows)


def test_the_same_region_may_be_said_or_left_out():
    inside = DetectionLoss(CLASSES, assigner=TaskAligned(region=InBox()))
    assert EndToEndLoss(inside, one_to_one=TaskAligned(7, 1)).one.assigner.slots == 1


def test_a_loss_with_another_assigner_tells_of_that_one():
    loss = DetectionLoss(CLASSES, assigner=TaskAligned(4))
    other = loss.with_assigner(SimOTA(3))
    assert (loss.arguments["assigner"], other.arguments["assigner"]) == (TaskAligned(4), SimOTA(3))
    assert loss_of(plain_loss(other)).assigner == SimOTA(3)


def test_rows_that_were_cut_off_are_missed_in_an_eager_call():
    rows = pad_rows(Targets(torch.tensor([0, 1]), torch.tensor([0, 0]), torch.full((2, 4), 0.5)))
    cut = rows._replace(batch_idx=rows.batch_idx[:1], labels=rows.labels[:1], boxes=rows.boxes[:1])
    head = Predictions(torch.zeros(1, 64, 84), torch.zeros(1, CLASSES, 84), ((8, 8), (4, 4), (2, 2)))
    with pytest.raises(ValueError, match=r"^Targets\.batch_idx: expected the 16 rows that the batch was made with"):
        DetectionLoss(CLASSES)(head, cut)
