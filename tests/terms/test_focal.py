"""The focal family and label smoothing: against dense float64 code from the papers, and by hand."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from compiled_loss import Assignment, BinaryCrossEntropy, DetectionLoss, FocalLoss, QualityFocalLoss, VarifocalLoss

CLASSES, ANCHORS = 3, 40
LABELS = torch.tensor([2, 0, 1])
VALID = torch.tensor([True, True, True, True, False, False])
PLACES = torch.tensor(
    [[0, 0, 1, 0, 0, 1], [4, 1, 5, 0, 4, 7], [0, 1, 2, 0, 0, 1]]
)  # an empty slot at a positive's place
SCORES = torch.tensor([0.3, 1.0, 0.7, 0.05, 0.0, 0.0], dtype=torch.float64)
FLAT = Assignment(PLACES[0], PLACES[1], PLACES[2], VALID, SCORES, torch.tensor(0))
Dense = Callable[[Tensor, Tensor, Tensor], Tensor]  # logits, target scores, which are positive -> errors


def log_p(x: Tensor) -> Tensor:
    return torch.nn.functional.logsigmoid(x)


def focal(alpha: float, gamma: float) -> Dense:
    """arXiv 1708.02002, equation 5."""

    def errors(x: Tensor, score: Tensor, positive: Tensor) -> Tensor:
        p, q = torch.sigmoid(x), torch.sigmoid(-x)  # q = 1 - p, with its digits
        return torch.where(positive, -alpha * q**gamma * log_p(x), -(1 - alpha) * p**gamma * log_p(-x))

    return errors


def quality(beta: float) -> Dense:
    """arXiv 2006.04388, equation 5."""

    def errors(x: Tensor, y: Tensor, positive: Tensor) -> Tensor:
        away = torch.where(y > 0.5, torch.sigmoid(-x) - (1 - y), y - torch.sigmoid(x)).abs()
        return -(away**beta) * ((1 - y) * log_p(-x) + y * log_p(x))

    return errors


def varifocal(alpha: float, gamma: float) -> Dense:
    """arXiv 2008.13367, equation 2."""

    def errors(x: Tensor, q: Tensor, positive: Tensor) -> Tensor:
        above = -q * (q * log_p(x) + (1 - q) * log_p(-x))
        return torch.where(q > 0, above, -alpha * torch.sigmoid(x) ** gamma * log_p(-x))

    return errors


def smoothed(share: float) -> Dense:
    """arXiv 1512.00567: a share of a positive's target to all classes alike."""

    def errors(x: Tensor, score: Tensor, positive: Tensor) -> Tensor:
        target = score * (1 - share) + score.sum(1, keepdim=True) * share / x.shape[1]
        return -target * log_p(x) - (1 - target) * log_p(-x)

    return errors


FAMILY: dict[str, tuple[Callable[..., Any], tuple[float, ...], Dense]] = {
    "focal": (FocalLoss, (0.25, 2.0), focal(0.25, 2.0)),
    "focal, gamma 0": (FocalLoss, (0.5, 0.0), focal(0.5, 0.0)),
    "focal, gamma 1.5": (FocalLoss, (0.4, 1.5), focal(0.4, 1.5)),
    "quality": (QualityFocalLoss, (2.0,), quality(2.0)),
    "quality, beta 1": (QualityFocalLoss, (1.0,), quality(1.0)),
    "varifocal": (VarifocalLoss, (0.75, 2.0), varifocal(0.75, 2.0)),
    "smoothed": (lambda share, weights=None: BinaryCrossEntropy(weights, share), (0.1,), smoothed(0.1)),
}
each = pytest.mark.parametrize("name", FAMILY)


def dense_sum(errors: Dense, x: Tensor, flat: Assignment, weights: Tensor | None) -> Tensor:
    scores, positive = torch.zeros_like(x), torch.zeros_like(x, dtype=torch.bool)
    for image, anchor, row, valid, score in zip(*flat[:5], strict=True):
        if valid:
            scores[image, LABELS[row], anchor] = score.to(x.dtype)
            positive[image, LABELS[row], anchor] = True
    found = errors(x, scores, positive)
    return (found if weights is None else found * weights.to(x)[:, None]).sum()


def logits(scale: float) -> Tensor:
    x = torch.rand(2, CLASSES, ANCHORS, dtype=torch.float64) * 2 * scale - scale
    return x.float().double()  # so that float32 sees the same


@each
@pytest.mark.parametrize("weights", [None, torch.tensor([0.5, 1.0, 3.0])], ids=["plain", "weighted"])
def test_values_and_gradients_are_the_dense_ones_of_the_papers(name, weights):
    kind, options, errors = FAMILY[name]
    x = logits(6).requires_grad_()
    got, wanted = kind(*options, weights)(x, FLAT, LABELS), dense_sum(errors, x, FLAT, weights)
    torch.testing.assert_close(got, wanted, rtol=1e-12, atol=0)
    (gradient,), (slope,) = (torch.autograd.grad(f, x) for f in (got, wanted))
    torch.testing.assert_close(gradient, slope, rtol=1e-9, atol=1e-15)
    with torch.no_grad():
        torch.testing.assert_close(kind(*options, weights)(x, FLAT, LABELS), got)


