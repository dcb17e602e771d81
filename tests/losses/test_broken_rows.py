"""Rows with bad values: refused in eager calls, and where nobody looks, alone in being lost."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode

from compiled_loss import DetectionLoss, EndToEndLoss, LossOutput, PoseLoss, Targets, pad_rows
from compiled_loss.data.values import check_row_values
from tests.losses.scenes import Scene, outcome, positives
from tests.losses.tasks import CLASSES, OPTIONS, make_loss, make_task

IMAGES, ROW = 3, 5  # a row of the middle image
every_task = pytest.mark.parametrize("task", OPTIONS)
# What a field of one row is changed to, and what the message says.
BAD: dict[str, tuple[str, tuple, Any, str]] = {
    "NaN box": ("boxes", (2,), math.nan, "Targets.boxes: expected finite"),
    "infinite box": ("boxes", (0,), math.inf, "Targets.boxes: expected finite"),
    "negative size": ("boxes", (3,), -0.3, "Targets.boxes: .*no negative size"),
    "box in pixels": ("boxes", (), 90.0, "Targets.boxes: .*are these pixels"),
    "image beyond the batch": ("batch_idx", (), IMAGES, "Targets.batch_idx: .*below the batch size 3"),
    "image below -1": ("batch_idx", (), -2, r"Targets.batch_idx: expected -1 \(padding\) or an image"),
    "NaN keypoint": ("keypoints", (1, 0), math.nan, "Targets.keypoints: expected finite"),
    "infinite keypoint": ("keypoints", (1, 1), -math.inf, "Targets.keypoints: expected finite"),
    "NaN flag": ("keypoints", (1, 2), math.nan, "Targets.keypoints: expected finite"),
    "NaN angle": ("angles", (), math.nan, "Targets.angles: expected finite"),
    "infinite angle": ("angles", (), math.inf, "Targets.angles: expected finite"),
    "NaN mask": ("masks", (3, 4), math.nan, "Targets.masks: expected values from 0 to 1"),
}
# Refused in eager calls; elsewhere a wrong class fails by its index, and the others are numbers like others.
WRONG: dict[str, tuple[str, tuple, Any, str]] = {
    "class beyond the last": ("labels", (), CLASSES, r"Targets.labels: expected a class id in \[0, 3\), got 3"),
    "class below 0": ("labels", (), -1, "Targets.labels: expected a class id"),
    "keypoint in pixels": ("keypoints", (slice(None), 0), 90.0, "Targets.keypoints: .*are these pixels"),
    "negative flag": ("keypoints", (1, 2), -1.0, "Targets.keypoints: .*flag that is not negative"),
    "angle in degrees": ("angles", (), 90.0, "Targets.angles: .*are these degrees"),
    "mask of 255": ("masks", (3, 4), 255.0, "Targets.masks: expected values from 0 to 1"),
    "negative index": ("index_map", (3, 4), -1, "Targets.index_map: expected ids of 0"),
}


def with_bad(targets: Targets, field: str, place: tuple, value: Any) -> Targets | None:
    """The rows with one value changed in one row; None where they lack the field."""
    old = getattr(targets, field)
    if old is None:
        return None
    changed = old.clone()
    changed[(1 if field == "index_map" else ROW, *place)] = value
    if field == "keypoints" and place[-1] != 2:  # of a keypoint that is labelled
        changed[ROW, place[0], 2] = 2.0
    return targets._replace(**{field: changed})


def without_row(targets: Targets, field: str, place: tuple) -> Targets:
    """The rows with one that matches nothing in place of the bad one, of sound values.

    It is padding, or far from the image where it has to keep its place among the rows of the image, and its pixels.
    """
    if field == "batch_idx":
        return targets._replace(batch_idx=targets.batch_idx.index_fill(0, torch.tensor(ROW), -1))
    boxes = targets.boxes.clone()
    boxes[ROW] = torch.tensor([3.0, 3.0, 0.01, 0.01])
    targets = targets._replace(boxes=boxes)
    sound = with_bad(targets, field, place, 0.0) if field == "masks" else targets
    assert sound is not None
    return sound


def cases() -> list[tuple[str, str]]:
    tasks = {task: make_task(task).targets for task in OPTIONS}
    return [
        (task, name) for task, rows in tasks.items() for name, bad in (BAD | WRONG).items() if with_bad(rows, *bad[:3])
    ]


@pytest.mark.parametrize(("task", "name"), cases())
def test_an_eager_call_with_rows_on_the_host_names_the_bad_row(task, name):
    scene, criterion = make_task(task), make_loss(task)
    field, place, value, message = (BAD | WRONG)[name]
    targets = with_bad(scene.targets, field, place, value)
    assert targets is not None
    with pytest.raises(ValueError, match=message):
        criterion(scene.predictions, targets)
    with pytest.raises(ValueError, match=message):
        criterion.assign(scene.predictions, targets)
    with pytest.raises(ValueError, match=message):
        criterion.assign_dense(scene.predictions, targets)
    kind, options = OPTIONS[task]
    pair = EndToEndLoss(kind(CLASSES, **options))
    with pytest.raises(ValueError, match=message):
        pair(scene.predictions, scene.predictions, targets)
    # The look at whole columns clears nothing that `validate` refuses.
    with pytest.raises(ValueError, match=message):
        targets.validate(IMAGES, CLASSES)


@every_task
def test_a_broken_promise_of_order_is_named(task):
    scene = make_task(task)
    shuffled = scene.targets._replace(batch_idx=scene.targets.batch_idx.flip(0), is_sorted=True)
    with pytest.raises(ValueError, match=r"Targets.batch_idx: expected rows in image order .*is_sorted=True promises"):
        make_loss(task)(scene.predictions, shuffled)


@every_task
def test_rows_with_padding_of_any_value_pass_and_one_switch_stops_the_look(task):
    scene, criterion = make_task(task), make_loss(task)
    padded = pad_rows(scene.targets)
    padded.labels[-1], padded.boxes[-1] = 999, -1e6
    assert criterion(scene.predictions, padded).num_positives > 0
    targets = with_bad(scene.targets, *BAD["NaN box"][:3])
    assert targets is not None
    for off in (make_loss(task, check_values=False), criterion):
        off.check_values = False
        assert off(scene.predictions, targets).total.isfinite()
    kind, options = OPTIONS[task]
    pair = EndToEndLoss(kind(CLASSES, **options, check_values=False))
    assert pair(scene.predictions, scene.predictions, targets).total.isfinite()
    pair.check_values = True
    assert pair.one.check_values
    with pytest.raises(ValueError, match=r"Targets.boxes: expected finite"):
        pair(scene.predictions, scene.predictions, targets)


@pytest.mark.parametrize(("task", "name"), [x for x in cases() if x[1] in BAD])
def test_where_nobody_looks_a_bad_row_is_lost_alone(task, name):
    scene, criterion = make_task(task), make_loss(task, check_values=False)
    field, place, value, _ = BAD[name]
    targets = with_bad(scene.targets, field, place, value)
    assert targets is not None
    scenes = [scene._replace(targets=x) for x in (targets, without_row(scene.targets, field, place))]
    assert positives(criterion, scenes[0]) == positives(criterion, scenes[1])
    assert not any(x[2] == ROW for x in positives(criterion, scenes[0]))
    (out, gradients), (wanted, right) = (outcome(criterion, x) for x in scenes)
    assert out.num_positives > 0
    torch.testing.assert_close(out.terms, wanted.terms)
    torch.testing.assert_close(gradients, right)


@pytest.mark.parametrize("task", [x for x in OPTIONS if x not in ("detection without bins", "segmentation")])
def test_compiled_a_bad_row_is_lost_alone(task):
    scene, criterion = make_task(task), make_loss(task)  # the look is on, and traced code does not have it
    names = [name for name, x in scene.predictions._asdict().items() if isinstance(x, Tensor)]
    fields = [name for name, x in scene.targets._asdict().items() if isinstance(x, Tensor)]

    def step(maps: list[Tensor], rows: list[Tensor]) -> LossOutput:
        predictions = scene.predictions._replace(**dict(zip(names, maps, strict=True)))
        return criterion(predictions, Targets(**dict(zip(fields, rows, strict=True))))  # type: ignore[arg-type]

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    for field, place, value, _ in BAD.values():
        targets = with_bad(scene.targets, field, place, value)
        if targets is None:
            continue
        alone = without_row(scene.targets, field, place)
        wanted = step(scene.leaves, [getattr(alone, name) for name in fields])
        out = compiled(scene.leaves, [getattr(targets, name) for name in fields])
        assert out.num_positives == wanted.num_positives
        torch.testing.assert_close(out.terms, wanted.terms)
        got, right = (torch.autograd.grad(x.total, scene.leaves) for x in (out, wanted))
        torch.testing.assert_close(got, right)


def test_nothing_is_read_where_values_stand_for_others_or_live_on_a_device():
    rows = Targets(torch.tensor([9]), torch.tensor([9]), torch.full((1, 4), math.nan))
    with pytest.raises(ValueError, match=r"Targets.batch_idx"):
        check_row_values(rows, 1, 1)
    check_row_values(rows.to("meta"), 1, 1)
    with FakeTensorMode() as mode:
        check_row_values(rows._map(mode.from_tensor), 1, 1)

    def total(boxes: Tensor) -> Tensor:
        check_row_values(Targets(rows.batch_idx * 0, rows.labels * 0, boxes), 1, 1)
        return boxes.sum()

    assert torch.func.vmap(total)(torch.full((2, 1, 4), 99.0)).tolist() == [396.0, 396.0]


@every_task
def test_a_batch_without_images_is_refused(task):
    scene = make_task(task)
    maps = {name: x[:0] for name, x in scene.predictions._asdict().items() if isinstance(x, Tensor)}
    empty = scene.predictions._replace(**maps)
    message = r"predictions.boxes: expected at least one image and one anchor, got \(0, 252\)"
    with pytest.raises(ValueError, match=message):
        make_loss(task)(empty, scene.targets)
    kind, options = OPTIONS[task]
    with pytest.raises(ValueError, match=message):
        EndToEndLoss(kind(CLASSES, **options))(empty, empty, scene.targets)


def test_a_wrong_class_that_slips_through_fails():
    scene, criterion = make_task("detection"), DetectionLoss(CLASSES, check_values=False)
    for name in ("class beyond the last", "class below 0"):
        targets = with_bad(scene.targets, *WRONG[name][:3])
        assert targets is not None
        with pytest.raises(IndexError):
            criterion(scene.predictions, targets)


def test_keypoints_without_label_may_hold_anything_where_nobody_looks():
    scene, criterion = make_task("pose"), make_loss("pose", check_values=False)
    assert isinstance(criterion, PoseLoss)
    assert scene.targets.keypoints is not None
    keypoints = scene.targets.keypoints.clone()
    keypoints[:, 2] = 0.0
    broken = keypoints.clone()
    broken[:, 2, :2] = math.nan
    (out, gradients), (same, same_gradients) = (
        outcome(criterion, Scene(scene.predictions, scene.targets._replace(keypoints=k))) for k in (keypoints, broken)
    )
    assert out.num_positives > 0
    assert torch.equal(out.total, same.total)
    assert all(torch.equal(x, y) for x, y in zip(gradients, same_gradients, strict=True))
