"""The distributed normaliser: two processes, one of them without objects, against the formula."""

import pytest
import torch
from torch import distributed
from torch import multiprocessing as mp

from compiled_loss import DetectionLoss
from tests.losses.scenes import Scene, make_scene, outcome

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


def test_the_normaliser_is_the_mean_of_the_score_sums_over_the_ranks(tmp_path):
    context = mp.get_context("spawn")
    results = context.SimpleQueue()
    workers = [context.Process(target=work, args=(rank, tmp_path / "store", results)) for rank in range(WORLD)]
    for worker in workers:
        worker.start()
    answers = dict(results.get() for _ in workers)
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0

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