@each
def test_anchors_are_weighted_and_images_told_apart(name):
    kind, options, errors = FAMILY[name]
    x, of_classes = logits(6).requires_grad_(), torch.tensor([0.5, 1.0, 3.0])
    weights = torch.ones(2, ANCHORS, dtype=torch.float64)
    weights[0, 10:20] = 0
    weights[PLACES[0, :3], PLACES[1, :3]] = torch.tensor([0.3, 2.5, 0.0]).double()
    scores, positive = torch.zeros_like(x), torch.zeros_like(x, dtype=torch.bool)
    for image, anchor, row, valid, score in zip(*FLAT[:5], strict=True):
        if valid:
            scores[image, LABELS[row], anchor] = score
            positive[image, LABELS[row], anchor] = True
    wanted = (errors(x, scores.detach(), positive) * of_classes[:, None] * weights[:, None]).sum((1, 2))
    got, images = kind(*options, of_classes).sums(x, FLAT, LABELS, weights)
    torch.testing.assert_close(images, wanted, rtol=1e-10, atol=0)
    torch.testing.assert_close(got, wanted.sum(), rtol=1e-10, atol=0)
    (gradient,), (slope,) = torch.autograd.grad(got, x), torch.autograd.grad(wanted.sum(), x)
    torch.testing.assert_close(gradient, slope, rtol=1e-9, atol=1e-15)
    broken = x.detach().clone()
    broken[0, :, 12] = math.nan
    torch.testing.assert_close(kind(*options, of_classes).sums(broken, FLAT, LABELS, weights)[0], got)


@pytest.mark.parametrize("name", [x for x in FAMILY if x != "smoothed"])
@pytest.mark.parametrize("positive", [-30.0, -8.0, -1.0, 1.0, 8.0, 15.0])
@pytest.mark.parametrize("background", [-30.0, -8.0, 0.0, 30.0])
def test_float32_keeps_the_digits_of_every_entrys_gradient(name, positive, background):
    kind, options, errors = FAMILY[name]
    x = background + torch.rand(2, CLASSES, ANCHORS).double()
    for image, anchor, row in PLACES.T[VALID].tolist():
        x[image, LABELS[row], anchor] = positive + 0.123
    exact, single = x.float().double().requires_grad_(), x.float().requires_grad_()
    # Nor float32's rounding of the scores, nor the cancellation of |t - s| where both are alike.
    flat = FLAT._replace(score=torch.where(VALID, torch.tensor([0.25, 1.0, 0.75, 0.0625, 0, 0]), 0.0))
    got, wanted = kind(*options)(single, flat, LABELS), dense_sum(errors, exact, flat, None)
    assert got.item() == pytest.approx(wanted.item(), rel=1e-5, abs=1e-30)
    (gradient,), (slope,) = torch.autograd.grad(got, single), torch.autograd.grad(wanted, exact)
    torch.testing.assert_close(gradient.double(), slope, rtol=2e-5, atol=1e-30)


@each
def test_first_and_second_derivatives_are_those_of_differences(name):
    kind, options, _ = FAMILY[name]
    term, x = kind(*options), logits(2)[:, :, :6].clone().requires_grad_()
    flat = FLAT._replace(anchor=FLAT.anchor.clamp(max=5))
    assert torch.autograd.gradcheck(lambda x: term(x, flat, LABELS), x)
    assert torch.autograd.gradgradcheck(lambda x: term(x, flat, LABELS), x)


@each
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")  # torch's own, in jvp
def test_functional_transforms_and_compiled_code_have_the_same_gradient(name):
    kind, options, _ = FAMILY[name]
    term, x = kind(*options, torch.tensor([0.5, 1.0, 3.0])), torch.randn(2, CLASSES, ANCHORS)

    def total(x: Tensor) -> Tensor:
        return torch.func.functional_call(term, dict(term.named_buffers()), (x, FLAT, LABELS))

    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(total(leaf), leaf)
    torch.testing.assert_close(torch.func.grad(total)(x), expected)
    both = torch.func.vmap(torch.func.grad(total))(torch.stack([x, 2 * x]))
    torch.testing.assert_close(both, torch.stack([expected, torch.func.grad(total)(2 * x)]))
    direction = torch.randn_like(x)
    slope = torch.func.jvp(total, (x,), (direction,))[1]
    torch.testing.assert_close(slope, (expected * direction).sum(), rtol=1e-4, atol=1e-5)
    compiled = torch.compile(lambda x: term(x, FLAT, LABELS), fullgraph=True, backend="aot_eager")
    value = compiled(leaf)
    torch.testing.assert_close(value, total(leaf))
    torch.testing.assert_close(torch.autograd.grad(value, leaf)[0], expected)


