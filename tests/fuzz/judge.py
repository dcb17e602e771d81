"""Whether a loss said what the float64 reference says, up to roundings of its own precision and to nothing else.

Numbers within `ROUNDINGS` roundings of the largest one are equal. Others are compared with the spread of the reference
itself when every number on its way is disturbed by float32 roundings: what differs more is wrong. Positives are the
reference's, or such as it would choose if the numbers that decide were disturbed in the same way.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch

from compiled_loss import PaddedTargets
from tests.fuzz.layouts import Flat, Laid
from tests.fuzz.margins import explained
from tests.fuzz.modes import Outcome
from tests.fuzz.scenes import Scene, mask_size
from tests.reference.assigner import pixel_boxes
from tests.reference.dense import Answer, dense_loss
from tests.reference.dense_match import LEAST, UNIT, Rows, Task

ROUNDINGS = 64
DISTURBED = 100  # runs of the reference at most, to learn the spread of its numbers
WIDER = 4  # than the spread seen
HALF = {torch.float16: 2.0**-10, torch.bfloat16: 2.0**-7}  # of gradients in that precision
TINY, LARGEST = 2.0**-24, 65504.0  # of float16
# A target score is an alignment over the largest of its row and 1e-9, a term that times a gain.
FEW_DIGITS = 16 * LEAST / 1e-9


@dataclass
class Verdict:
    """What was found: nothing, if it is right; how many positives and numbers only rounding explains."""

    wrong: str = ""
    margins: int = 0
    disturbed: bool = False


class Reference(NamedTuple):
    """Of one branch: what to ask, and the answer for the positives that were chosen."""

    task: Task
    rows: Rows
    maps: dict[str, torch.Tensor]
    pages: int | None
    answer: Answer


def judge(scene: Scene, laid: Laid, outcome: Outcome) -> Verdict:
    """Positives first, then every number that follows from them."""
    setup, (targets, origin) = scene.setup, laid
    if isinstance(targets, PaddedTargets):  # capacities of each image are those of all together
        targets = targets.flat()
    rows = scene.rows
    pages = None
    if targets.pages is not None:
        pages = targets.pages if isinstance(targets.pages, int) else len(targets.pages)
    verdict, references, overflows = Verdict(), [], []
    for branch, (task, maps) in enumerate(zip(setup.tasks(), scene.heads, strict=True)):
        owner, wrong = _owners(scene, origin, outcome, branch)
        if wrong:
            return replace(verdict, wrong=wrong)
        answer = dense_loss(task, maps, setup.grids, rows, pages=pages)
        reference = Reference(task, rows, maps, pages, answer)
        if not np.array_equal(owner, answer.owner):
            samples = (_again(scene, reference, answer.owner, seed).matching for seed in range(DISTURBED))
            wrong = explained(task, answer.matching, samples, rows, owner)
            if wrong:
                return replace(verdict, wrong=f"branch {branch}: {wrong}")
            verdict.margins += int((owner != answer.owner).sum())
            reference = reference._replace(answer=_again(scene, reference, owner, None))
        references.append(reference)
        overflows.append(answer.matching.overflow + _cut_tiles(scene, (targets, origin), task, owner))
    last = references[-1].answer.owner
    if outcome.num_positives != (last >= 0).sum():
        return replace(verdict, wrong=f"num_positives {outcome.num_positives}, expected {(last >= 0).sum()}")
    if outcome.overflow != max(overflows):
        return replace(verdict, wrong=f"overflow {outcome.overflow}, expected {max(overflows)}")
    without = {"seg", "coefficients", "prototypes"} if max(overflows) > 0 and setup.kind == "segment" else set()
    wanted = _numbers(scene, references)
    got = _found(scene, outcome)
    if not any(outcome.gradients):  # a graph without any
        wanted = {name: x for name, x in wanted.items() if not name.startswith("gradient")}
    if got.keys() != wanted.keys():
        return replace(verdict, wrong=f"names {sorted(got)}, expected {sorted(wanted)}")
    far = [name for name in got if not _cut(name, without) and not _close(scene, name, got, wanted)]
    verdict.disturbed = bool(far)
    spread = {name: np.zeros_like(wanted[name]) for name in far}
    for seed in range(DISTURBED):
        if not far:
            break
        sample = _numbers(scene, [r._replace(answer=_again(scene, r, r.answer.owner, seed)) for r in references])
        for name in far:
            spread[name] = np.maximum(spread[name], WIDER * np.abs(sample[name] - wanted[name]))
        far = [name for name in far if not _close(scene, name, got, wanted, spread[name])]
    for name in far[:1]:
        error = np.abs(got[name] - wanted[name]) - spread[name]
        at = tuple(int(i) for i in np.unravel_index(np.argmax(error), error.shape)) if error.shape else ()
        told = f"{got[name][at]}, expected {wanted[name][at]}, at most {spread[name][at]:.2g} off"
        verdict.wrong = f"{name}{list(at)} {told}; off are {', '.join(far)}"
    return verdict


def _cut(name: str, without: set[str]) -> bool:
    """Of masks that lack pixels, and of the sum that holds them."""
    return bool(without) and (name == "total" or name.rsplit(".", maxsplit=1)[-1] in without)


def _owners(scene: Scene, origin: np.ndarray, outcome: Outcome, branch: int) -> tuple[np.ndarray, str]:
    """`[B, A]` original row of every anchor; or what is impossible about the positives."""
    image, anchor, row = (x.numpy() for x in outcome.positives[branch])
    owner = np.full((scene.setup.batch_size, sum(h * w for h, w in scene.setup.grids)), -1)
    row = origin[row]
    if (row < 0).any():
        return owner, f"branch {branch}: padding has a positive"
    if (scene.rows.image.numpy()[row] != image).any():
        return owner, f"branch {branch}: a positive of another image"
    if len(set(zip(image.tolist(), anchor.tolist(), strict=True))) != len(image):
        return owner, f"branch {branch}: an anchor is positive twice"
    owner[image, anchor] = row
    return owner, ""


def _again(scene: Scene, reference: Reference, owner: np.ndarray, seed: int | None) -> Answer:
    task, rows, maps, pages, _ = reference
    return dense_loss(task, maps, scene.setup.grids, rows, pages=pages, owner=owner, seed=seed)


def _numbers(scene: Scene, references: list[Reference]) -> dict[str, np.ndarray]:
    """Total, terms and gradients of all branches together, each in its share."""
    shares = scene.setup.shares()
    answers = [r.answer for r in references]
    terms = {
        name: np.array(sum(share * a.terms[name] for share, a in zip(shares, answers, strict=True)))
        for name in answers[0].terms
    }
    gradients = {
        f"gradient {i}.{name}": share * x.numpy()
        for i, (share, a) in enumerate(zip(shares, answers, strict=True))
        for name, x in a.gradients.items()
    }
    return {"total": np.array(sum(terms.values())), **{f"term.{k}": v for k, v in terms.items()}, **gradients}


def _found(scene: Scene, outcome: Outcome) -> dict[str, np.ndarray]:
    gradients = {
        f"gradient {i}.{name}": x.double().numpy()
        for i, maps in enumerate(outcome.gradients)
        for name, x in maps.items()
    }
    terms = {f"term.{name}": np.array(x) for name, x in outcome.terms.items()}
    return {"total": np.array(outcome.total), **terms, **gradients}


def _low(scene: Scene, name: str) -> float:
    """The relative rounding of a gradient in half precision."""
    return HALF.get(scene.setup.dtype, 0.0) if name.startswith("gradient") else 0.0


def _close(
    scene: Scene,
    name: str,
    got: dict[str, np.ndarray],
    wanted: dict[str, np.ndarray],
    spread: np.ndarray | float = 0.0,
) -> bool:
    low, largest = _low(scene, name), np.abs(wanted[name]).max(initial=0)
    allowed = FEW_DIGITS + ROUNDINGS * UNIT * largest + spread + (low * largest + TINY if low else 0.0)
    error = np.abs(got[name] - wanted[name])
    if low and scene.setup.dtype == torch.float16:
        # Beyond the largest number there is infinity.
        beyond = np.isinf(got[name]) & (np.sign(got[name]) * wanted[name] + allowed >= LARGEST)
        error = np.where(beyond, 0, error)
    return bool((error <= allowed).all())


def _cut_tiles(scene: Scene, laid: Flat, task: Task, owner: np.ndarray) -> int:
    """How often positives of a row find no room for the pixels of its box: each `slots` of them take it once."""
    targets, origin = laid
    if targets.mask_tiles is None or task.kind != "segment":
        return 0
    planned = targets.mask_tiles if isinstance(targets.mask_tiles, int) else len(targets.mask_tiles)
    slots = task.top_k if task.keep is None else min(task.top_k, task.keep)
    (height, width), size = scene.setup.size, mask_size(scene.setup)
    boxes = pixel_boxes(scene.rows.boxes, height, width) / np.array([width, height] * 2, np.float32)
    left, top, right, bottom = (boxes * np.array([size[1], size[0]] * 2, np.float32)).T
    across = np.clip(np.ceil(right).clip(max=size[1]) - np.ceil(left).clip(min=0), 0, None)
    down = np.clip(np.ceil(bottom).clip(max=size[0]) - np.ceil(top).clip(min=0), 0, None)
    needed = -(-(across * down).astype(int) // 64)
    held = np.bincount(owner[owner >= 0], minlength=len(boxes))
    order = [n for n in origin if n >= 0 and held[n] > 0]
    further = [n for n in order for _ in range((held[n] - 1) // slots)]
    each = needed[[*order, *further]].astype(int) if order else np.zeros(0, int)
    return int(((each.cumsum() > planned) & (each > 0)).sum())
