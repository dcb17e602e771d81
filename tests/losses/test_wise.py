"""The running mean of Wise IoU: what moves it, eager and compiled, and what does not."""

import pytest
import torch
from torch import distributed
from torch import multiprocessing as mp

from compiled_loss import (
    ATSS,
    Assigner,
    BinaryCrossEntropy,
    DetectionLoss,
    EndToEndLoss,
    Predictions,
    Scheduled,
    Targets,
    TaskAligned,
    WIoU,
)
from tests.losses.scenes import Scene, make_scene, outcome

TRUE = torch.tensor([[0.0, 0, 4, 4], [0.0, 0, 4, 4], [0.0, 0, 0, 0]])
PREDICTED = torch.tensor([[0.0, 0, 2, 4], [0.0, 0, 1, 4], [3.0, 3, 3, 3]])  # errors 0.5 and 0.75; an empty slot
ONES = torch.ones(3)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_each_call_in_training_moves_the_mean_towards_the_positives_mean(compiled):
    term = WIoU(momentum=0.25)
    call = torch.compile(term, fullgraph=True, backend="aot_eager") if compiled else term
    mean = 1.0
    for _ in range(3):
        call(PREDICTED.clone().requires_grad_(), TRUE, ONES).sum().backward()
        mean += 0.25 * (0.625 - mean)
        assert term.mean.item() == pytest.approx(mean, rel=1e-6)


def test_evaluation_version_1_empty_batches_and_broken_boxes_leave_the_mean_alone():
    term = WIoU(momentum=0.5)
    term(PREDICTED[2:], TRUE[2:], ONES[2:])
    term(PREDICTED[:0], TRUE[:0], ONES[:0])
    term(PREDICTED * torch.nan, TRUE, ONES)
    term.eval()(PREDICTED, TRUE, ONES)
    assert term.mean == 1
    first = WIoU(version=1)
    first(PREDICTED, TRUE, ONES)
    assert first.mean == 1
    term.train()(torch.cat([PREDICTED, PREDICTED * torch.nan]), torch.cat([TRUE, TRUE]), torch.ones(6))
    assert term.mean.item() == pytest.approx(0.8125)


def test_neither_the_best_nor_the_worst_boxes_weigh_most():
    shares = torch.linspace(0.02, 0.98, 49)
    predicted = torch.stack([shares * 0, shares * 0, 4 * shares, shares * 0 + 4], 1)
    weights = WIoU(mean=0.3, momentum=0.0)(predicted, TRUE[:1], ONES[:1]) / WIoU(1)(predicted, TRUE[:1], ONES[:1])
    outlier = (1 - shares) / 0.3
    # d/db of b alpha^-b is 0 at 1 / ln alpha = 1.558
    assert abs(outlier[weights.argmax()] - 1.558) < 0.07
    assert weights[outlier.sub(3).abs().argmin()].item() == pytest.approx(1, abs=0.05)


def scene(rows: int, seed: int = 3) -> Scene:
    found = make_scene(seed, DetectionLoss(3), counts=(rows, 2), size=(64, 96))
    return found if rows else found._replace(targets=found.targets._map(lambda x: x[:0]))


def test_a_loss_moves_it_in_one_graph_by_the_positives_alone_and_it_stays_float32():
    term = WIoU(momentum=0.5)
    criterion, plain = DetectionLoss(3, box_term=term), DetectionLoss(3)
    one = scene(9)
    with torch.no_grad():
        found = plain.assign(*one)
        view = plain.view(one.predictions, plain.place(*one))
        predicted = view.boxes[found.image, found.anchor]
        true = view.scene.boxes[found.row]
        errors = 1 - torch.stack([_iou(a, b) for a, b in zip(predicted, true, strict=True)])[found.valid]
    compiled = torch.compile(criterion, fullgraph=True, backend="aot_eager")
    outcome(compiled, one)
    assert term.mean.item() == pytest.approx(0.5 + 0.5 * errors.mean().item(), rel=1e-4)
    before = term.mean.clone()
    outcome(criterion, scene(0))
    criterion.eval()
    outcome(criterion, one)
    assert term.mean == before
    assert list(criterion.half().state_dict()) == ["box_term.mean"]
    assert term.mean.dtype == torch.float32


def test_rows_of_weight_0_leave_the_mean_alone():
    batch, means = scene(9), []
    # The last image's rows once without weight, once not there.
    image = batch.targets.batch_idx
    weightless = batch.targets._replace(weights=torch.where(image == 0, 1.0, 0.0))
    absent = batch.targets._replace(batch_idx=torch.where(image == 0, image, -1))
    assert 0 < (image == 1).sum() < len(image)
    for targets in (weightless, absent, batch.targets):
        term = WIoU(momentum=0.5)
        DetectionLoss(3, box_term=term)(batch.predictions, targets)
        means.append(term.mean.item())
    assert means[0] == pytest.approx(means[1], rel=1e-6)
    assert means[0] != pytest.approx(means[2], rel=1e-4)


def _iou(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    shared = (torch.minimum(a[2:], b[2:]) - torch.maximum(a[:2], b[:2])).clamp(min=0).prod()
    return shared / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - shared)


def test_of_two_calls_before_one_backward_each_has_the_gradient_of_its_own_mean():
    term, x = WIoU(momentum=0.5), PREDICTED.clone().requires_grad_()
    both = term(x, TRUE, ONES).sum() + term(x, TRUE, ONES).sum()
    (got,) = torch.autograd.grad(both, x)
    means = [1 + 0.5 * (0.625 - 1)]
    means.append(means[0] + 0.5 * (0.625 - means[0]))
    wanted = torch.stack([WIoU(mean=m, momentum=0.0)(x, TRUE, ONES).sum() for m in means]).sum()
    torch.testing.assert_close(got, torch.autograd.grad(wanted, x)[0])


