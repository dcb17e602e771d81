"""Every assigner x class term x overlap that make sense together: no read from the device, and numbers to learn from.

One graph and export are asked of a rotation of them, beside the parts alone (`tests/contract/test_contract.py`).
"""

import pytest
import torch

from tests.contract.cases import LossOfTensors, loss_case
from tests.contract.checks import audit_waits, batch_of
from tests.contract.product import ASSIGNERS, BOX_TERMS, CLASS_TERMS, Parts, loss_of, product, rotated

GROUPS = [(assigner, box) for box in BOX_TERMS for assigner in ASSIGNERS]


def losses_of(assigner: str, box: str) -> dict[str, LossOfTensors]:
    """One for each class term, if they make sense."""
    found = {}
    for parts in product():
        if (parts.assigner, parts.box) == (assigner, box):
            function = loss_case(loss_of(parts), planned=True).function
            assert isinstance(function, LossOfTensors)
            found[parts.classes] = function
    return found


@pytest.mark.parametrize(("assigner", "box"), [x for x in GROUPS if losses_of(*x)])
def test_no_combination_reads_the_device_or_has_no_gradient(assigner, box):
    losses = losses_of(assigner, box)
    assert list(losses) == CLASS_TERMS
    case = loss_case(loss_of(Parts(assigner, CLASS_TERMS[0], box)), planned=True)

    def together(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(x for loss in losses.values() for x in loss(*tensors))

    audit_waits(case._replace(function=together)).raise_if_failed()
    inputs = batch_of(case, 17, padded=True)
    for name, loss in losses.items():
        total, *terms = loss(*inputs)
        gradients = torch.autograd.grad(total, inputs[: case.learnt])
        assert all(x.isfinite().all() and x.any() for x in gradients), name
        assert all(x.isfinite() for x in terms), name
        assert terms[-2] > 0, name  # positives


def test_the_rotation_holds_every_assigner_and_class_term_and_only_what_makes_sense():
    assigners, classes, boxes = (set(x) for x in zip(*rotated(), strict=True))
    assert (assigners, classes) == (set(ASSIGNERS), set(CLASS_TERMS))
    assert len(boxes) == len(rotated())
    assert set(rotated()) <= set(product())


def test_the_public_parts_are_found():
    assert {"TaskAligned", "SimOTA", "DynamicSoftLabel", "ATSS", "Scheduled"} == set(ASSIGNERS)
    assert {"BinaryCrossEntropy", "FocalLoss", "QualityFocalLoss", "VarifocalLoss"} == set(CLASS_TERMS)
    assert {"ciou", "probiou", "WIoU", "KullbackLeibler"} < set(BOX_TERMS)
    assert len(list(product())) == 5 * 4 * 10 + 4 * 5


def test_the_audit_of_waits_can_fail():
    case = loss_case(loss_of(rotated()[1]), planned=True)

    def waits(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        total = case.function(*tensors)[0]
        return (total * 2 if total.item() > 0 else total,)

    assert not audit_waits(case._replace(function=waits)).ok
    assert audit_waits(case).ok
