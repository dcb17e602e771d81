"""Every class term with every overlap and box term: finite, learnt from, and the same compiled."""

import copy
from typing import Any, NamedTuple

import pytest
import torch

from compiled_loss import (
    Assignment,
    BinaryCrossEntropy,
    DetectionLoss,
    FocalLoss,
    KFIoU,
    KullbackLeibler,
    OneMinus,
    OrientedLoss,
    Pairs,
    QualityFocalLoss,
    TaskAligned,
    VarifocalLoss,
    WIoU,
)
from compiled_loss import overlaps as o
from compiled_loss.losses.parts import BoxTerm, ClassTerm
from tests.losses.scenes import Scene, make_scene, outcome

CLASS_TERMS: dict[str, ClassTerm] = {
    "BCE": BinaryCrossEntropy(),
    "smoothed BCE": BinaryCrossEntropy(label_smoothing=0.1),
    "focal": FocalLoss(),
    "quality focal": QualityFocalLoss(),
    "varifocal, weighted": VarifocalLoss(class_weights=[0.5, 1.0, 2.0]),
}
UPRIGHT: dict[str, BoxTerm] = {
    "GIoU": OneMinus(o.giou),
    "EIoU": OneMinus(o.eiou),
    "SIoU": OneMinus(o.siou),
    "Inner-CIoU": OneMinus(o.InnerIoU(0.8, o.ciou)),
    "MPDIoU": OneMinus(o.MPDIoU((64, 96))),
    "Inner-MPDIoU": OneMinus(o.InnerIoU(1.2, o.MPDIoU((64, 96)))),
    "NWD": OneMinus(o.NWD()),
    "WIoU v1": WIoU(version=1),
    "WIoU v3": WIoU(),
}
ORIENTED: dict[str, BoxTerm] = {
    "ProbIoU": OneMinus(o.probiou),
    "KFIoU": KFIoU(),
    "GWD": OneMinus(o.GWD()),
    "KLD": KullbackLeibler(),
}
# The assigner compares by the overlap of the box term where it has one.
BOX_TERMS = [(DetectionLoss, *x) for x in UPRIGHT.items()] + [(OrientedLoss, *x) for x in ORIENTED.items()]
IDS = [name for _, name, _ in BOX_TERMS]


class Fixed(NamedTuple):
    """The assigner that always says the same."""

    found: Assignment
    slots: int
    region: None = None

    def __call__(self, pairs: Pairs) -> Assignment:
        return self.found


def make(kind: type[DetectionLoss] | type[OrientedLoss], box: BoxTerm, classes: ClassTerm):
    options: dict[str, Any] = {"overlap": box.overlap} if isinstance(box, OneMinus) else {}
    parts = {"box_term": copy.deepcopy(box), "classification": classes}
    return kind(3, (8, 16), reg_max=4, assigner=TaskAligned(top_k=3), **parts, **options)


def scene_for(criterion: DetectionLoss | OrientedLoss) -> Scene:
    return make_scene(5, criterion, counts=(2, 3), size=(64, 96), layout="spread")


@pytest.mark.parametrize(("kind", "_", "box"), BOX_TERMS, ids=IDS)
@pytest.mark.parametrize("classes", CLASS_TERMS.values(), ids=CLASS_TERMS)
def test_all_terms_are_finite_and_fall_under_gradient_descent(kind, _, box, classes):
    criterion = make(kind, box, classes)
    scene = scene_for(criterion)
    criterion = criterion.with_assigner(Fixed(criterion.assign(*scene), 3))
    out, gradients = outcome(criterion, scene)
    assert out.num_positives > 0
    assert all(x > 0 for x in out.terms.values())
    assert all(x.isfinite().all() and x.any() for x in gradients)
    optimizer = torch.optim.SGD(scene.leaves, lr=0.02)
    for _ in range(8):
        optimizer.zero_grad()
        criterion(*scene).total.backward()
        optimizer.step()
    later = criterion(*scene)
    assert later.total < out.total
    assert later.terms["box"] < out.terms["box"]
    assert later.terms["cls"] < out.terms["cls"]


# A compile takes long; the parts alone are compiled in `tests/terms` and `tests/geometry`, and losses in the contract.
@pytest.mark.parametrize(
    ("kind", "name", "box"),
    [
        pytest.param(*x, id=x[1], marks=[pytest.mark.thorough] * (x[1] not in ("WIoU v3", "GWD", "Inner-MPDIoU")))
        for x in BOX_TERMS
    ],
)
def test_compiled_each_says_what_it_says_eagerly(kind, name, box):
    classes = list(CLASS_TERMS.values())[IDS.index(name) % len(CLASS_TERMS)]
    criterion = make(kind, box, classes)
    scene = scene_for(criterion)
    eager = copy.deepcopy(criterion)  # with a running mean of its own
    out, gradients = outcome(torch.compile(criterion, fullgraph=True, backend="aot_eager"), scene)
    wanted, expected = outcome(eager, scene)
    torch.testing.assert_close(out, wanted, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradients, expected, rtol=1e-4, atol=1e-6)
    assert out.num_positives > 0
