"""Every part is plain values in a file, and made anew from them."""

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
    QualityFocalLoss,
    VarifocalLoss,
    WIoU,
    overlaps,
)
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
