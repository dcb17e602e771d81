"""accelerate loading in one process for all, its default for an iterable data set. Skips where it is not installed.

`accelerate` slices every tensor of a batch by image, in several processes after joining batches.
"""

import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from compiled_loss import DetectionLoss, Predictions, TargetPlan, Targets, collate

accelerate = pytest.importorskip("accelerate")

ROOT = Path(__file__).parents[2]
SIZE, IMAGES, GRIDS = (64, 64), 14, ((8, 8), (4, 4), (2, 2))
LOSS = DetectionLoss(3)


def sample(i: int) -> tuple[Tensor, Targets]:
    """Image i is filled with i and has i % 5 objects."""
    n, dice = i % 5, torch.Generator().manual_seed(i)
    boxes = 0.3 + 0.4 * torch.rand(n, 4, generator=dice)
    return torch.full((3, *SIZE), float(i)), Targets(torch.zeros(n).long(), torch.full((n,), i % 3), boxes)


class Stream(IterableDataset):
    def __iter__(self):
        return map(sample, range(IMAGES))


def prepared(accelerator, *, padded: bool):
    rows = [sample(i)[1] for i in range(IMAGES)]
    plan = TargetPlan.from_dataset(rows, batch_size=4, image_size=SIZE)
    return accelerator.prepare(
        DataLoader(Stream(), batch_size=4, collate_fn=functools.partial(collate, plan=plan, padded=padded))
    )


def accelerator_of(**options):
    return accelerate.Accelerator(cpu=True, dataloader_config=accelerate.DataLoaderConfiguration(**options))


def head(images: Tensor) -> Predictions:
    dice = torch.Generator().manual_seed(0)
    maps = [torch.randn(1, channels, 84, generator=dice) for channels in (64, 3)]
    return Predictions(*(x * (1 + images[:, :1, :1, 0] / IMAGES) for x in maps), grid_sizes=GRIDS)


def check(split: bool) -> list[int]:
    """Train on what this process is given; the images that came, each with the loss of its own rows."""
    seen = []
    for images, targets in prepared(accelerator_of(split_batches=split), padded=True):
        ids = images[:, 0, 0, 0].int().tolist()
        assert targets.validate(len(ids), 3).counts.tolist() == [i % 5 for i in ids]
        rows = [sample(i)[1] for i in ids]
        batch_idx = torch.cat([x.batch_idx + b for b, x in enumerate(rows)])
        flat = Targets(batch_idx, torch.cat([x.labels for x in rows]), torch.cat([x.boxes for x in rows]))
        got, wanted = LOSS(head(images), targets), LOSS(head(images), flat)
        assert got.overflow == 0
        assert torch.equal(got.total, wanted.total)
        seen += ids
    return seen


@pytest.mark.parametrize("split", [False, True], ids=["joined", "split"])
def test_padded_targets_come_whole_in_one_process(split):
    assert check(split) == list(range(IMAGES))


@pytest.mark.parametrize("split", [False, True], ids=["joined", "split"])
def test_padded_targets_come_whole_in_two_processes(split, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", __file__]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command += [str(tmp_path), *["split"] * split]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    seen = [[int(word) for word in path.read_text().split()] for path in tmp_path.iterdir()]
    assert len(seen) == 2
    assert sorted(i for ids in seen for i in ids) == list(range(IMAGES))


@pytest.mark.parametrize("split", [False, True], ids=["joined", "split"])
def test_flat_rows_end_in_an_error(split):
    with pytest.raises((RuntimeError, IndexError), match=r"batches of different size|0-dim"):
        list(prepared(accelerator_of(split_batches=split), padded=False))


def test_flat_rows_come_whole_where_each_process_loads_for_itself():
    batches = list(prepared(accelerator_of(dispatch_batches=False), padded=False))
    assert [int((t.batch_idx >= 0).sum()) for _, t in batches] == [6, 7, 8, 5]
    assert [t.validate(len(images)).is_sorted for images, t in batches] == [True] * 4


if __name__ == "__main__":
    Path(sys.argv[1], os.environ["RANK"]).write_text(" ".join(map(str, check("split" in sys.argv))))
