"""Every part is plain values in a file, and made anew from them."""

import json
from typing import Any

import numpy as np
import pytest
import torch

from compiled_loss import (
    BinaryCrossEntropy,
    DetectionLoss,
    FocalLoss,
    KFIoU,
    KullbackLeibler,
    OneMinus,
    OrientedLoss,
    PoseLoss,
    QualityFocalLoss,
    TaskAligned,
    VarifocalLoss,
    WIoU,
    overlaps,
)
from compiled_loss.assign.centres import Nearest
from compiled_loss.assign.rotated import InRotatedBox
from compiled_loss.exporting.constants import loss_of, plain_loss
from tests.losses.scenes import make_scene

LOSSES = {
    "Inner-SIoU": DetectionLoss(3, box_term=OneMinus(overlaps.InnerIoU(0.8, overlaps.siou))),
    "Inner-MPDIoU": DetectionLoss(3, overlap=overlaps.InnerIoU(1.2, overlaps.MPDIoU((96, 128)))),
    "NWD": DetectionLoss(3, overlap=overlaps.NWD(20.0), classification=FocalLoss(0.3, 1.5, [1.0, 2.0, 0.5])),
    "EIoU": DetectionLoss(3, overlap=overlaps.eiou, classification=BinaryCrossEntropy([1.0, 2, 3], 0.1)),
    "WIoU": DetectionLoss(3, box_term=WIoU(delta=2.5, mean=0.7), classification=QualityFocalLoss(1.5)),
    "GWD": OrientedLoss(3, overlap=overlaps.GWD(2.0), classification=VarifocalLoss(0.6, 1.5)),
    "KFIoU": OrientedLoss(3, overlap=overlaps.kfiou, box_term=KFIoU(1e-3)),
    "KLD": OrientedLoss(3, box_term=KullbackLeibler(2.0, 1e-3)),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_of_further_parts_is_made_anew_from_plain_values(name):
    loss = LOSSES[name]
    scene = make_scene(4, loss, counts=(3, 2))
    other = loss_of(plain_loss(loss))
    wanted = loss.eval()(*scene)
    torch.testing.assert_close(other(*scene), wanted, rtol=0, atol=0)
    standard = type(loss)(3)(*scene)
    assert any(wanted.terms[x] != standard.terms[x] for x in ("box", "cls"))


def test_a_running_mean_travels_as_it_is_and_stays():
    loss = DetectionLoss(3, box_term=WIoU(momentum=0.5))
    scene = make_scene(4, loss, counts=(3, 2))
    loss(*scene)
    other, term = loss_of(plain_loss(loss)), loss.box_term
    assert isinstance(term, WIoU)
    assert isinstance(other.box_term, WIoU)
    other(*scene)
    assert other.box_term.mean == term.mean < 1


def test_numbers_of_numpy_are_plain_values_too():
    strides, sigmas = [np.int64(8), np.int64(16)], np.array([0.1, 0.2])
    options: dict[str, Any] = {"strides": strides, "sigmas": sigmas, "box_gain": np.float32(0.1)}
    count: Any = np.int64(2)
    loss = PoseLoss(count, 2, **options)
    other = loss_of(json.loads(json.dumps(plain_loss(loss))))
    assert (other.num_classes, other.strides, other.gains) == (2, (8, 16), loss.gains)
    torch.testing.assert_close(dict(other.named_buffers()), dict(loss.named_buffers()), rtol=0, atol=0)


@pytest.mark.parametrize("region", [InRotatedBox(), Nearest(4)])
def test_every_region_is_made_anew(region):
    kind = OrientedLoss if isinstance(region, InRotatedBox) else DetectionLoss
    assert loss_of(plain_loss(kind(3, assigner=TaskAligned(region=region)))).region == region


def test_the_assigner_that_a_loss_was_given_later_is_the_one_made_anew():
    loss = DetectionLoss(3, assigner=TaskAligned(top_k=9))
    assert loss_of(plain_loss(loss.with_assigner(TaskAligned(top_k=3)))).assigner == TaskAligned(top_k=3)
    assert loss_of(plain_loss(loss)).assigner == TaskAligned(top_k=9)
