"""Our losses beside those of lucid-yolo 0.5.0.dev2 (Apache-2.0), written from the papers alone, where it is installed.

    python -m tests.golden.lucid record    # writes lucid.npz: its answers
    python -m tests.golden.lucid compare   # two tables: by how much parts differ, and how many positives are the same

Nothing of it is copied here; `tests/golden/test_lucid.py` compares with the file that was written.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from compiled_loss.geometry.boxes import ciou
from compiled_loss.geometry.masks import MaskTargets
from compiled_loss.geometry.rotated import probiou
from compiled_loss.terms.keypoints import residual_log_likelihood
from compiled_loss.terms.masks import mask_cross_entropy, semantic_error
from compiled_loss.terms.rotated import angle_error
from compiled_loss.types import Assignment
from tests.golden.agreement import agreement
from tests.golden.lucid_scenes import (
    CLASSES,
    MANY,
    ONE,
    ByAlignment,
    make_branches,
    our_loss,
    our_positives,
    scenes,
    their_loss,
    their_positives,
)

FILE = Path(__file__).with_name("lucid.npz")


class Given(NamedTuple):
    """What a part is given: the first is what it is differentiated by."""

    leaf: Tensor
    rest: tuple[Tensor, ...] = ()


class Part(NamedTuple):
    """One formula of both: how its inputs are drawn, and either form of it."""

    draw: Callable[[torch.Generator], Given]
    ours: Callable[..., Tensor]
    theirs: Callable[..., Tensor]


def answer(form: Callable[..., Tensor], given: Given) -> list[np.ndarray]:
    """The value, and the gradient of its mean."""
    leaf = given.leaf.clone().requires_grad_()
    value = form(leaf, *given.rest)
    (gradient,) = torch.autograd.grad(value.mean(), leaf)
    return [value.detach().numpy(), gradient.numpy()]


def _boxes(generator: torch.Generator) -> Given:
    low, sides = (torch.rand(2, 400, 2, generator=generator).double() for _ in range(2))
    one, other = torch.cat([low * 40, low * 40 + 1 + sides * 60], 2)
    return Given(one, (other,))


def _rotated(generator: torch.Generator) -> Given:
    x = torch.rand(2, 400, 5, generator=generator).double()
    one, other = torch.cat([x[..., :2] * 20, 2 + x[..., 2:4] * 30, x[..., 4:] * 6 - 3], 2)
    return Given(one, (other,))


def _masks(generator: torch.Generator) -> Given:
    coefficients, maps = (torch.randn(*n, generator=generator).double() for n in ((20, 8), (8, 24, 32)))
    low = torch.rand(20, 2, generator=generator).double() * torch.tensor([24, 16])
    sides = 1 + torch.rand(20, 2, generator=generator).double() * torch.tensor([16, 12])
    true = (torch.randn(20, 24, 32, generator=generator) > 0).double()
    return Given(coefficients, (maps, true, torch.cat([low, torch.minimum(low + sides, torch.tensor([32, 24]))], 1)))


def _whole_pixels(generator: torch.Generator) -> Given:
    given = _masks(generator)
    low, high = given.rest[2].round().split(2, 1)
    return given._replace(rest=(*given.rest[:2], torch.cat([low, torch.maximum(high, low + 1)], 1)))


def _maps(generator: torch.Generator) -> Given:
    logits = torch.randn(2, CLASSES, 12, 16, generator=generator).double() * 3
    return Given(logits, (torch.randint(CLASSES + 1, (2, 12, 16), generator=generator) - 1,))


def _points(generator: torch.Generator) -> Given:
    predicted, true, spreads = torch.rand(3, 20, 5, 2, generator=generator).double().unbind()
    visible = torch.rand(20, 5, generator=generator) > 0.3
    return Given(predicted, (true, spreads * 4 - 2, visible))


def _our_masks(coefficients: Tensor, maps: Tensor, true: Tensor, boxes: Tensor) -> Tensor:
    rows, zeros = torch.arange(len(true)), torch.zeros(len(true), dtype=torch.int64)
    every = Assignment(zeros, rows, rows, torch.ones(len(true)).bool(), torch.ones(len(true)), torch.tensor(0))
    truth = MaskTargets(torch.cat([true, true[:1]]), torch.arange(len(true) + 1), None)
    return mask_cross_entropy(coefficients, maps[None], every, boxes, truth).mean()


def _their_masks(coefficients: Tensor, maps: Tensor, true: Tensor, boxes: Tensor) -> Tensor:
    from lucid_yolo.losses import instance_mask_loss  # noqa: PLC0415  (where it is installed)  # type: ignore

    return instance_mask_loss(torch.einsum("nd,dhw->nhw", coefficients, maps), true, boxes)


def _their_semantic(logits: Tensor, classes: Tensor) -> Tensor:
    from lucid_yolo.losses import semantic_aux_loss  # noqa: PLC0415  # type: ignore

    one_hot = (classes[:, None] == torch.arange(CLASSES)[:, None, None]).double()
    return semantic_aux_loss(logits, one_hot).total / 2  # its sum of two, our mean of them


def _density(residual: Tensor) -> Tensor:
    """Stands for the flow of both."""
    return -(residual.square().sum(-1) + 0.3 * residual.prod(-1))


def _our_likelihood(predicted: Tensor, true: Tensor, spreads: Tensor, visible: Tensor) -> Tensor:
    """Without the share of the likelihood that the paper's own code counts twice, and the paper once."""
    loss, counted = residual_log_likelihood(predicted, true, spreads, visible, _density)
    spread = spreads.sigmoid()
    twice = spread.log().sum(-1) - _density((predicted - true) / spread)
    return torch.where(counted, loss - twice, 0.0).sum() / counted.sum()


