"""Pairs of branches: their weighted sum against float64 loops, and a schedule that compiles nothing."""

from typing import Any

import pytest
import torch
from torch import Tensor

from compiled_loss import (
    DetectionLoss,
    EndToEndLoss,
    FocalLoss,
    InBox,
    OrientedLoss,
    PoseLoss,
    Predictions,
    Scheduled,
    SimOTA,
    Targets,
    TaskAligned,
)
from compiled_loss.torch_private import collect_compiles
from tests.losses.scenes import Scene, expected, make_scene
from tests.reference.end_to_end import KEEP, KEEP_V10, combine, share_of_many

PAIRS = {
    "detection": EndToEndLoss(DetectionLoss(3, reg_max=1)),
    "detection by a plain sum": EndToEndLoss(DetectionLoss(3), plain_sum=True),
    "oriented": EndToEndLoss(OrientedLoss(3, reg_max=1)),
    "pose": EndToEndLoss(PoseLoss(2, 5)),
}
every_pair = pytest.mark.parametrize("criterion", PAIRS.values(), ids=PAIRS)


def scenes_of(criterion: EndToEndLoss, seed: int, **options: Any) -> tuple[Scene, Scene]:
    """The same rows with the predictions of two branches."""
    many = make_scene(seed, criterion.one, kind="mixed", **options)
    return many, make_scene(seed, criterion.one, kind="truth", **options)._replace(targets=many.targets)


def check(criterion: EndToEndLoss, many: Scene, one: Scene, shares: tuple[float, float]) -> None:
    out = criterion(many.predictions, one.predictions, many.targets)
    wanted = combine(expected(criterion.many, many), expected(criterion.one, one), shares)
    assert out.terms.keys() == wanted.terms.keys()
    for name, value in out.terms.items():
        assert value.item() == pytest.approx(wanted.terms[name], rel=2e-5), name
    reported = wanted.terms if criterion.plain_sum else wanted.items
    assert reported is not None
    assert {name: x.item() for name, x in out.items.items()} == pytest.approx(reported, rel=2e-5)
    torch.testing.assert_close(torch.stack(list(out.terms.values())).sum(), out.total)
    assert int(out.num_positives) == sum(p.image >= len(many.predictions.scores) for p in wanted.positives)
    assert out.overflow == 0
    gradients = torch.autograd.grad(out.total, many.leaves + one.leaves)
    for gradient, loops in zip(gradients, wanted.gradients.values(), strict=True):
        torch.testing.assert_close(gradient.double(), loops, rtol=0, atol=1e-4 * loops.abs().max().item())


@every_pair
@pytest.mark.parametrize("epoch", [0, 3, 9, 25])
def test_the_share_of_the_first_branch_falls_from_eight_tenths_to_one(criterion, epoch):
    criterion.set_progress(epoch, 10)
    share = share_of_many(epoch, 10)
    assert criterion.share.item() == pytest.approx(share)
    check(criterion, *scenes_of(criterion, 10 + epoch), (1.0, 1.0) if criterion.plain_sum else (share, 1 - share))


def test_the_branches_differ_in_the_anchors_that_a_row_selects_and_keeps():
    pair, summed = EndToEndLoss(DetectionLoss(3)), EndToEndLoss(DetectionLoss(3), plain_sum=True)
    assert pair.many.assigner == summed.many.assigner == TaskAligned(top_k=10)
    assert pair.one.assigner == TaskAligned(KEEP["top_k"], KEEP["keep"])
    assert summed.one.assigner == TaskAligned(KEEP_V10["top_k"])


def test_a_row_teaches_one_anchor_of_the_second_branch_at_most():
    criterion = PAIRS["detection"]
    many, one = scenes_of(criterion, 4, counts=(30, 0, 12))
    found = criterion.one.assign(*one)
    rows = found.row[found.valid].tolist()
    assert len(rows) == len(set(rows)) > 0
    assert found.valid.shape == many.targets.labels.shape


def test_the_scheduled_share_by_hand():
    criterion = EndToEndLoss(DetectionLoss(1))
    shares = []
    for epoch in range(5):
        criterion.set_progress(epoch, 5)
        shares.append(round(criterion.share.item(), 4))
    assert shares == [0.8, 0.625, 0.45, 0.275, 0.1]
    criterion.set_progress(0, 1)
    assert criterion.share.item() == pytest.approx(0.8)
    for wrong, name in (((-1, 5), "epoch"), ((float("nan"), 5), "epoch"), ((1, float("inf")), "epochs")):
        with pytest.raises(ValueError, match=f"^{name}: expected a finite number of 0 or more"):
            criterion.set_progress(*wrong)