@each
def test_no_positives_and_impossible_classes_are_numbers_like_others(name):
    kind, options, errors = FAMILY[name]
    none = FLAT._replace(valid=torch.zeros(6, dtype=torch.bool), score=torch.zeros(6))
    x = torch.randn(2, CLASSES, ANCHORS)
    x[:, 1, 3] = -math.inf
    x[1] = torch.where(x[1].isinf(), x[1], 1e4)
    x.requires_grad_()
    value = kind(*options)(x, none, LABELS)
    wanted = dense_sum(errors, x.detach().double().clamp(min=-1e4), none, None)
    torch.testing.assert_close(value.double(), wanted, rtol=1e-6, atol=0)
    (gradient,) = torch.autograd.grad(value, x)
    assert gradient.isfinite().all()
    assert (gradient[:, 1, 3] == 0).all()


@pytest.mark.parametrize("kind", [FocalLoss, VarifocalLoss])
@pytest.mark.parametrize("weights", [None, 0.5])
def test_a_power_below_1_has_no_infinite_slope_at_probabilities_that_round_to_0(kind, weights):
    x = torch.zeros(1, 2, 3)
    x[0, 0, 1], x[0, 1, 2], x[0, 0, 2] = -120, -120, -math.inf
    x[0, 1, 0] = 120  # right already
    places = torch.tensor([[0, 0], [2, 0], [0, 0]])
    two = Assignment(
        places[0], places[1], places[2], torch.tensor([True, True]), torch.tensor([0.8, 1.0]), torch.tensor(0)
    )
    x.requires_grad_()
    of_anchors = None if weights is None else torch.tensor([[weights, 1.0, weights]])
    value, _ = kind(gamma=0.5).sums(x, two, torch.tensor([1]), of_anchors)
    (gradient,) = torch.autograd.grad(value, x)
    # -alpha of the focal positive, -t^2 of the varifocal one; the others are right.
    slope = -0.25 if kind is FocalLoss else -0.8 * 0.8
    wanted = slope * (1 if weights is None else weights)
    assert gradient[0, 1, 2].item() == pytest.approx(wanted)
    assert gradient[0, 1, 0] == gradient[0, 0, 1] == gradient[0, 0, 2] == 0


@each
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_broken_logit_shows_and_spoils_no_other_gradient(name, value):
    kind, options, _ = FAMILY[name]
    x = torch.randn(2, CLASSES, ANCHORS)
    whole = x.clone().requires_grad_()
    x[1, 0, 9] = value
    x.requires_grad_()
    got = kind(*options)(x, FLAT, LABELS)
    assert not got.isfinite()
    (gradient,) = torch.autograd.grad(got, x)
    (wanted,) = torch.autograd.grad(kind(*options)(whole, FLAT, LABELS), whole)
    others = torch.ones_like(wanted, dtype=torch.bool)
    others[1, 0, 9] = False
    torch.testing.assert_close(gradient[others], wanted[others])


def test_by_hand():
    x, label = torch.tensor([[[math.log(3.0)]]]), torch.tensor([0])  # a probability of 3/4
    one = Assignment(label, label, label, label == 0, torch.tensor([0.6]), torch.tensor(0))
    entropy = -0.6 * math.log(0.75) - 0.4 * math.log(0.25)
    assert FocalLoss()(x, one, label).item() == pytest.approx(-0.25 / 16 * math.log(0.75))
    assert QualityFocalLoss()(x, one, label).item() == pytest.approx(0.15**2 * entropy)
    assert VarifocalLoss()(x, one, label).item() == pytest.approx(0.6 * entropy)
    # One class keeps all of its target, of two each positive one shares.
    assert BinaryCrossEntropy(label_smoothing=0.2)(x, one, label).item() == pytest.approx(entropy)
    two = torch.tensor([[[math.log(3.0)], [0.0]]])
    wanted = -0.54 * math.log(0.75) - 0.46 * math.log(0.25) + math.log(2)
    assert BinaryCrossEntropy(label_smoothing=0.2)(two, one, label).item() == pytest.approx(wanted)


def test_without_smoothing_nothing_changes():
    x = torch.randn(2, CLASSES, ANCHORS)
    assert BinaryCrossEntropy(label_smoothing=0.0)(x, FLAT, LABELS) == BinaryCrossEntropy()(x, FLAT, LABELS)


def test_weights_are_counted_by_the_loss_that_gets_the_term():
    with pytest.raises(ValueError, match=r"class_weights: expected shape \[3\], got \(2,\)"):
        DetectionLoss(3, classification=FocalLoss(class_weights=[1.0, 2.0]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FocalLoss(1.5), "alpha: expected a number from 0 to 1, got 1.5"),
        (lambda: FocalLoss(gamma=-1), "gamma: expected a finite number of 0 or more, got -1"),
        (lambda: QualityFocalLoss(0.5), "beta: expected 0, or a number of 1 or more, got 0.5"),
        (lambda: VarifocalLoss(math.nan), "alpha: expected a finite number of 0 or more, got nan"),
        (lambda: BinaryCrossEntropy(label_smoothing=2), "label_smoothing: expected a number from 0 to 1, got 2"),
    ],
)
def test_settings_are_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()
