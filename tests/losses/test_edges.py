"""Edges where an answer could be silently wrong: broken scores, levels out of order."""

import pytest
import torch

from compiled_loss import BinaryCrossEntropy, DetectionLoss, PoseLoss, TargetPlan, to_dense
from tests.losses.scenes import make_scene


@pytest.mark.parametrize("value", [float("inf"), float("nan"), -float("inf")])
def test_a_broken_class_logit_picks_no_anchor(value):
    criterion = DetectionLoss(3)
    predictions, targets = make_scene(1, criterion)
    assignment = criterion.assign(predictions, targets)
    image, anchor = assignment.image[assignment.valid][0], assignment.anchor[assignment.valid][0]
    scores = predictions.scores.detach().clone()
    scores[image, :, anchor] = value
    again = criterion.assign(predictions._replace(scores=scores), targets)
    assert again.valid.any()
    assert not (again.valid & (again.image == image) & (again.anchor == anchor)).any()
    assert again.score.isfinite().all()


@pytest.mark.parametrize("change", [lambda g: g[::-1], lambda g: ((1, g[0][0] * g[0][1]), *g[1:])])
def test_levels_that_do_not_belong_to_one_image_are_refused(change):
    criterion = DetectionLoss(3)
    predictions, targets = make_scene(2, criterion)
    with pytest.raises(ValueError, match=r"predictions.grid_sizes: expected levels of one image, finest first"):
        criterion(predictions._replace(grid_sizes=change(predictions.grid_sizes)), targets)


@pytest.mark.parametrize("strides", [(32, 16, 8), (8, 8, 8), (8, 12.5), ()])
def test_strides_that_do_not_ascend_are_refused(strides):
    with pytest.raises(ValueError, match="strides: expected different positive whole numbers, finest level first"):
        DetectionLoss(3, strides)


def test_a_half_precision_module_keeps_its_weights_exact():
    weights, sigmas = torch.tensor([0.1, 0.7]), torch.full((5,), 0.3)
    criterion = PoseLoss(2, 5, sigmas=sigmas, classification=BinaryCrossEntropy(weights)).bfloat16()
    buffers = dict(criterion.named_buffers())
    assert torch.equal(buffers["classification.class_weights"], weights)
    assert torch.equal(buffers["extra0.sigmas"], sigmas)
    assert all(x.device.type == "meta" for x in criterion.to("meta").buffers())


def test_the_dense_assignment_is_the_flat_one_with_boxes_in_pixels():
    criterion = DetectionLoss(3)
    predictions, targets = make_scene(4, criterion)
    dense, flat = criterion.assign_dense(predictions, targets), criterion.assign(predictions, targets)
    batch, classes, anchors = predictions.scores.shape
    expected = to_dense(flat, targets.labels, targets.boxes, batch, anchors, classes)
    assert torch.equal(dense.row, expected.row)
    assert torch.equal(dense.scores, expected.scores)
    height, width = (8 * n for n in predictions.grid_sizes[0])
    x, y, w, h = (targets.boxes[dense.row] * torch.tensor([width, height, width, height])).unbind(-1)
    pixels = torch.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], -1)
    torch.testing.assert_close(dense.boxes[dense.foreground], pixels[dense.foreground])


def test_a_plan_checks_images_and_classes_where_it_knows_how_many_there_are():
    _, targets = make_scene(6, DetectionLoss(3))
    plan = TargetPlan((64, 64), num_classes=2)
    targets.labels[:] = 2
    with pytest.raises(ValueError, match=r"Targets.labels: expected a class id in \[0, 2\), got 2 in row 0"):
        plan.apply(targets)
    with pytest.raises(ValueError, match=r"Targets.batch_idx: expected .* below the batch size 1"):
        plan.apply(targets._replace(batch_idx=torch.ones_like(targets.batch_idx)), batch_size=1)
