"""What is no Targets, plan or tensor in the place of one is refused by the argument's name."""

from typing import Any

import numpy as np
import pytest
import torch

from compiled_loss import DetectionLoss, PaddedTargets, TargetPlan, Targets, collate, fill, pad_rows, unfill

ROWS = Targets(torch.tensor([0]), torch.tensor([0]), torch.full((1, 4), 0.5))
PLAN: Any = TargetPlan((64, 64))
SAMPLE: Any = (torch.rand(3, 64, 64), ROWS)
LOSS: Any = DetectionLoss(3)
PLACE = torch.tensor([0, 0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: PLAN.apply([ROWS]), "targets: expected Targets, flat rows, got list; see sources.from_torchvision or"),
        (lambda: PLAN.apply({"boxes": ROWS.boxes}), "targets: expected Targets, flat rows, got dict"),
        (
            lambda: PLAN.apply(PLAN.apply(ROWS, 1, padded=True)),
            "targets: expected Targets, flat rows, got PaddedTargets",
        ),
        (lambda: pad_rows(tuple(ROWS)), "targets: expected Targets, flat rows, got tuple"),  # type: ignore[arg-type]
        (lambda: PaddedTargets.from_rows([ROWS], 1), "targets: expected Targets, flat rows, got list"),  # type: ignore[arg-type]
        (lambda: collate([SAMPLE], LOSS), r"plan: expected a TargetPlan, such as .*, got DetectionLoss"),
        (lambda: collate([SAMPLE], TargetPlan), "plan: expected a TargetPlan, .*, got the class TargetPlan"),  # type: ignore[arg-type]
        (lambda: collate([{"image": 1}], PLAN), r"samples: expected a list of \(image, Targets\), got"),  # type: ignore[list-item]
        (lambda: collate(SAMPLE, PLAN), r"samples: expected a list of \(image, Targets\), got"),
        (lambda: fill([1, 2], PLACE, 1, 2), r"values: expected shape \[N, ...\], got list"),  # type: ignore[arg-type]
        (lambda: fill(np.ones(2), PLACE, 1, 2), r"values: expected shape \[N, ...\], got ndarray"),  # type: ignore[arg-type]
        (lambda: unfill([1], PLACE, 2), r"filled: expected shape \[B, M, ...\], got list"),  # type: ignore[arg-type]
    ],
)
def test_other_objects_are_named(call, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        call()
