"""Decoding and the k best detections of every task, against one number after the other in float64."""

import math

import pytest
import torch
from torch import Tensor

from compiled_loss import (
    Detections,
    EndToEndLoss,
    OrientedLoss,
    PoseLoss,
    Predictions,
    ResidualPoseLoss,
    SegmentationLoss,
)
from compiled_loss.audit import audit
from compiled_loss.losses.scene import detached
from tests.losses.tasks import CLASSES, KEYPOINTS, OPTIONS, make_loss, make_task, maps_of
from tests.reference import decoding

SOUND = [(task, name) for task in OPTIONS for name in maps_of(task)]
OF_ANCHORS = ("boxes", "scores", "keypoints", "angles", "coefficients")
IMAGE = (96, 128)
K = 40


def sound(task: str) -> Predictions:
    """The task's predictions without a gradient."""
    return detached(make_task(task).predictions)


def reference(criterion, predictions):
    dims = next((x.keypoint_dims for x in criterion.extras if hasattr(x, "keypoint_dims")), 3)
    offsets = isinstance(criterion, ResidualPoseLoss)
    return decoding.decode(predictions, criterion.strides, criterion.reg_max, dims=dims, offsets=offsets)


def assert_decoded(criterion, predictions):
    decoded, expected = criterion.decode(predictions), reference(criterion, predictions)
    for name, got in (("box", decoded.boxes), ("scores", decoded.scores), ("keypoints", decoded.keypoints)):
        wanted = torch.tensor([[getattr(anchor, name) for anchor in image] for image in expected])
        if got is None:
            assert wanted.numel() == 0
            continue
        assert got.dtype == torch.float32
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-4 if name != "scores" else 1e-6)
    if predictions.coefficients is None:
        assert decoded.coefficients is None
    else:
        assert decoded.coefficients is not None
        assert torch.equal(decoded.coefficients, predictions.coefficients.transpose(1, 2))


def bins(*sides: int) -> Tensor:
    """`[1, 64, 21]` logits of distances that are sure, in cells."""
    logits = torch.full((1, 4, 16, 21), -30.0)
    logits[:, range(4), sides] = 30.0
    return logits.flatten(1, 2)


def test_boxes_and_keypoints_are_pixels_around_the_anchor():
    predictions = Predictions(bins(2, 2, 2, 2), torch.zeros(1, 1, 21), ((4, 4), (2, 2), (1, 1)), torch.zeros(1, 3, 21))
    decoded = PoseLoss(1, 1).decode(predictions)
    assert decoded.boxes[0, 0].tolist() == pytest.approx([4 - 16, 4 - 16, 4 + 16, 4 + 16])
    assert decoded.boxes[0, 20].tolist() == pytest.approx([16 - 64, 16 - 64, 16 + 64, 16 + 64])
    assert decoded.keypoints is not None
    assert decoded.keypoints[0, 16, 0].tolist() == pytest.approx([0, 0, 0.5])
    assert decoded.scores.unique().tolist() == [0.5]


def test_oriented_boxes_turn_about_their_anchor():
    angles = torch.full((1, 1, 21), torch.pi / 2)
    predictions = Predictions(bins(1, 1, 3, 1), torch.zeros(1, 1, 21), ((4, 4), (2, 2), (1, 1)), angles=angles)
    # Three cells to the right are now three down.
    assert OrientedLoss(1).decode(predictions).boxes[0, 0].tolist() == pytest.approx([4, 4 + 8, 32, 16, torch.pi / 2])


@pytest.mark.parametrize("task", OPTIONS)
def test_every_anchor_is_decoded_as_one_number_after_the_other(task):
    assert_decoded(make_loss(task), sound(task))


@pytest.mark.parametrize(
    "criterion",
    [PoseLoss(CLASSES, KEYPOINTS, keypoint_dims=2), ResidualPoseLoss(CLASSES, KEYPOINTS, keypoint_dims=2, flow=None)],
)
def test_keypoints_without_visibility_are_positions_alone(criterion):
    raw = sound("pose")
    assert raw.keypoints is not None
    predictions = raw._replace(keypoints=raw.keypoints[:, : 2 * KEYPOINTS])
    assert_decoded(criterion, predictions)
    keypoints = criterion.detect(predictions, 3).keypoints
    assert keypoints is not None
    assert keypoints.shape == (3, 3, KEYPOINTS, 2)


def test_other_levels_than_three():
    criterion = make_loss("oriented", strides=(8, 16), reg_max=4)
    generator = torch.Generator().manual_seed(0)
    boxes, scores, angles = (torch.randn(2, n, 60, generator=generator) for n in (16, CLASSES, 1))
    assert_decoded(criterion, Predictions(boxes, scores, ((6, 8), (3, 4)), angles=angles))