def test_a_schedule_changes_the_loss_of_the_compiled_step_and_compiles_nothing():
    criterion = EndToEndLoss(DetectionLoss(3, reg_max=1))
    many, one = scenes_of(criterion, 1)

    def step(leaves: list[Tensor], targets: Targets) -> Tensor:
        grids = many.predictions.grid_sizes
        pair = (Predictions(leaves[i], leaves[i + 1], grids) for i in (0, 2))
        return criterion(*pair, targets).total

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    leaves, totals = [*many.leaves, *one.leaves], []
    with collect_compiles() as compiles:
        for epoch in range(4):
            criterion.set_progress(epoch, 4)
            total = compiled(leaves, many.targets)
            total.backward()
            totals.append(total.item())
            torch.testing.assert_close(total, step(leaves, many.targets))
    assert sum(x.trigger == "DYNAMO" for x in compiles) == 1
    assert len(set(totals)) == 4


@pytest.mark.parametrize("classification", [None, FocalLoss()], ids=["cross-entropy", "focal"])
def test_both_branches_are_one_graph_of_open_sizes(classification):
    criterion = EndToEndLoss(DetectionLoss(3, reg_max=2, classification=classification))
    many, one = scenes_of(criterion, 1)
    compiled = torch.compile(criterion, fullgraph=True, dynamic=True, backend="eager")
    given = many.predictions, one.predictions, many.targets
    torch.testing.assert_close(compiled(*given).total, criterion(*given).total)


def test_a_training_goes_on_where_its_state_was_saved():
    def made() -> EndToEndLoss:
        assigner = Scheduled(TaskAligned(), TaskAligned(top_k=5))
        return EndToEndLoss(DetectionLoss(3, assigner=assigner), one_to_one=Scheduled(TaskAligned(), TaskAligned(1)))

    old, new = made(), made()
    old.set_progress(7, 10)
    for schedule in (old.loss.assigner, old.one_to_one):
        assert isinstance(schedule, Scheduled)
        schedule.set_second(True)
    state = old.state_dict()
    assert sorted(state) == ["loss.assigner.second", "one_to_one.second", "share"]
    new.load_state_dict(state)
    many, one = scenes_of(old, 3)
    totals = [x(many.predictions, one.predictions, many.targets).total for x in (old, new, made())]
    assert totals[0] == totals[1] != totals[2]


def test_a_half_precision_pair_keeps_its_share_and_moves_with_the_model():
    criterion = EndToEndLoss(DetectionLoss(3)).half()
    assert criterion.share.dtype == torch.float32
    assert list(criterion.state_dict()) == ["share"]
    assert criterion.to("meta").share.is_meta


@every_pair
def test_a_batch_without_objects_has_a_gradient_for_every_input_of_both_branches(criterion):
    many, one = scenes_of(criterion, 2)
    empty = many.targets._map(lambda x: x[:0])
    out = criterion(many.predictions, one.predictions, empty)
    assert out.num_positives == 0
    assert all(x.isfinite().all() for x in torch.autograd.grad(out.total, many.leaves + one.leaves))


def test_branches_that_do_not_belong_together_are_named():
    criterion = EndToEndLoss(DetectionLoss(3, strides=(8, 16)))
    targets = Targets(torch.zeros(1).long(), torch.zeros(1).long(), torch.full((1, 4), 0.5))
    branch = Predictions(torch.zeros(2, 64, 20), torch.zeros(2, 3, 20), ((4, 4), (2, 2)))
    fewer = branch._replace(boxes=branch.boxes[:1], scores=branch.scores[:1])
    other = branch._replace(boxes=torch.zeros(2, 64, 10), scores=torch.zeros(2, 3, 10), grid_sizes=((4, 2), (2, 1)))
    for one, message in (
        (fewer, "one.scores: expected the number of images in many.scores, got 1"),
        (other, r"one.grid_sizes: expected those of many, got \(\(4, 2\), \(2, 1\)\)"),
        (branch._replace(scores=torch.zeros(2, 4, 20)), r"predictions.scores: expected shape \[2, 3, 20\]"),
    ):
        with pytest.raises(ValueError, match=message):
            criterion(branch, one, targets)


def test_what_no_pair_can_be_made_of_is_named():
    kind: Any = DetectionLoss
    one_level = TaskAligned(top_k=7, keep=1, region=InBox(fitting_levels=True))
    for make, message in (
        (
            lambda: EndToEndLoss(kind),
            r"loss: expected a loss, such as DetectionLoss.num_classes., got the class",
        ),
        (
            lambda: EndToEndLoss(DetectionLoss(3, assigner=SimOTA())),
            "one_to_one: expected an assigner, since the loss's own",
        ),
        (
            lambda: EndToEndLoss(DetectionLoss(3), one_to_one=one_level),
            "one_to_one: expected the same candidates as the loss's",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            make()
