"""The segmentation loss: by hand, against the float64 loops, and what it promises."""

from dataclasses import replace

import pytest
import torch

from compiled_loss import EndToEndLoss, LossOutput, Predictions, Targets, TaskAligned
from compiled_loss.data.plan import TargetPlan
from compiled_loss.data.rows import map_rows, pad_rows
from compiled_loss.grid import make_anchors
from compiled_loss.losses.segmentation import SegmentationLoss
from tests.reference.batches import KINDS, LAYOUTS, Batch, Raw, make_batch, make_predictions
from tests.reference.losses import ReferenceLoss
from tests.reference.mask_batches import add_mask_predictions, add_masks
from tests.reference.masks import segmentation_loss

MAPS = ("boxes", "scores", "coefficients", "prototypes", "semantic")
PLAIN, AWARE = {"reg_max": 16}, {"reg_max": 1, "mask_overlap": True}
STRICT = {"reg_max": 1, "mask_overlap": True, "top_k": 7, "keep": 1}


class Scene:
    """A batch with masks and predictions. Gradients flow to the predictions."""

    def __init__(self, seed: int, options: dict, *, stacked: bool = False, scale: int = 4, **batch_options) -> None:
        batch_options = {"counts": (3, 0, 9, 1), "layout": LAYOUTS[seed % len(LAYOUTS)]} | batch_options
        batch = make_batch(seed, **batch_options)
        self.batch: Batch = add_masks(seed, batch, stacked=stacked, stray=True, scale=scale)
        raw = make_predictions(seed + 1, batch, kind=KINDS[seed % len(KINDS)], reg_max=options["reg_max"])
        self.raw: Raw = add_mask_predictions(seed + 2, self.batch, raw, semantic=True)
        self.options = {name: x for name, x in options.items() if name != "reg_max"}
        selected = {name: options[name] for name in ("top_k", "keep") if name in options}
        others = {name: x for name, x in options.items() if name not in selected}
        self.criterion = SegmentationLoss(3, assigner=TaskAligned(**selected), **others)
        self.leaves = [getattr(self.raw, name).clone().requires_grad_() for name in MAPS]
        targets = Targets(self.batch.batch_idx, self.batch.labels, self.batch.boxes, class_map=self.batch.class_map)
        self.targets = targets._replace(**{"masks" if stacked else "index_map": self.batch.masks})

    @property
    def predictions(self) -> Predictions:
        return Predictions(grid_sizes=self.raw.grid_sizes, **dict(zip(MAPS, self.leaves, strict=True)))

    def expected(self) -> ReferenceLoss:
        raw, batch = self.raw, self.batch
        assert raw.coefficients is not None
        assert raw.prototypes is not None
        assert batch.masks is not None
        maps = raw.boxes, raw.scores, raw.coefficients, raw.prototypes, raw.grid_sizes
        rows = batch.batch_idx, batch.labels, batch.boxes, batch.masks
        return segmentation_loss(*maps, *rows, raw.semantic, batch.class_map, **self.options)


def outcome(scene: Scene) -> tuple[LossOutput, tuple[torch.Tensor, ...]]:
    """The loss, and the gradient of its total for every map."""
    out = scene.criterion(scene.predictions, scene.targets)
    return out, torch.autograd.grad(out.total, scene.leaves)


def assert_equal(scene: Scene, targets: Targets) -> None:
    wanted = scene.expected()
    scene.targets = targets
    out, gradients = outcome(scene)
    assert out.overflow == 0
    assert out.num_positives == len(wanted.positives)
    for name, value in out.terms.items():
        assert value.item() == pytest.approx(wanted.terms[name], rel=1e-5, abs=1e-6), name
    assert out.terms.keys() == wanted.terms.keys()
    for name, gradient in zip(MAPS, gradients, strict=True):
        right = wanted.gradients[name]
        atol = 2e-5 * right.abs().max().item() + 1e-9
        torch.testing.assert_close(gradient.double(), right, rtol=0, atol=atol, msg=name)


@pytest.mark.parametrize("options", [PLAIN, AWARE, STRICT], ids=["plain", "mask overlap", "one anchor a row"])
@pytest.mark.parametrize("stacked", [False, True], ids=["index map", "stacked"])
@pytest.mark.parametrize(("seed", "scale"), [(0, 4), (1, 2), (2, 8), (5, 4)])
def test_the_loss_and_its_gradients_equal_the_float64_loops(options, stacked, seed, scale):
    scene = Scene(seed, options, stacked=stacked, scale=scale)
    assert_equal(scene, scene.targets)
    assert_equal(scene, TargetPlan(scene.batch.size).apply(scene.targets))


