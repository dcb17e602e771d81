"""Object keypoint similarity against a float64 loop and against cases worked by hand."""

import math

import pytest
import torch

from compiled_loss.geometry.keypoints import COCO_SIGMAS, keypoint_errors, oks
from tests.reference import geometry as reference


def test_similarity_equals_the_float64_loop():
    generator = torch.Generator().manual_seed(0)
    predicted = torch.rand(60, 17, 2, generator=generator) * 50
    target = predicted + torch.randn(60, 17, 2, generator=generator) * 3
    visible = torch.rand(60, 17, generator=generator) > 0.4
    visible[0] = False
    area = torch.rand(60, generator=generator) * 1000
    got = oks(predicted, target, visible, area, torch.tensor(COCO_SIGMAS))
    for n in range(60):
        expected = reference.oks(predicted[n], target[n], visible[n].tolist(), area[n].item(), reference.COCO_SIGMAS)
        assert got[n].item() == pytest.approx(expected, abs=2e-6)


def test_cases_worked_by_hand():
    sigmas, area = torch.tensor([0.5, 0.5]), torch.tensor(2.0)
    target = torch.zeros(2, 2)
    predicted = torch.tensor([[0.0, 0.0], [2.0, 0.0]])
    # d2 = 4, (2 sigma)^2 = 1, area = 2: e = 4 / (1 * 2 * 2) = 1
    torch.testing.assert_close(keypoint_errors(predicted, target, area, sigmas), torch.tensor([0.0, 1.0]))
    for visible, expected in (([1, 1], (1 + math.exp(-1)) / 2), ([1, 0], 1), ([0, 1], math.exp(-1)), ([0, 0], 0)):
        got = oks(predicted, target, torch.tensor(visible), area, sigmas)
        assert got.item() == pytest.approx(expected, abs=1e-6)


def test_flags_above_one_do_not_count_more_than_once_as_bools():
    flags = torch.tensor([2, 1, 0])
    points = torch.zeros(3, 2)
    assert oks(points, points, flags != 0, torch.tensor(1.0), torch.ones(3)).item() == pytest.approx(1, abs=1e-6)


def test_pairs_broadcast():
    predicted, target = torch.rand(4, 1, 5, 2), torch.rand(1, 3, 5, 2)
    got = oks(predicted, target, torch.ones(1, 3, 5), torch.ones(1, 3), torch.full((5,), 0.2))
    assert got.shape == (4, 3)


def test_gradients_are_finite_without_area_and_without_visible_keypoints():
    predicted = torch.rand(2, 3, 2, requires_grad=True)
    value = oks(predicted, torch.rand(2, 3, 2), torch.zeros(2, 3), torch.zeros(2), torch.full((3,), 0.1))
    assert value.tolist() == [0, 0]
    (gradient,) = torch.autograd.grad(value.sum(), predicted)
    assert gradient.isfinite().all()


def test_the_coco_sigmas_are_the_published_ones():
    assert len(COCO_SIGMAS) == 17
    assert pytest.approx(reference.COCO_SIGMAS) == COCO_SIGMAS