def _their_likelihood(predicted: Tensor, true: Tensor, spreads: Tensor, visible: Tensor) -> Tensor:
    from lucid_yolo.losses import RLELoss  # noqa: PLC0415  # type: ignore

    loss = RLELoss()
    loss.flow.log_density = _density
    return loss(predicted, spreads, true, visible.long())


def _theirs(name: str) -> Callable[..., Tensor]:
    """A function of its losses, looked up when it is called."""

    def call(*given: Tensor) -> Tensor:
        import lucid_yolo.losses  # noqa: PLC0415  # type: ignore

        return getattr(lucid_yolo.losses, name)(*given)

    return call


def _their_angles(predicted: Tensor, true: Tensor) -> Tensor:
    return _theirs("square_angle_loss")(predicted[:, 4], *true[:, [4, 2, 3]].unbind(1), torch.ones(len(true)))


PARTS = {
    "CIoU": Part(_boxes, ciou, _theirs("complete_iou")),
    "ProbIoU": Part(_rotated, probiou, _theirs("probabilistic_iou")),
    "angle": Part(_rotated, lambda x, y: angle_error(x[:, 4], *y[:, [4, 2, 3]].unbind(1)).mean(), _their_angles),
    "masks, boxes of whole pixels": Part(_whole_pixels, _our_masks, _their_masks),
    "masks, any boxes": Part(_masks, _our_masks, _their_masks),
    "semantic": Part(_maps, lambda x, classes: semantic_error(x, classes, classes >= 0).mean(), _their_semantic),
    "likelihood, of the paper": Part(_points, _our_likelihood, _their_likelihood),
}
PARTING = ("masks, any boxes",)  # which differ by their rules


def difference(found: list[np.ndarray], wanted: list[np.ndarray]) -> list[float]:
    """The largest difference of each array, to its largest entry."""
    pairs = zip(found, wanted, strict=True)
    return [float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-12)) for a, b in pairs]


def drawn(seed: int) -> dict[str, Given]:
    """Inputs of all parts."""
    return {name: part.draw(torch.Generator().manual_seed(seed)) for name, part in PARTS.items()}


def record() -> None:
    """Write what it answers."""
    stored: dict[str, Any] = {}
    for name, given in drawn(0).items():
        stored |= {f"{name}/{i}": x for i, x in enumerate(answer(PARTS[name].theirs, given))}
    stored |= {f"whole/{s}/{i}": x for s in range(4) for i, x in enumerate(their_loss(make_branches(s)))}
    for one in (False, True):
        found = [their_positives(scene, one=one) for scene in scenes(range(8), 3)]
        table = [(s, *slot, score) for s, scores in enumerate(found) for slot, score in scores.items()]
        stored["one to one" if one else "one to many"] = np.array(table)
    np.savez_compressed(FILE, **stored)


def compare() -> None:
    """Print the tables."""
    print("| part | value | gradient |\n| --- | ---: | ---: |")
    for name, part in PARTS.items():
        seen = [difference(answer(part.ours, x), answer(part.theirs, x)) for x in (drawn(s)[name] for s in range(8))]
        print(f"| {name} | " + " | ".join(f"{max(x):.0e}" for x in zip(*seen, strict=True)) + " |")
    whole = [difference(our_loss(b), their_loss(b)) for b in map(make_branches, range(100, 130))]
    print(f"| whole loss, two branches | {max(x[0] for x in whole):.0e} | {max(max(x[1:]) for x in whole):.0e} |")
    print("\n| assigner | rows an image | images | positives | as it is | sides below 16 grow | also by alignment |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, mine in (("10 of many", MANY), ("one of 7", ONE)):
        for rows in (1, 3, 12):
            batches = scenes(range(500, 524), rows, (192, 256))
            ours = [set(our_positives(x, mine)) for x in batches]
            own, grown = ([set(their_positives(x, one=mine is ONE, grown=g)) for x in batches] for g in (8.0, 16.0))
            seen = [agreement(zip(ours, theirs, strict=True)) for theirs in (own, grown)]
            cells = [f"{x['alike']} of {x['positives']}" for x in seen]
            if mine is MANY:
                aligned = [set(our_positives(x, ByAlignment(mine))) for x in batches]
                both = agreement(zip(aligned, grown, strict=True))
                cells.append(f"{both['alike']} of {both['positives']}")
            print(f"| {name} | {rows} | {seen[0]['images']} | {seen[0]['positives']} | {' | '.join(cells)} |")


if __name__ == "__main__":
    {"record": record, "compare": compare}[sys.argv[1]]()