@pytest.mark.parametrize("options", [PLAIN, AWARE, STRICT], ids=["plain", "mask overlap", "one anchor a row"])
def test_masks_of_objects_without_an_aligned_anchor_count_where_that_is_asked_for(options):
    more = 0
    for seed in range(4):
        scene = Scene(seed, options, counts=(30, 0, 40, 12), layout="tiny", size=(160, 160))
        before = scene.criterion(scene.predictions, scene.targets).num_positives
        assert isinstance(scene.criterion.assigner, TaskAligned)
        criterion = scene.criterion.with_assigner(replace(scene.criterion.assigner, keep_zeros=True))
        assert isinstance(criterion, SegmentationLoss)
        scene.criterion = criterion
        scene.options["oracle_ties"] = True
        assert_equal(scene, scene.targets)
        assert_equal(scene, TargetPlan(scene.batch.size).apply(scene.targets))
        more += int(scene.criterion(scene.predictions, scene.targets).num_positives - before)
    assert more > 0 or "keep" in options


def test_the_mask_and_semantic_terms_by_hand():
    # One object of 8 x 8 mask pixels, all logits 0: every pixel costs ln 2, whatever its mask.
    criterion = SegmentationLoss(1, strides=(8,), mask_gain=2.0, semantic_gain=3.0)
    maps = {"coefficients": torch.zeros(1, 4, 64), "prototypes": torch.randn(1, 4, 16, 16)}
    predictions = Predictions(torch.zeros(1, 64, 64), torch.zeros(1, 1, 64), ((8, 8),), **maps)
    ones = torch.ones(1, 16, 16, dtype=torch.uint8)
    targets = Targets(torch.tensor([0]), torch.tensor([0]), torch.full((1, 4), 0.5), index_map=ones)
    out = criterion(predictions, targets)
    assert list(out.terms) == ["box", "seg", "cls", "dfl", "sem"]
    assert out.terms["seg"].item() == pytest.approx(2 * 0.693147, rel=1e-5)
    assert out.terms["sem"] == 0
    out = criterion(
        predictions._replace(semantic=torch.full((1, 1, 16, 16), 100.0)), targets._replace(class_map=ones * 0)
    )
    assert out.terms["sem"].item() == pytest.approx(0, abs=1e-6)
    out = criterion(
        predictions._replace(semantic=torch.full((1, 1, 16, 16), -100.0)), targets._replace(class_map=ones * 0)
    )
    assert out.terms["sem"].item() == pytest.approx(3 * (100 / 2 + (1 - 1 / 257) / 2), rel=1e-5)


@pytest.mark.parametrize("planned", [False, True], ids=["unplanned", "planned"])
@pytest.mark.parametrize("options", [PLAIN, AWARE], ids=["plain", "mask overlap"])
def test_the_order_of_rows_and_padding_change_nothing(options, planned):
    scene = Scene(3, options, stacked=True)
    wanted, gradients = outcome(scene)
    rows = scene.targets
    order = torch.randperm(len(rows.labels))
    scene.targets = pad_rows(map_rows(rows, lambda x: x[order]))
    if planned:
        scene.targets = TargetPlan(scene.batch.size).apply(scene.targets)
    got, others = outcome(scene)
    torch.testing.assert_close(torch.stack([*got.terms.values()]), torch.stack([*wanted.terms.values()]))
    torch.testing.assert_close(others, gradients)


@pytest.mark.parametrize("options", [PLAIN, AWARE], ids=["plain", "mask overlap"])
@pytest.mark.parametrize("kind", ["no rows", "padding alone"])
@pytest.mark.parametrize("planned", [False, True], ids=["unplanned", "planned"])
def test_a_batch_without_objects_has_only_a_classification_loss_and_finite_gradients(options, kind, planned):
    scene = Scene(1, options, counts=(0, 0))
    if kind == "padding alone":
        scene.targets = pad_rows(scene.targets)
    if planned:
        scene.targets = scene.targets._replace(mask_tiles=32, pages=32)
    out, gradients = outcome(scene)
    assert out.num_positives == 0
    assert all(term == 0 for name, term in out.terms.items() if name != "cls")
    assert [bool(x.any()) for x in gradients] == [False, True, False, False, False]
    assert all(x.isfinite().all() for x in gradients)


