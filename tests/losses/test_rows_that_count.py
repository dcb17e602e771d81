"""Rows' weights, and rows of regions that nobody labelled, against float64 loops and by what must hold of them."""

from typing import Any

import pytest
import torch
from torch import Tensor

from compiled_loss import DetectionLoss, EndToEndLoss, Predictions, TargetPlan, Targets
from compiled_loss.data.rows import map_rows
from tests.losses.scenes import Scene, expected, make_scene, outcome
from tests.losses.tasks import OPTIONS, make_loss, make_task
from tests.reference.assigner import candidates, pixel_boxes
from tests.reference.geometry import ciou
from tests.reference.parts import by_row, distance_term, entropy, open_head, score_sum

SMALL = 16  # the second stride: shorter sides grow to it
IGNORED = (1, 3, 8)  # rows of the scenes below


def with_fields(scene: Scene, **fields: Any) -> Scene:
    return scene._replace(targets=scene.targets._replace(**fields))


def without(scene: Scene, rows: tuple[int, ...]) -> Scene:
    kept = torch.tensor([n for n in range(len(scene.targets.labels)) if n not in rows])
    return scene._replace(targets=map_rows(scene.targets, lambda x: x[kept]))


def ignoring(scene: Scene, rows: tuple[int, ...] = IGNORED) -> Scene:
    return with_fields(scene, ignore=torch.tensor([n in rows for n in range(len(scene.targets.labels))]))


def inside(scene: Scene, rows: tuple[int, ...]) -> Tensor:
    """`[B, A]` anchors inside some rows' boxes, by a loop."""
    head = open_head({"boxes": scene.predictions.boxes}, scene.predictions.grid_sizes, (8, 16, 32))
    boxes = pixel_boxes(scene.targets.boxes, *head.size)
    found = torch.zeros(len(scene.predictions.scores), len(head.points), dtype=torch.bool)
    for n in rows:
        found[scene.targets.batch_idx[n]] |= torch.from_numpy(candidates(head.points, boxes[n], SMALL))
    return found


@pytest.mark.parametrize("reg_max", [1, 16])
def test_weights_and_ignored_anchors_count_as_a_float64_loop_says(reg_max):
    criterion = DetectionLoss(3, reg_max=reg_max)
    scene = make_scene(4, criterion, counts=(4, 0, 6))
    weights = torch.tensor([1.0, 7.0, 0.0, 7.0, 2.5, 1.0, 0.25, 3.0, 7.0, 1.0])
    out, gradients = outcome(criterion, with_fields(ignoring(scene), weights=weights))

    rows = [n for n in range(10) if n not in IGNORED]
    objects = without(scene, IGNORED)
    found = expected(criterion, objects).positives
    leaves: dict[str, Tensor | None] = {"boxes": scene.predictions.boxes, "scores": scene.predictions.scores}
    head = open_head(leaves, scene.predictions.grid_sizes, criterion.strides)
    true_boxes, labels = pixel_boxes(objects.targets.boxes, *head.size), objects.targets.labels
    predicted = torch.cat([head.grid - head.distances[..., :2], head.grid + head.distances[..., 2:]], -1)
    box = distance = torch.zeros((), dtype=torch.float64)
    scores = head.leaves["scores"].transpose(1, 2)
    target, count = torch.zeros_like(scores), 1.0 - inside(scene, IGNORED).double()
    for row, image, at, score in by_row(found):
        weight = float(weights[rows[row]])
        true = torch.from_numpy(true_boxes[row]).double() / head.step[at, None]
        sides = torch.cat([head.grid[at] - true[:, :2], true[:, 2:] - head.grid[at]], 1)
        box = box + weight * (score * (1 - ciou(predicted[image, at], true))).sum()
        distance = distance + weight * (score * distance_term(head, image, at, sides)).sum()
        target[image, at, labels[row]] = score
        count[image, at] = weight
    cls = (entropy(scores, target) * count[..., None]).sum()
    wanted = {"box": 7.5 * box, "cls": 0.5 * cls, "l1" if reg_max == 1 else "dfl": 1.5 * distance}
    wanted = {name: x * 3 / score_sum(found) for name, x in wanted.items()}

    assert int(out.num_positives) == len(found) > 10
    for name, value in wanted.items():
        assert out.terms[name].item() == pytest.approx(value.item(), rel=2e-6), name
    right = torch.autograd.grad(torch.stack(list(wanted.values())).sum(), [head.leaves[name] for name in leaves])
    for got, gradient in zip(gradients, right, strict=True):
        torch.testing.assert_close(got.double(), gradient, rtol=0, atol=1e-5 * gradient.abs().max().item())


