"""This package's answer to a batch in eager torch: positives, the loss and its terms, gradients."""

import torch
from torch import Tensor

from compiled_loss.data.targets import Targets
from compiled_loss.exporting.corpus.golden import Case
from compiled_loss.exporting.interface import NAMES, branches
from compiled_loss.losses.end_to_end import EndToEndLoss, main_loss
from compiled_loss.types import Predictions

_FIELDS = {name: field for field, name in NAMES.items()}


def answers(case: Case) -> dict[str, Tensor]:
    """`positives` [P, 3] of image, anchor and row, sorted, their `weights` [P], and the outputs of the loss's graph.

    Images of the one-to-one branch are numbered on from those of the one-to-many branch.
    """
    loss, height, width = case.loss, *case.image_size
    grids = tuple((height // stride, width // stride) for stride in main_loss(loss).strides)
    prefixes = tuple(f"{branch}_" for branch in branches(loss))
    leaves = {x: v.clone().requires_grad_() for x, v in case.inputs.items() if x.startswith(prefixes)}
    heads = [
        Predictions(grid_sizes=grids, **{x.removeprefix(p): v for x, v in leaves.items() if x.startswith(p)})
        for p in prefixes
    ]
    rows = {_FIELDS.get(x, x): v for x, v in case.inputs.items() if x not in leaves}
    targets = Targets(**rows)  # type: ignore[arg-type]
    out = loss(*heads, targets)
    found = torch.autograd.grad(out.total, [*leaves.values()], allow_unused=True, materialize_grads=True)
    each = [loss.many, loss.one] if isinstance(loss, EndToEndLoss) else [loss]
    held, weights = [], []
    for branch, (one, head) in enumerate(zip(each, heads, strict=True)):
        a = one.assign(head, targets)
        image = a.image + branch * head.scores.shape[0]
        held.append(torch.stack([image, a.anchor, a.row], 1)[a.valid])
        weights.append(a.score[a.valid])
    positives = torch.cat(held)
    order = sorted(range(len(positives)), key=lambda i: positives[i].tolist())
    return {
        "positives": positives[order],
        "weights": torch.cat(weights)[order].detach(),
        "loss": out.total.detach(),
        **{f"loss_{name}": x.detach() for name, x in out.terms.items()},
        "num_positives": torch.tensor(len(positives)),
        **{f"grad_{name}": x for name, x in zip(leaves, found, strict=True)},
    }