@pytest.mark.parametrize("options", [PLAIN, AWARE], ids=["plain", "mask overlap"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_broken_masks_of_one_image_leave_the_gradients_of_the_others_alone(options, value):
    scene = Scene(2, options, counts=(4, 5, 3), layout="spread")
    for i in (2, 3):
        broken = scene.leaves[i].detach().clone()
        broken[1] = value
        whole, scene.leaves[i] = scene.leaves[i], broken.requires_grad_()
        out, gradients = outcome(scene)
        assert out.num_positives > 0
        assert all(x[[0, 2]].isfinite().all() for x in gradients)
        scene.leaves[i] = whole


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("options", [PLAIN, AWARE], ids=["plain", "mask overlap"])
def test_half_predictions_count_as_their_float32_values_and_autocast_changes_nothing(options, dtype):
    scene = Scene(4, options)
    low = [x.detach().to(dtype).requires_grad_() for x in scene.leaves]
    scene.leaves = [x.detach().float().requires_grad_() for x in low]
    wanted, expected = outcome(scene)
    scene.leaves = low
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got, gradients = outcome(scene)
    torch.testing.assert_close(got.total, wanted.total)
    for x, y in zip(gradients, expected, strict=True):
        assert x.dtype == dtype
        torch.testing.assert_close(x, y.to(dtype))


def test_a_plan_that_is_too_small_is_reported_and_the_loss_stays_finite():
    scene = Scene(0, PLAIN)
    scene.targets = scene.targets._replace(mask_tiles=2)
    with pytest.warns(UserWarning, match="had no room for the mask pixels"):
        out, gradients = outcome(scene)
    assert out.overflow > 0
    assert all(x.isfinite().all() for x in (out.total, *gradients))


def test_a_row_that_wins_the_anchors_of_others_finds_room_for_all_of_them():
    torch.manual_seed(0)
    points, _ = make_anchors([(40, 40)], [8])
    boxes = torch.tensor([[0.5, 0.5, 0.6, 0.6], [0.5, 0.5, 0.61, 0.6], [0.5, 0.5, 0.6, 0.61]])
    true = torch.tensor([8.0, 8.0, 32.0, 32.0])
    sides = torch.cat([points - true[:2], true[2:] - points], 1).T[None].contiguous()  # all as the first row's box
    inside = [y * 40 + x for y in (18, 20, 22) for x in range(12, 28)]
    scores = torch.full((1, 3, 1600), -9.0)
    for label, first in enumerate((0, 10, 19)):  # the third row selects one anchor of the second
        scores[0, label, inside[first : first + 10]] = 3.0
    maps = {"coefficients": torch.randn(1, 4, 1600), "prototypes": torch.randn(1, 4, 160, 160)}
    predictions = Predictions(sides, scores, ((40, 40),), **maps)
    whole = torch.ones(1, 160, 160, dtype=torch.uint8)
    targets = Targets(torch.zeros(3).long(), torch.arange(3), boxes, index_map=whole)
    criterion = SegmentationLoss(3, strides=(8,), reg_max=1)
    planned = TargetPlan((320, 320), (8,)).apply(targets, 1)
    expected, got = criterion(predictions, targets), criterion(predictions, planned)
    assert criterion.assign(predictions, targets).row.bincount().max() > 10
    assert got.overflow == 0
    torch.testing.assert_close(got.terms["seg"], expected.terms["seg"])


def test_of_two_branches_the_larger_cut_is_reported():
    scene = Scene(0, PLAIN, counts=(30, 0, 9, 1), layout="spread")
    pair = EndToEndLoss(SegmentationLoss(3, check_values=False))
    for tiles, cut in ((40, {"many": True, "one": True}), (72, {"many": True, "one": False}), (120, {})):
        targets = scene.targets._replace(mask_tiles=tiles)
        alone = [branch(scene.predictions, targets).overflow.item() for branch in (pair.many, pair.one)]
        assert [x > 0 for x in alone] == [cut.get("many", False), cut.get("one", False)]
        assert pair(scene.predictions, scene.predictions, targets).overflow == max(alone)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda p, t: (p._replace(coefficients=None), t), "predictions.coefficients"),
        (lambda p, t: (p._replace(prototypes=None), t), "predictions.prototypes"),
        (lambda p, t: (p._replace(prototypes=p.prototypes[:, 1:]), t), "predictions.prototypes"),
        (lambda p, t: (p._replace(coefficients=p.coefficients[..., 1:]), t), "predictions.coefficients"),
        (lambda p, t: (p._replace(semantic=p.semantic[:, 1:]), t), "predictions.semantic"),
        (lambda p, t: (p, t._replace(index_map=None, class_map=None)), "targets.masks, targets.index_map"),
        (lambda p, t: (p, t._replace(class_map=None)), "targets.class_map"),
        (lambda p, t: (p, t._replace(index_map=t.index_map[1:], class_map=None)), "targets.index_map"),
        (lambda p, t: (p, t._replace(index_map=t.index_map.to(torch.uint16))), "targets.index_map"),
        (lambda p, t: (p, t._replace(mask_tiles=0)), "targets.mask_tiles"),
    ],
)
def test_arguments_that_do_not_fit_are_named(change, name):
    scene = Scene(0, PLAIN)
    with pytest.raises(ValueError, match=f"^{name}: expected"):
        scene.criterion(*change(scene.predictions, scene.targets))


def test_a_plan_of_the_whole_data_set_holds_every_batch():
    images = []
    for seed in range(6):
        batch = add_masks(seed, make_batch(seed, counts=(5 + seed,)), num_classes=3)
        images.append(Targets(*batch[2:5], index_map=batch.masks))
    plan = TargetPlan.from_dataset(images, batch_size=2, image_size=(96, 128))
    assert plan.mask_tiles is not None
    for image in images:
        planned = plan.apply(image)
        assert isinstance(planned.mask_tiles, torch.Tensor)
        assert len(planned.mask_tiles) == plan.mask_tiles
        of_batch = TargetPlan((96, 128)).apply(image).mask_tiles
        assert isinstance(of_batch, torch.Tensor)
        assert len(of_batch) <= plan.mask_tiles
