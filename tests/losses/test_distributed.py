"""What is averaged over ranks: two processes against the formula, and against one process on the joined batch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed
from torch import multiprocessing as mp

from compiled_loss import DetectionLoss, Predictions
from compiled_loss.data.rows import map_rows
from tests.losses.scenes import Scene, make_scene, outcome
from tests.losses.tasks import OPTIONS, make_loss, make_task

WORLD = 2


def scene_of(rank: int, empty: bool) -> Scene:
    scene = make_scene(20 + rank, DetectionLoss(3), counts=(9, 7) if rank == 0 else (3, 2), size=(64, 96))
    if rank == 1 and empty:
        return scene._replace(targets=scene.targets._map(lambda x: x[:0]))
    return scene


def work(rank: int, path: str, results: mp.SimpleQueue) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=WORLD)
    criterion = DetectionLoss(3, distributed=True)
    compiled = torch.compile(criterion, fullgraph=True, backend="aot_eager")
    answers = []
    for empty in (False, True):
        for function in (criterion, compiled):
            scene = scene_of(rank, empty)
            out, gradients = outcome(function, scene)
            answers.append(
                [out.total.item(), *(x.item() for x in out.terms.values()), *(g.sum().item() for g in gradients)]
            )
    results.put((rank, answers))
    distributed.destroy_process_group()


def answers_of(work: Callable[..., None], folder: Path) -> dict[int, Any]:
    """What a function answers in a process of each rank."""
    context = mp.get_context("spawn")
    results = context.SimpleQueue()
    workers = [context.Process(target=work, args=(rank, folder / "store", results)) for rank in range(WORLD)]
    for worker in workers:
        worker.start()
    answers = dict(results.get() for _ in workers)
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    return answers


def test_the_normaliser_is_the_mean_of_the_score_sums_over_the_ranks(tmp_path):
    answers = answers_of(work, tmp_path)

    plain = DetectionLoss(3)
    for case, empty in enumerate((False, False, True, True)):
        scenes = [scene_of(rank, empty) for rank in range(WORLD)]
        sums = [plain.assign(*scene).score.double().sum().item() for scene in scenes]
        mean = max(1.0, sum(sums)) / WORLD
        for rank, scene in enumerate(scenes):
            out, gradients = outcome(plain, scene)
            alone = [out.total.item(), *(x.item() for x in out.terms.values()), *(g.sum().item() for g in gradients)]
            expected = [x * max(1.0, sums[rank]) / mean for x in alone]
            assert answers[rank][case] == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_asking_for_ranks_without_a_process_group_is_refused():
    criterion = DetectionLoss(3, distributed=True)
    with pytest.raises(ValueError, match="distributed: expected an initialised process group, got None"):
        criterion(*scene_of(0, empty=False))


SHARES = ((0, 1), (2,))  # images of each rank, not equally many


def share_of(scene: Scene, images: tuple[int, ...]) -> Scene:
    """The batch of some neighbouring images."""
    some, first = slice(images[0], images[-1] + 1), images[0]
    maps: dict[str, Any] = {
        name: x[some].detach().requires_grad_() if isinstance(x, torch.Tensor) else x
        for name, x in scene.predictions._asdict().items()
    }
    kept = torch.isin(scene.targets.batch_idx, torch.tensor(images)).nonzero().flatten()
    rows = map_rows(scene.targets, lambda x: x[kept])
    whole = {n: x[some] for n in ("index_map", "class_map") if (x := getattr(rows, n)) is not None}
    return Scene(Predictions(**maps), rows._replace(batch_idx=rows.batch_idx - first, **whole))


def losses_of_tasks(rank: int, path: str, results: mp.SimpleQueue) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=WORLD)
    answers = {}
    for task in OPTIONS:
        scene = share_of(make_task(task), SHARES[rank])
        out, gradients = outcome(make_loss(task, distributed=True), scene)
        images = len(SHARES[rank])
        terms = {name: x.item() / images for name, x in out.terms.items()}
        answers[task] = terms, [(g / images).numpy() for g in gradients]
    results.put((rank, answers))
    distributed.destroy_process_group()


def test_the_mean_over_ranks_of_the_mean_of_an_image_is_that_of_the_joined_batch(tmp_path):
    answers = answers_of(losses_of_tasks, tmp_path)

    for task in OPTIONS:
        out, gradients = outcome(make_loss(task), make_task(task))
        images = sum(len(share) for share in SHARES)
        for name, term in out.terms.items():
            mean = sum(answers[rank][task][0][name] for rank in range(WORLD)) / WORLD
            assert mean == pytest.approx(term.item() / images, rel=1e-5, abs=1e-7), (task, name)
        for i, gradient in enumerate(gradients):
            # What DistributedDataParallel makes of the ranks' gradients: their mean.
            joined = torch.cat([torch.as_tensor(answers[rank][task][1][i]) / WORLD for rank in range(WORLD)])
            torch.testing.assert_close(joined, gradient / images, rtol=1e-4, atol=1e-7)
