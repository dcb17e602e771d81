"""What is handed to a loss as a part: a class, a name or another shape in its place is refused by name."""

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


@pytest.mark.parametrize("term", [lambda p, t, s: (p - t).abs().mean(), lambda p, t, s: (p - t).abs()])
def test_a_box_term_that_tells_no_error_of_each_positive_is_refused(term):
    predictions = Predictions(torch.ones(1, 4, 20), torch.zeros(1, 3, 20), ((4, 4), (2, 2)))
    targets = Targets(torch.tensor([0]), torch.tensor([1]), torch.tensor([[0.5, 0.5, 0.5, 0.5]]))
    with pytest.raises(ValueError, match=r"box_term\(...\): expected shape \[P\], got \("):
        DetectionLoss(3, (8, 16), 1, box_term=term)(predictions, targets)


def test_a_mask_size_is_refused_where_there_are_no_masks():
    predictions = Predictions(torch.ones(1, 4, 20), torch.zeros(1, 3, 20), ((4, 4), (2, 2)))
    with pytest.raises(ValueError, match=r"mask_size: expected None, since there are no masks, got \(4, 4\)"):
        DetectionLoss(3, (8, 16), 1).detect(predictions, 2, mask_size=(4, 4))


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
