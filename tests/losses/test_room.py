"""A plan that does not fit the loss or the images: said once in eager calls, never asked for elsewhere."""

import re
import warnings

import pytest
import torch

from compiled_loss import (
    ATSS,
    DetectionLoss,
    EndToEndLoss,
    NearCentre,
    OrientedLoss,
    Predictions,
    SegmentationLoss,
    SimOTA,
    TargetPlan,
    Targets,
)
from compiled_loss.audit import audit
from compiled_loss.audit.run import STAGES
from compiled_loss.parts import Extra

STRIDES = (8, 16, 32)


def head(side: int, images: int = 2) -> Predictions:
    torch.manual_seed(1)
    grids = tuple((side // s, side // s) for s in STRIDES)
    anchors = sum(h * w for h, w in grids)
    return Predictions(torch.randn(images, 64, anchors), torch.randn(images, 3, anchors), grids)


def rows(count: int, side: float) -> Targets:
    torch.manual_seed(2)
    centres = 0.2 + 0.6 * torch.rand(count, 2)
    return Targets(
        torch.arange(count) % 2, torch.arange(count) % 3, torch.cat([centres, torch.full_like(centres, side)], 1)
    )


def needed(loss: DetectionLoss, planned: Targets, side: int) -> int:
    """Pages that hold every row's candidates, counted from an unplanned batch."""
    candidates = loss.place(head(side), planned._replace(pages=None)).candidates
    return candidates.layout.group.shape[0]


def test_a_plan_for_smaller_images_is_said_with_both_numbers():
    loss, planned = DetectionLoss(3), TargetPlan((128, 128)).apply(rows(12, 0.3))
    right = f"planned with {len(planned.pages)} pages"  # type: ignore[arg-type]
    with pytest.warns(UserWarning, match=right) as told:
        out = loss(head(256), planned)
    text = str(told[0].message)
    lost, most = map(int, re.search(r"(\d+) objects lose .* need up to (\d+) at 256x256", text).groups())  # type: ignore[union-attr]
    assert lost == out.overflow > 0
    assert most >= needed(loss, planned, 256) > len(planned.pages)  # type: ignore[arg-type]
    assert "criterion.plan((256, 256))" in text
    loss(head(256), planned)  # once
    fitting = loss.plan((256, 256)).apply(rows(12, 0.3))
    assert DetectionLoss(3)(head(256), fitting).overflow == 0


@pytest.mark.parametrize("assigner", [SimOTA(), ATSS()], ids=["SimOTA", "ATSS"])
def test_a_plan_for_another_region_is_said_with_that_of_the_loss(assigner):
    loss, tiny = DetectionLoss(3, assigner=assigner), rows(400, 0.002)  # one page each inside, and a second about it
    planned = TargetPlan((128, 128)).apply(tiny)
    planned = planned._replace(pages=len(planned.pages) // 2)  # type: ignore[arg-type]
    with pytest.warns(UserWarning, match=re.escape(str(loss.region))):
        assert loss(head(128), planned).overflow > 0
    assert loss(head(128), loss.plan((128, 128)).apply(tiny)).overflow == 0


def test_a_region_wider_than_the_boxes_needs_the_plan_of_its_loss():
    wide = SimOTA(region=NearCentre(radius=7.0))
    loss, objects = DetectionLoss(3, assigner=wide), rows(40, 0.02)
    with pytest.warns(UserWarning, match="lose candidate anchors"):
        assert loss(head(128), TargetPlan((128, 128)).apply(objects)).overflow > 0
    assert loss(head(128), loss.plan((128, 128)).apply(objects)).overflow == 0


def test_nothing_is_said_twice_nor_where_it_is_switched_off_nor_in_a_graph():
    planned = TargetPlan((128, 128)).apply(rows(12, 0.3))
    assert DetectionLoss(3, check_values=False)(head(256), planned).overflow > 0
    loss = DetectionLoss(3)
    compiled = torch.compile(loss, backend="eager", fullgraph=True)
    assert compiled(head(256), planned).overflow > 0
    pair = EndToEndLoss(DetectionLoss(3))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for _ in range(2):
            loss(head(256), planned)
            loss.with_assigner(loss.assigner)(head(256), planned)
            pair(head(256), head(256), planned)
    assert len(told) == 2


class Counts(Extra):
    def overflow(self, view, assignment, slots):
        return 2

    def __call__(self, positives):
        return {}


def test_what_an_extra_term_counts_is_said_as_its_own():
    with pytest.warns(UserWarning, match="^DetectionLoss: an extra term reports an overflow of 2. What"):
        assert DetectionLoss(3, extras=[Counts()])(head(128), rows(3, 0.3)).overflow == 2


def test_an_eager_call_on_a_device_reads_nothing():
    loss, planned = DetectionLoss(3), TargetPlan((128, 128)).apply(rows(12, 0.3))
    batches = [(head(256), planned)] * 2
    others = [name for name in STAGES if name not in ("eager", "device")]
    with pytest.warns(UserWarning, match="lose candidate anchors"):  # of the run on the host
        report = audit(lambda *batch: loss(*batch).total, batches, backward=False, skip=others)
    report.raise_if_failed()


def test_a_loss_plans_for_its_strides_classes_region_and_data():
    loss = OrientedLoss(5, strides=(4, 8))
    assert loss.plan((64, 96)) == TargetPlan((64, 96), (4, 8), num_classes=5, region=loss.region)
    assert EndToEndLoss(loss).plan((64, 96), power_of_two=True).power_of_two
    data = [rows(n, 0.2)._replace(batch_idx=torch.zeros(n).long()) for n in (3, 9, 20)]
    detection = DetectionLoss(3, assigner=ATSS())
    wanted = TargetPlan.from_dataset(
        data, batch_size=2, image_size=(64, 64), margin=0.5, num_classes=3, region=detection.region
    )
    assert EndToEndLoss(detection, one_to_one=ATSS(9)).plan((64, 64), data, batch_size=2, margin=0.5) == wanted
    masked = data[0]._replace(masks=torch.ones(3, 32, 32).bool())
    assert SegmentationLoss(3).plan((64, 64), [masked], batch_size=1).mask_tiles


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            {"dataset": [rows(1, 0.5)]},
            "batch_size: expected the number of images in a batch, to go with the dataset, got None",
        ),
        ({"batch_size": 2}, "batch_size: expected a dataset with it, got 2"),
        ({"margin": 0.5}, "margin: expected a dataset with it, got 0.5"),
        ({"image_size": 640}, r"image_size: expected \(height, width\), multiples of the finest stride 8, got 640"),
        ({"power_of_two": 1}, "power_of_two: expected True or False, got 1"),
    ],
)
def test_what_a_plan_cannot_be_made_of_is_named(arguments, expected):
    with pytest.raises(ValueError, match=expected):
        DetectionLoss(3).plan(**{"image_size": (64, 64), **arguments})