@pytest.mark.parametrize("task", OPTIONS)
def test_a_row_counts_as_often_as_its_weight_says(task):
    criterion, scene = make_loss(task), make_task(task)
    n = len(scene.targets.labels)
    names = [name for name in criterion(*scene).terms if name != "sem"]  # of all pixels, whichever row's

    def terms(weights: Tensor) -> Tensor:
        found = criterion(*with_fields(scene, weights=weights)).terms
        return torch.stack([found[name] for name in names]).detach().double()

    weights = torch.rand(n, generator=torch.Generator().manual_seed(5)) * 3
    nothing, shares = terms(torch.zeros(n)), [terms(x) for x in torch.eye(n)]
    for name, x in zip(names, nothing.tolist(), strict=True):
        assert (x > 0) == (name == "cls")
    wanted = nothing + sum(w * (share - nothing) for w, share in zip(weights.double(), shares, strict=True))
    torch.testing.assert_close(terms(weights), wanted, rtol=1e-5, atol=1e-6)
    assert ((wanted - nothing).abs() > 1e-3).all() or task == "residual pose"


@pytest.mark.parametrize("task", OPTIONS)
def test_weights_of_1_and_no_row_to_ignore_change_no_bit(task):
    criterion, scene = make_loss(task), make_task(task)
    plain, right = outcome(criterion, scene)
    rows = len(scene.targets.labels)
    for fields in ({"weights": torch.ones(rows)}, {"ignore": torch.zeros(rows, dtype=torch.bool)}):
        out, gradients = outcome(criterion, with_fields(scene, **fields))
        for x, y in zip([*out.terms.values(), *gradients], [*plain.terms.values(), *right], strict=True):
            assert torch.equal(x, y)


@pytest.mark.parametrize("task", OPTIONS)
def test_a_weight_of_0_leaves_nothing_of_a_row_but_its_anchors(task):
    criterion, scene = make_loss(task), make_task(task)
    found = criterion.assign(*scene)
    mine = found.valid & (found.row == 2)
    image, anchor = found.image[mine], found.anchor[mine]
    assert len(anchor) > 2
    weights = (torch.arange(len(scene.targets.labels)) != 2).float()
    out, gradients = outcome(criterion, with_fields(scene, weights=weights))
    assert out.num_positives == criterion(*scene).num_positives
    for gradient in gradients:
        if gradient.dim() == 3:
            assert gradient[image, :, anchor].eq(0).all()


@pytest.mark.parametrize("task", ["detection", "oriented", "residual pose", "segmentation"])
def test_ignoring_changes_no_other_anchor(task):
    criterion, scene = make_loss(task), make_task(task)
    if scene.targets.index_map is not None:  # which counts the rows
        scene = with_fields(scene, index_map=None, class_map=None, masks=torch.rand(12, 24, 32).round())
        scene = scene._replace(predictions=scene.predictions._replace(semantic=None))
    ignored, absent = ignoring(scene), without(scene, IGNORED)
    (out, got), (plain, right) = outcome(criterion, ignored), outcome(criterion, absent)
    found, wanted = criterion.assign(*ignored), criterion.assign(*absent)
    assert found.valid.sum() == wanted.valid.sum() > 10
    positive = torch.zeros(*scene.predictions.scores[:, 0].shape, dtype=torch.bool)
    positive[wanted.image[wanted.valid], wanted.anchor[wanted.valid]] = True
    assert torch.equal(positive, criterion.assign_dense(*ignored).foreground)
    for name, term in plain.terms.items():
        assert name == "cls" or torch.equal(term, out.terms[name])

    changed = (got[1] != right[1]).any(1)  # of the class logits
    assert got[1].transpose(1, 2)[changed].eq(0).all()
    assert not (changed & positive).any()
    assert changed.sum() > 10
    if task != "oriented":
        assert torch.equal(changed, inside(scene, IGNORED) & ~positive)
    for i in range(len(got)):
        # In other places an exponential may be rounded otherwise.
        scale = 1e-7 * right[i].abs().max().item()
        assert i == 1 or (got[i] - right[i]).abs().max() <= scale