def assert_equal(got, wanted):
    """Bit for bit, field by field."""
    for x, y in zip(got, wanted, strict=True):
        assert (x is None) is (y is None)
        assert x is None or torch.equal(x, y)


def assert_best(criterion, predictions, found: Detections, k):
    """The detections are the reference's pairs, with what decoding says of their anchors."""
    decoded, grid = criterion.decode(predictions), predictions.scores.double()
    for i in range(len(grid)):
        pairs = decoding.best(grid[i].tolist(), k)
        assert list(zip(found.anchors[i].tolist(), found.labels[i].tolist(), strict=True)) == pairs
        anchors, labels = (torch.tensor(x) for x in zip(*pairs, strict=True))
        assert torch.equal(found.boxes[i], decoded.boxes[i, anchors])
        torch.testing.assert_close(found.scores[i], decoded.scores[i, anchors, labels], rtol=1e-6, atol=0)
        if decoded.keypoints is not None:
            assert found.keypoints is not None
            assert torch.equal(found.keypoints[i], decoded.keypoints[i, anchors])


@pytest.mark.parametrize("task", OPTIONS)
def test_the_best_are_the_best_pairs_of_an_anchor_and_a_class(task):
    criterion, predictions = make_loss(task), sound(task)
    assert_best(criterion, predictions, criterion.detect(predictions, K), K)


@pytest.mark.parametrize("k", [1, 10, 252])
def test_equal_logits_come_by_anchor_and_then_by_class(k):
    criterion, predictions = make_loss("detection"), sound("detection")
    rounded = predictions._replace(scores=predictions.scores.round())
    assert len(rounded.scores.unique()) < 40
    assert_best(criterion, rounded, criterion.detect(rounded, k), k)
    level = predictions._replace(scores=torch.full_like(predictions.scores, -0.0))
    assert_best(criterion, level, criterion.detect(level, k), k)


def test_an_anchor_may_be_there_with_several_classes():
    criterion, predictions = make_loss("detection"), sound("detection")
    scores = torch.full_like(predictions.scores, -9.0)
    scores[1, :, 7] = torch.tensor([2.0, 3.0, 1.0])
    found = criterion.detect(predictions._replace(scores=scores), 4)
    assert found.anchors[1].tolist() == [7, 7, 7, 0]
    assert found.labels[1].tolist() == [1, 0, 2, 0]


@pytest.mark.parametrize("size", [None, (13, 40), IMAGE])
def test_masks_are_what_prototypes_add_up_to_inside_the_box(size):
    criterion, predictions = make_loss("segmentation"), sound("segmentation")
    assert predictions.coefficients is not None
    assert predictions.prototypes is not None
    found = criterion.detect(predictions, 4, mask_size=size)
    assert found.masks is not None
    assert found.masks.shape[2:] == (size or (24, 32))
    seen = 0
    for i, image in enumerate(found.anchors.tolist()):
        for j, anchor in enumerate(image):
            coefficients = predictions.coefficients[i, :, anchor].tolist()
            box, prototypes = found.boxes[i, j].tolist(), predictions.prototypes[i].tolist()
            wanted = torch.tensor(decoding.mask(coefficients, prototypes, box, IMAGE, size or (24, 32)))
            torch.testing.assert_close(found.masks[i, j], wanted, rtol=1e-4, atol=1e-5)
            seen += int((wanted > 0).sum())
    assert seen > 100


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("task", OPTIONS)
def test_half_precision_is_decoded_in_float32(task, dtype):
    criterion, raw = make_loss(task), sound(task)
    maps = {name: x.to(dtype) for name, x in raw._asdict().items() if isinstance(x, Tensor)}
    low, high = raw._replace(**maps), raw._replace(**{name: x.float() for name, x in maps.items()})
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = [*criterion.decode(low), *criterion.detect(low, K)]
    assert_equal(got, [*criterion.decode(high), *criterion.detect(high, K)])


def test_more_than_there_are_is_padded_with_nothing():
    criterion, predictions = make_loss("segmentation"), sound("segmentation")
    few, many = criterion.detect(predictions, 252 * CLASSES), criterion.detect(predictions, 800)
    assert few.scores.shape == (3, 756)
    assert (few.scores > 0).all()
    for x, y in zip(few, many, strict=True):
        if x is not None and y is not None:
            torch.testing.assert_close(x, y[:, :756], rtol=1e-6, atol=1e-6)
            assert not y[:, 756:].any()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("task", "name"), [x for x in SOUND if x[1] in OF_ANCHORS])
