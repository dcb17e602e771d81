"""The judge knows right from wrong: small changes to what a loss says are found."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tests.fuzz.judge import judge
from tests.fuzz.layouts import lay_out
from tests.fuzz.modes import Outcome, eager
from tests.fuzz.scenes import Scene, draw_scene
from tests.fuzz.setups import COMPILED, KINDS, Setup
from tests.reference.any_head import reference_loss
from tests.reference.batches import Batch, Raw
from tests.reference.dense import dense_loss


def scene_of(setup: Setup, seed: int = 3) -> tuple[Scene, np.random.Generator]:
    """With rows, and nothing equal on purpose."""
    for draw in range(seed, seed + 1000):
        rng = np.random.default_rng(draw)
        scene = draw_scene(setup, rng)
        if len(scene.rows.image) > 3 and scene.drawn.split()[:3] == ["spread", "mixed", "random"]:
            return scene, rng
    raise AssertionError("none was drawn")


def without_a_positive(outcome: Outcome) -> Outcome:
    image, anchor, row = outcome.positives[0]
    fewer = [(image[1:], anchor[1:], row[1:]), *outcome.positives[1:]]
    return outcome._replace(positives=fewer, num_positives=outcome.num_positives - 1)


def with_another_anchor(outcome: Outcome) -> Outcome:
    image, anchor, row = outcome.positives[0]
    free = next(a for a in range(60) if a not in anchor)
    return outcome._replace(positives=[(image, torch.cat([anchor[:-1], anchor.new_tensor([free])]), row)])


def with_another_gradient(outcome: Outcome) -> Outcome:
    maps = dict(outcome.gradients[0])
    at = maps["boxes"].abs().argmax()
    maps["boxes"] = maps["boxes"].flatten().index_fill(0, at, 0.0).view_as(maps["boxes"])
    return outcome._replace(gradients=[maps])


CHANGES = {
    "total": lambda x: x._replace(total=x.total * 1.0001),
    "term": lambda x: x._replace(terms=x.terms | {"cls": x.terms["cls"] * 1.0001}),
    "no term": lambda x: x._replace(terms={"cls": x.terms["cls"]}),
    "not a number": lambda x: x._replace(terms=x.terms | {"cls": float("nan")}),
    "count": lambda x: x._replace(num_positives=x.num_positives + 1),
    "overflow": lambda x: x._replace(overflow=1),
    "a positive less": without_a_positive,
    "another anchor": with_another_anchor,
    "gradient": with_another_gradient,
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_wrong_answer_is_found(change):
    setup = Setup(layout="in_order")
    scene, rng = scene_of(setup)
    _, laid = lay_out(setup, scene.rows, rng)
    outcome = eager(setup)(scene, laid[0])
    assert not judge(scene, laid, outcome).wrong
    assert judge(scene, laid, CHANGES[change](outcome)).wrong


def test_ties_go_to_the_lowest_anchor_and_to_the_lowest_row():
    setup = Setup(reg_max=1, batch_size=1, top_k=2, strides=(8,), layout="plain")
    scene, rng = scene_of(replace(setup, batch_size=3))
    box = torch.tensor([[0.5, 0.5, 0.5, 0.5]] * 2)
    rows = scene.rows._replace(image=torch.zeros(2).long(), labels=torch.zeros(2).long(), boxes=box)
    # Every anchor predicts the same box: x - l, y - t, x + r, y + b in cells are 2, 2, 6, 6.
    y, x = torch.meshgrid(torch.arange(8) + 0.5, torch.arange(8) + 0.5, indexing="ij")
    boxes = torch.stack([x - 2, y - 2, 6 - x, 6 - y]).flatten(1)[None]
    scene = Scene(setup, rows, [{"boxes": boxes, "scores": torch.zeros(1, 3, 64)}], "ties")
    _, laid = lay_out(setup, rows, rng)
    outcome = eager(setup)(scene, laid[0])
    image, anchor, row = (x.tolist() for x in outcome.positives[0])
    assert (image, sorted(anchor), row) == ([0, 0], [18, 19], [0, 0])  # the first cells inside, of the first row
    assert judge(scene, laid, outcome).wrong == ""
    last = outcome._replace(positives=[(torch.tensor([0, 0]), torch.tensor([18, 20]), torch.tensor([0, 0]))])
    assert "anchor 19: rows [0, 1] pick it" in judge(scene, laid, last).wrong
    other = outcome._replace(positives=[(torch.tensor([0, 0]), torch.tensor([18, 19]), torch.tensor([1, 1]))])
    assert "cannot own it" in judge(scene, laid, other).wrong


@pytest.mark.parametrize("kind", KINDS)
def test_whole_tensors_give_what_the_loops_give(kind):
    for setup in (x for x in COMPILED if x.kind == kind):
        setup = replace(setup, dtype=torch.float32, end_to_end="")
        scene, _ = scene_of(setup)
        task, maps, rows = setup.tasks()[0], scene.heads[0], scene.rows
        order = torch.argsort(rows.image, stable=True)
        per_row = {"image", "labels", "boxes", "keypoints"} | ({"masks"} if setup.stacked else set())
        rows = rows._replace(**{k: v[order] for k, v in rows._asdict().items() if k in per_row and v is not None})
        got = dense_loss(task, maps, setup.grids, rows)
        batch = Batch(setup.size, setup.batch_size, rows.image, rows.labels, rows.boxes, *rows[3:])
        raw = Raw(**{"keypoints": None, "grid_sizes": setup.grids, **maps})  # type: ignore[arg-type]
        options: dict[str, Any] = {"flow": task.flow} if kind == "residual" else {}
        options |= {"mask_overlap": setup.mask_overlap} if kind == "segment" else {}
        weights = None if setup.class_weights is None else list(setup.class_weights)
        loops = reference_loss(
            batch, raw, strides=setup.strides, top_k=setup.top_k, keep=setup.keep, class_weights=weights, **options
        )
        assert {(p.image, p.anchor, p.row) for p in loops.positives} == {
            (b, a, got.owner[b, a]) for b, a in np.argwhere(got.owner >= 0)
        }
        assert got.terms.keys() == loops.terms.keys()
        for name, value in got.terms.items():
            assert value == pytest.approx(loops.terms[name], rel=1e-6), name
        for name, value in got.gradients.items():
            torch.testing.assert_close(value, loops.gradients[name], rtol=0, atol=1e-6)