def test_functional_calls_work_in_evaluation():
    criterion = DetectionLoss(2, strides=(8, 16), box_term=WIoU()).eval()
    targets = Targets(torch.tensor([0]), torch.tensor([1]), torch.tensor([[0.5, 0.5, 0.5, 0.5]]))
    boxes, scores = torch.randn(1, 64, 20), torch.randn(1, 2, 20)

    def total(boxes: torch.Tensor) -> torch.Tensor:
        return criterion(Predictions(boxes, scores, ((4, 4), (2, 2))), targets).total

    leaf = boxes.clone().requires_grad_()
    torch.testing.assert_close(torch.func.grad(total)(boxes), torch.autograd.grad(total(leaf), leaf)[0])


def work(rank: int, path: str, results: mp.SimpleQueue) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=2)
    means = []
    for compile_it in (False, True):
        term = WIoU(momentum=0.5, distributed=True)
        call = torch.compile(term, fullgraph=True, backend="aot_eager") if compile_it else term
        for shown in (slice(rank, rank + 1), slice(2 * rank, 3 * rank)):  # one each; then none, and an empty slot
            call(PREDICTED[shown].clone().requires_grad_(), TRUE[shown], ONES[shown]).sum().backward()
        means.append(term.mean.item())
    results.put(means)
    distributed.destroy_process_group()


def test_over_ranks_it_is_the_mean_of_all_positives(tmp_path):
    context = mp.get_context("spawn")
    results = context.SimpleQueue()
    workers = [context.Process(target=work, args=(rank, tmp_path / "store", results)) for rank in range(2)]
    for worker in workers:
        worker.start()
    answers = [results.get() for _ in workers]
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert [x for answer in answers for x in answer] == pytest.approx([0.8125] * 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"version": 2}, "version: expected 1 or 3, got 2"),
        ({"alpha": 1.0}, "alpha: expected a number above 1, got 1.0"),
        ({"delta": 0}, "delta: expected a finite number above 0, got 0"),
        ({"momentum": 1.5}, "momentum: expected a number from 0 to 1, got 1.5"),
        ({"mean": torch.inf}, "mean: expected a finite number above 0, got inf"),
        ({"distributed": "no"}, "distributed: expected True or False, got 'no'"),
    ],
)
def test_settings_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        WIoU(**options)


def test_ranks_without_a_process_group_are_refused():
    with pytest.raises(ValueError, match="distributed: expected an initialised process group, got None"):
        WIoU(distributed=True)(PREDICTED, TRUE, ONES)


def test_a_predicted_box_that_is_inside_out_costs_a_finite_number():
    predicted = torch.tensor([[308.0, 2.0, 8.0, 6.0], [300.0, 300.0, -300.0, -200.0]], requires_grad=True)
    error = WIoU(1)(predicted, torch.tensor([[0.0, 0.0, 10.0, 8.0]]), torch.ones(2))
    (gradient,) = torch.autograd.grad(error.sum(), predicted)
    # Centres at (158, 4), beyond the corners' hull, and at (0, 50).
    torch.testing.assert_close(error, torch.full((2,), torch.e))
    assert gradient.isfinite().all()


@pytest.mark.parametrize(
    "options", [{"alpha": 1e13}, {"delta": 1e-40}, {"delta": 5e-324}, {"alpha": 1.0 + 2**-52, "delta": 1e-15}]
)
def test_weights_that_float32_does_not_hold_are_refused(options):
    with pytest.raises(ValueError, match="alpha, delta: expected weights that float32 can hold"):
        WIoU(**options)


@pytest.mark.parametrize("options", [{"alpha": 1e8}, {"delta": 90.0}, {"alpha": 1.5, "delta": 1e-20}])
def test_the_steepest_weights_that_are_allowed_are_finite(options):
    for mean in (1e-30, 1e-6, 1.0, 1e30):
        term = WIoU(mean=mean, momentum=0.0, **options)
        x = torch.tensor([[0.0, 0, 4, 4], [0.0, 0, 4, 3], [50.0, 50, 51, 51]], requires_grad=True)
        error = term(x, torch.tensor([[0.0, 0, 4, 4]]), torch.ones(3))
        assert error.isfinite().all()
        assert torch.autograd.grad(error.sum(), x)[0].isfinite().all()


def test_a_mean_that_float32_does_not_hold_is_refused():
    for mean in (1e300, 1e-300):
        with pytest.raises(ValueError, match="mean: expected a number above 0 that float32 can hold"):
            WIoU(mean=mean)


def test_what_is_made_in_inference_mode_trains():
    def made(assigner: Assigner) -> DetectionLoss:
        classes = BinaryCrossEntropy(torch.tensor([1.0, 2.0, 0.5]))
        return DetectionLoss(3, box_term=WIoU(momentum=0.5), classification=classes, assigner=assigner)

    with torch.inference_mode():
        schedule = Scheduled(ATSS(), TaskAligned())
        criterion, branches = made(schedule), EndToEndLoss(DetectionLoss(3))
    one = scene(9)
    (got, gradients), (wanted, right) = outcome(criterion, one), outcome(made(ATSS()), one)
    for a, b in zip([got.total, *gradients], [wanted.total, *right], strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    schedule.set_second(True)
    branches.set_progress(1, 2)