def test_a_broken_anchor_comes_last_and_is_nothing(task, name, value):
    criterion, before = make_loss(task), sound(task)
    image, anchor = 1, int(criterion.detect(before, 1).anchors[1])
    changed = getattr(before, name).clone()
    changed[image, -1, anchor] = value
    after = before._replace(**{name: changed})
    # A bin or a class of probability 0 is a number like others.
    whole = value == -math.inf and (name == "scores" or (name == "boxes" and criterion.reg_max > 1))
    decoded, intact = criterion.decode(after), criterion.decode(before)
    for x, y in zip(decoded, intact, strict=True):
        if x is not None and y is not None:
            assert x.isfinite().all()
            assert whole or not x[image, anchor].any()
            others = torch.arange(x.shape[1]) != anchor
            assert torch.equal(x[:, others], y[:, others])
    found = criterion.detect(after, 252 * CLASSES)
    assert all(x is None or x.isfinite().all() for x in found)
    if not whole:
        assert anchor not in found.anchors[image, :-CLASSES].tolist()
        assert not found.scores[image, -CLASSES:].any()
        assert (found.scores[image, :-CLASSES] > 0).all()


def test_an_anchor_whose_classes_are_impossible_comes_before_broken_ones():
    criterion, predictions = make_loss("detection"), sound("detection")
    scores = torch.full_like(predictions.scores, -math.inf)
    scores[:, :, :5] = math.nan
    found = criterion.detect(predictions._replace(scores=scores), 300)
    assert not found.scores.any()
    assert found.anchors[0, :3].tolist() == [5, 5, 5]


def test_broken_prototypes_make_no_other_image_wrong():
    criterion, predictions = make_loss("segmentation"), sound("segmentation")
    assert predictions.prototypes is not None
    prototypes = predictions.prototypes.clone()
    prototypes[1] = math.nan
    masks, intact = (criterion.detect(x, 9).masks for x in (predictions._replace(prototypes=prototypes), predictions))
    assert masks is not None
    assert intact is not None
    assert torch.equal(masks[[0, 2]], intact[[0, 2]])
    assert not (masks[1] > 0.5).any()


@pytest.mark.parametrize("task", ["pose", "segmentation"])
def test_an_end_to_end_loss_decodes_its_one_to_one_branch(task):
    criterion, one = make_loss(task), sound(task)
    pair = EndToEndLoss(criterion)
    assert_equal(pair.decode(one), criterion.decode(one))
    assert_equal(pair.detect(one, 7), criterion.detect(one, 7))


def test_maps_that_only_the_loss_reads_may_be_missing():
    for task in ("residual pose", "segmentation"):
        criterion, predictions = make_loss(task), sound(task)
        bare = predictions._replace(keypoint_sigmas=None, semantic=None)
        assert torch.equal(criterion.detect(bare, 5).boxes, criterion.detect(predictions, 5).boxes)
    assert criterion.decode(bare._replace(prototypes=None)).coefficients is not None


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"prototypes": None}, {}, "predictions.prototypes: expected a tensor, got None"),
        ({"prototypes": torch.zeros(3, 5, 4, 4)}, {}, r"predictions.prototypes: expected shape \[3, 6, H, W\]"),
        ({"coefficients": None}, {}, "predictions.coefficients: expected a tensor, got None"),
        ({"scores": torch.zeros(3, 4, 252)}, {}, r"predictions.scores: expected shape \[3, 3, 252\]"),
        ({}, {"k": 0}, "k: expected an integer of at least 1, got 0"),
        ({}, {"k": 2.5}, "k: expected an integer of at least 1, got 2.5"),
        ({}, {"mask_size": 160}, r"mask_size: expected \(height, width\) in mask pixels, or None, got 160"),
        ({}, {"mask_size": (160, 0)}, "mask_size: expected an integer of at least 1, got 0"),
    ],
)
def test_bad_input_is_named(change, options, message):
    with pytest.raises(ValueError, match=message):
        SegmentationLoss(CLASSES).detect(sound("segmentation")._replace(**change), **options)


@pytest.mark.parametrize(
    ("task", "size"), [("pose", None), ("residual pose", None), ("oriented", None), ("segmentation", (40, 56))]
)
def test_decoding_is_one_graph_for_every_number_of_images_and_exports(task, size):
    criterion, given = make_loss(task), sound(task)
    names = [name for name, x in given._asdict().items() if isinstance(x, Tensor) and name not in ("semantic",)]

    def decoded(*maps: Tensor) -> tuple[Tensor, ...]:
        predictions = Predictions(grid_sizes=given.grid_sizes, **dict(zip(names, maps, strict=True)))
        found = [*criterion.decode(predictions), *criterion.detect(predictions, K, mask_size=size)]
        return tuple(x for x in found if x is not None)

    def batch(images: int) -> tuple[Tensor, ...]:
        maps = [getattr(given, name).repeat(2, *(1,) * (getattr(given, name).dim() - 1))[:images] for name in names]
        for x in maps:
            torch._dynamo.mark_dynamic(x, 0)
        return tuple(maps)

    batches = [batch(n) for n in (3, 5, 2)]
    report = audit(decoded, batches, warmup=1, backend="aot_eager", tolerance=1e-5, exportable=True)
    report.raise_if_failed()
