"""The unreduced terms, by hand and against plain loops."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from compiled_loss.terms.box import distribution_focal, scaled_l1
from compiled_loss.terms.classification import BinaryCrossEntropy, softplus_sum
from compiled_loss.terms.focal import QualityFocalLoss, VarifocalLoss
from compiled_loss.terms.keypoints import keypoint_location
from compiled_loss.terms.rotated import angle_error
from compiled_loss.types import Assignment


def test_a_whole_distance_is_the_cross_entropy_of_its_bin():
    logits = torch.randn(1, 4, 16, dtype=torch.float64)
    distances = torch.tensor([[0.0, 3.0, 7.0, 14.0]], dtype=torch.float64)
    expected = F.cross_entropy(logits[0], distances[0].long())
    assert distribution_focal(logits, distances).item() == pytest.approx(expected.item())


def test_a_distance_between_bins_is_split_linearly():
    logits = torch.randn(1, 4, 16, dtype=torch.float64)
    distances = torch.tensor([[2.25, 0.5, 13.9, 9.0]], dtype=torch.float64)
    log = logits.log_softmax(-1)[0]
    by_hand = [
        0.75 * log[0, 2] + 0.25 * log[0, 3],
        0.5 * log[1, 0] + 0.5 * log[1, 1],
        0.1 * log[2, 13] + 0.9 * log[2, 14],
        log[3, 9],
    ]
    assert distribution_focal(logits, distances).item() == pytest.approx(-torch.stack(by_hand).mean().item())


def test_distances_beyond_the_bins_are_clamped_just_short_of_the_last():
    logits = torch.randn(1, 4, 8, dtype=torch.float64)
    outside = torch.tensor([[-3.0, 7.0, 6.995, 100.0]], dtype=torch.float64)
    inside = torch.tensor([[0.0, 6.99, 6.99, 6.99]], dtype=torch.float64)
    torch.testing.assert_close(distribution_focal(logits, outside), distribution_focal(logits, inside))


def test_the_distance_term_has_the_right_gradient():
    logits = torch.randn(2, 4, 5, dtype=torch.float64, requires_grad=True)
    distances = torch.rand(2, 4, dtype=torch.float64) * 4
    assert torch.autograd.gradcheck(distribution_focal, (logits, distances))


def test_a_bin_that_the_distance_does_not_touch_may_be_impossible():
    logits = torch.randn(1, 4, 16, requires_grad=True)
    masked = torch.where(torch.arange(16) == 15, -math.inf, logits)
    distances = torch.full((1, 4), 2.3)
    value = distribution_focal(masked, distances).sum()
    torch.testing.assert_close(value, distribution_focal(logits[..., :15], distances).sum())
    assert torch.autograd.grad(value, logits)[0].isfinite().all()


def test_the_l1_term_counts_fractions_of_the_image():
    predicted, true = torch.tensor([[1.0, 2, 3, 4]]), torch.tensor([[0.0, 4, 3, -1]])
    # errors 1, 2, 0, 5 grid units of 8 pixels; the image is 40 wide and 80 high
    expected = (8 / 40 + 16 / 80 + 0 + 40 / 80) / 4
    assert scaled_l1(predicted, true, torch.tensor([8.0]), (80, 40)).item() == pytest.approx(expected)


@pytest.mark.parametrize("anchors", [6, 16, 40])
def test_classification_equals_the_dense_binary_cross_entropy(anchors):
    scores = torch.randn(2, 3, anchors, dtype=torch.float64, requires_grad=True)
    image, anchor, row = torch.tensor([0, 0, 1, 0]), torch.tensor([4, 1, 5, 0]), torch.tensor([0, 1, 2, 0])
    valid = torch.tensor([True, True, True, False])
    score = torch.tensor([0.3, 1.0, 0.7, 0.0], dtype=torch.float64)
    labels = torch.tensor([2, 0, 1])
    dense = torch.zeros_like(scores).detach()
    for i in range(3):
        dense[image[i], labels[row[i]], anchor[i]] = score[i]
    flat = Assignment(image, anchor, row, valid, score, torch.tensor(0))
    for weights in (None, torch.tensor([0.5, 1.0, 3.0])):
        factor = 1 if weights is None else weights[:, None]
        entropy = F.binary_cross_entropy_with_logits(scores, dense, reduction="none")
        expected, got = (entropy * factor).sum(), BinaryCrossEntropy(weights)(scores, flat, labels)
        torch.testing.assert_close(got, expected)
        (gradient,), (wanted,) = (torch.autograd.grad(x, scores) for x in (got, expected))
        torch.testing.assert_close(gradient, wanted)


@pytest.mark.parametrize("logit", [-30.0, -17.0, -11.0, -5.0, 0.0, 3.0, 20.0])
def test_the_sum_over_background_keeps_its_digits_in_float32(logit):
    x = logit + torch.rand(1, 50)
    sums = softplus_sum(x)
    torch.testing.assert_close(sums.double(), F.softplus(x.double(), threshold=100).sum(-1), rtol=1e-6, atol=0)


def test_keypoint_location_by_hand():
    predicted = torch.tensor([[[0.0, 0.0], [2.0, 0.0], [9.0, 9.0]]])
    visible = torch.tensor([[True, True, False]])
    # d2 = 4, (2 sigma)^2 = 1, area = 2: e = 1 for the second; two of three are visible
    got = keypoint_location(predicted, torch.zeros(1, 3, 2), visible, torch.tensor([2.0]), torch.full((3,), 0.5))
    expected = torch.tensor([[0.0, 1.5 * (1 - math.exp(-1)), 0.0]])
    torch.testing.assert_close(got, expected)


def test_keypoints_none_of_which_is_visible_count_nothing():
    predicted = torch.randn(2, 3, 2, requires_grad=True)
    got = keypoint_location(predicted, torch.zeros(2, 3, 2), torch.zeros(2, 3), torch.ones(2), torch.ones(3))
    assert not got.any()
    (gradient,) = torch.autograd.grad(got.sum(), predicted)
    assert not gradient.any()


def test_an_eighth_of_a_turn_costs_a_square_most_and_a_quarter_nothing():
    angles = torch.tensor([0.0, math.pi / 8, math.pi / 4, math.pi / 2])
    ones = torch.ones(4)
    assert angle_error(angles, torch.zeros(4), ones, ones).tolist() == pytest.approx([0, 0.5, 1, 0], abs=1e-6)


def test_the_angle_of_a_long_box_counts_less():
    turn, width = torch.full((3,), math.pi / 4), torch.tensor([math.e**3, 1.0, 0.0])
    error = angle_error(turn, torch.zeros(3), width, torch.tensor([1.0, math.e**3, 0.0]))
    assert error.tolist() == pytest.approx([math.exp(-1), math.exp(-1), 1])


def of_a_positive(score: float, weight: float | None = None) -> tuple[Tensor, Assignment, dict[str, Tensor]]:
    """Logits of two classes and three anchors, -inf in one of class 1, and a positive of class 0 there."""
    scores = torch.tensor([[[0.5, 1.0, -1.0], [0.25, -math.inf, 0.0]]], requires_grad=True)
    image, anchor, row = torch.tensor([[0], [1], [0]])
    one = Assignment(image, anchor, row, torch.tensor([True]), torch.tensor([score]), torch.tensor(0))
    weights = {} if weight is None else {"weights": torch.tensor([[1.0, weight, 1.0]])}
    return scores, one, weights


@pytest.mark.parametrize("weight", [None, 1.0, 0.5, 0.0])
def test_smoothed_labels_of_score_0_want_nothing_of_an_impossible_class(weight):
    scores, one, weights = of_a_positive(0.0, weight)
    value, _ = BinaryCrossEntropy(label_smoothing=0.2).sums(scores, one, torch.tensor([0]), **weights)
    of_anchor = torch.tensor([1.0, 1.0 if weight is None else weight, 1.0])
    wanted = torch.stack([F.softplus(scores[0, c, a]) * of_anchor[a] for c in (0, 1) for a in range(3)]).sum()
    torch.testing.assert_close(value, wanted)
    assert torch.autograd.grad(value, scores)[0].isfinite().all()


def test_smoothed_labels_cost_infinitely_much_where_a_class_is_impossible_unless_it_weighs_nothing():
    scores, one, _ = of_a_positive(0.5)
    label = torch.tensor([0])
    assert BinaryCrossEntropy(label_smoothing=0.2)(scores, one, label) == math.inf
    value = BinaryCrossEntropy([1.0, 0.0], label_smoothing=0.2)(scores, one, label)
    torch.testing.assert_close(value, F.softplus(scores[0, 0]).sum() - 0.5 * 0.9 * scores[0, 0, 1])
    assert torch.autograd.grad(value, scores)[0].isfinite().all()


@pytest.mark.parametrize("term", [QualityFocalLoss(), VarifocalLoss(), BinaryCrossEntropy()])
def test_a_positive_of_score_0_and_logit_minus_infinity_costs_nothing(term):
    scores = torch.full((1, 1, 2), -math.inf, requires_grad=True)
    one = of_a_positive(0.0)[1]
    value = term(scores, one, torch.tensor([0]))
    assert value.item() == 0
    value.backward()
    assert scores.grad is not None
    assert scores.grad.isfinite().all()