def test_ignored_logits_may_hold_anything_and_labels_too():
    criterion, scene = DetectionLoss(3), ignoring(make_task("detection"))
    place = inside(scene, IGNORED) & ~criterion.assign_dense(*scene).foreground
    for value in (float("nan"), float("inf"), -500.0):
        scores = torch.where(place[:, None], value, scene.predictions.scores).detach().requires_grad_()
        assert scene.targets.ignore is not None
        labels = torch.where(scene.targets.ignore, 255, scene.targets.labels)
        other = Scene(scene.predictions._replace(scores=scores), scene.targets._replace(labels=labels))
        (out, got), (plain, right) = outcome(criterion, other), outcome(criterion, scene)
        assert torch.equal(out.total, plain.total)
        assert all(torch.equal(x, y) for x, y in zip(got, right, strict=True))


def test_the_order_of_rows_is_of_no_interest():
    criterion = DetectionLoss(3)
    scene = ignoring(make_scene(4, criterion, counts=(4, 0, 6)))
    scene = with_fields(scene, weights=torch.rand(10) * 2)
    order = torch.randperm(10, generator=torch.Generator().manual_seed(3))
    other = scene._replace(targets=map_rows(scene.targets, lambda x: x[order]))
    for name, x in criterion(*scene).terms.items():
        torch.testing.assert_close(criterion(*other).terms[name], x, rtol=1e-6, atol=0)


def test_planned_pages_hold_ignore_rows_and_say_when_they_do_not():
    criterion = DetectionLoss(3)
    scene = with_fields(ignoring(make_task("detection")), weights=torch.rand(12))
    out = criterion(*scene)
    for padded in (False, True):
        planned = TargetPlan((96, 128)).apply(scene.targets, 3, padded=padded)
        same = criterion(scene.predictions, planned)
        torch.testing.assert_close(same.total, out.total, rtol=1e-6, atol=0)
        assert same.overflow == 0
    wide = Targets(torch.tensor([0]), torch.tensor([0]), torch.tensor([[0.5, 0.5, 1.0, 1.0]]), pages=2)
    with pytest.warns(UserWarning, match="0 objects and 1 ignore rows lose candidate anchors"):
        cut = criterion(scene.predictions, wide._replace(ignore=torch.tensor([True])))
    assert (int(cut.overflow), int(cut.num_positives)) == (1, 0)


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), -1.0])
def test_a_broken_weight_is_refused_or_matches_nothing_where_nobody_looks(weight):
    scene = make_task("detection")
    weights = torch.ones(12)
    weights[4] = weight
    broken = with_fields(scene, weights=weights)
    with pytest.raises(ValueError, match=r"^Targets.weights: expected finite numbers of 0 or more, got .* in row 4"):
        DetectionLoss(3)(*broken)
    unseen = DetectionLoss(3, check_values=False)
    (out, got), (plain, right) = outcome(unseen, broken), outcome(unseen, without(scene, (4,)))
    assert torch.equal(out.total, plain.total)
    assert all(torch.equal(x, y) for x, y in zip(got, right, strict=True))


def plain_cls(scores: Tensor, assignment: Any, labels: Tensor) -> Tensor:
    return scores.sigmoid().sum()


def test_a_plain_class_term_serves_rows_that_all_count_1():
    scene, criterion = make_task("detection"), DetectionLoss(3, classification=plain_cls)
    assert criterion(*scene).total.isfinite()
    message = "^classification: expected a term with a method `sums`.*, got function"
    for other in (with_fields(scene, weights=torch.ones(12)), ignoring(scene)):
        with pytest.raises(ValueError, match=message):
            criterion(*other)
    with pytest.raises(ValueError, match=message):
        DetectionLoss(3, classification=plain_cls, per_image=True)(*scene)


def test_each_branch_of_an_end_to_end_head_ignores_what_it_did_not_pick():
    criterion, scene = EndToEndLoss(DetectionLoss(3, reg_max=1)), ignoring(make_task("detection without bins"))
    maps = scene.predictions._asdict().items()
    fresh: Any = {n: x.detach().clone().requires_grad_() if isinstance(x, Tensor) else x for n, x in maps}
    one = Predictions(**fresh)
    out = criterion(scene.predictions, one, scene.targets)
    of_many, of_one = torch.autograd.grad(out.total, [scene.predictions.scores, one.scores])
    crowd = inside(scene, IGNORED)
    for loss, gradient in ((criterion.many, of_many), (criterion.one, of_one)):
        assert torch.equal(crowd & ~loss.assign_dense(*scene).foreground, gradient.eq(0).all(1))
