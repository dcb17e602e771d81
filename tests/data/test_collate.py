"""From samples to batches, also through a DataLoader with workers."""

import functools
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from compiled_loss import DetectionLoss, Predictions
from compiled_loss.data.collation import collate
from compiled_loss.data.plan import TargetPlan
from compiled_loss.data.rows import pad_rows
from compiled_loss.data.targets import Targets

PLAN = TargetPlan((32, 64), (8, 16), rows=16, pages=32)


class Samples(torch.utils.data.Dataset):
    """Image i is filled with i and has i % 4 objects of class i."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, i: int) -> tuple[torch.Tensor, Targets]:
        return torch.full((3, 32, 64), float(i)), objects(i % 4, label=i)


def objects(count: int, label: int = 0, keypoints: int | None = 5) -> Targets:
    boxes = torch.tensor([[0.5, 0.5, 0.1, 0.1]]).repeat(count, 1)
    points = None if keypoints is None else torch.full((count, keypoints, 3), 0.25)
    return Targets(torch.zeros(count).long(), torch.full((count,), label), boxes, points)


def check_batch(batch: Any, labels: list[int]):
    """Rows must carry the number of the image whose label they have."""
    images, targets = batch
    assert isinstance(targets, Targets)
    assert images[:, 0, 0, 0].tolist() == labels
    expected = [(i, label) for i, label in enumerate(labels) for _ in range(label % 4)]
    n = len(expected)
    assert list(zip(targets.batch_idx[:n].tolist(), targets.labels[:n].tolist(), strict=True)) == expected
    assert (targets.batch_idx[n:] == -1).all()
    assert isinstance(targets.pages, torch.Tensor)
    assert (len(targets.labels), len(targets.pages), targets.is_sorted) == (16, 32, True)
    assert targets.keypoints is not None
    assert targets.keypoints.shape == (16, 5, 3)


def test_rows_get_the_number_of_their_image():
    batch = collate([Samples()[i] for i in (3, 0, 2)], PLAN)
    assert batch[0].shape == (3, 3, 32, 64)
    assert batch[1].validate(batch_size=3, num_classes=6) is batch[1]
    check_batch(batch, [3, 0, 2])


@pytest.mark.parametrize("workers", [0, 2])
def test_it_is_the_collate_fn_of_a_data_loader(workers):
    loader = DataLoader(Samples(), batch_size=3, num_workers=workers, collate_fn=functools.partial(collate, plan=PLAN))
    first, second = loader
    check_batch(first, [0, 1, 2])
    check_batch(second, [3, 4, 5])


@pytest.mark.parametrize("picks", [(3, 0, 2), (0, 4), (1,)], ids=str)
def test_without_a_plan_rows_are_joined_as_they_are(picks):
    samples = [Samples()[i] for i in picks]
    images, targets = next(iter(DataLoader(samples, batch_size=8, collate_fn=collate)))  # type: ignore[arg-type]
    assert images[:, 0, 0, 0].tolist() == list(picks)
    assert targets.batch_idx.tolist() == [i for i, n in enumerate(picks) for _ in range(n % 4)]
    assert targets.labels.tolist() == [n for n in picks for _ in range(n % 4)]
    assert (targets.pages, targets.is_sorted, int(targets.rows)) == (None, True, len(targets.labels))
    assert targets.validate(len(picks)) is targets
    _, padded = collate(samples, padded=True)
    assert padded.counts.tolist() == [n % 4 for n in picks]
    assert padded.labels.shape == (len(picks), 8)


def test_a_loss_reads_what_is_joined_without_a_plan_as_what_is_planned():
    samples = [Samples()[i] for i in (3, 0, 2)]
    criterion = DetectionLoss(6, strides=(8, 16))
    predictions = Predictions(torch.randn(3, 64, 40), torch.randn(3, 6, 40), ((4, 8), (2, 4)))
    (_, joined), (_, planned) = collate(samples), collate(samples, PLAN)
    torch.testing.assert_close(criterion(predictions, joined).total, criterion(predictions, planned).total)


def test_without_a_plan_images_and_values_are_still_checked():
    with pytest.raises(ValueError, match=r"samples\[1\]: expected an image \[3, 32, 64\]"):
        collate([Samples()[0], (torch.zeros(3, 64, 32), objects(1))])
    with pytest.raises(ValueError, match=r"samples\[0\]: expected shape \[channels, H, W\]"):
        collate([(torch.zeros(32, 64), objects(1))])
    with pytest.raises(ValueError, match=r"Targets.labels: expected a class id .*\(image 0\)"):
        collate([(torch.zeros(3, 32, 64), objects(2, label=-1))])
    with pytest.raises(ValueError, match=r"samples\[0\]: expected Targets, got dict; see sources.from_torchvision or"):
        collate([(torch.zeros(3, 32, 64), {"boxes": 1})])  # type: ignore[list-item]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="page-locked memory needs CUDA")
def test_pinned_batches_keep_their_type_and_reach_the_device():
    loader = DataLoader(
        Samples(), batch_size=3, num_workers=1, pin_memory=True, collate_fn=functools.partial(collate, plan=PLAN)
    )
    images, targets = next(iter(loader))
    assert images.is_pinned()
    assert targets.boxes.is_pinned()
    check_batch((images, targets.to("cuda", non_blocking=True).to("cpu")), [0, 1, 2])


def test_pinning_rebuilds_the_same_targets(monkeypatch):
    # What the loader's pinning thread does, with the copy itself (which needs an accelerator) left out.
    from torch.utils.data._utils.pin_memory import pin_memory  # noqa: PLC0415

    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self, device=None: self.clone())
    check_batch(pin_memory(collate([Samples()[i] for i in (5, 2)], PLAN)), [5, 2])


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([], "samples: expected at least one"),
        (
            [(torch.zeros(3, 32, 32), objects(1))],
            r"samples\[0\]: expected shape \[channels, 32, 64\], got \(3, 32, 32\)",
        ),
        ([Samples()[0], (torch.zeros(3, 64, 32), objects(1))], r"samples\[1\]: expected shape"),
        ([Samples()[0], (torch.zeros(1, 32, 64), objects(1))], r"samples\[1\]: .*\[3, 32, 64\].* got \[1, 32, 64\]"),
        ([Samples()[0], (torch.zeros(3, 32, 64).byte(), objects(1))], r"samples\[1\]: .*float32.* got .*uint8"),
        ([("image", objects(1))], r"samples\[0\]: expected .*got str"),
        ([(torch.zeros(3, 32, 64), (1, 2))], r"samples\[0\]: expected Targets, got tuple"),
        (
            [Samples()[0], (torch.zeros(3, 32, 64), pad_rows(objects(1)))],
            r"samples\[1\]: expected rows of one image .*without padding, got \[0, -1",
        ),
        (
            [(torch.zeros(3, 32, 64), objects(1)._replace(batch_idx=torch.ones(1).long()))],
            r"samples\[0\]: expected rows of one image .* got \[1\]",
        ),
        (
            [Samples()[0], (torch.zeros(3, 32, 64), objects(0, keypoints=None))],
            r"samples\[1\].keypoints: .*\[N, 5, 3\].* got None",
        ),
        (
            [Samples()[0], (torch.zeros(3, 32, 64), objects(1, keypoints=4))],
            r"samples\[1\].keypoints: .*got \[N, 4, 3\]",
        ),
        ([(torch.zeros(3, 32, 64), objects(2, label=-1))], r"Targets.labels: expected a class id .*\(image 0\)"),
        ([(torch.zeros(3, 32, 64), objects(2)._replace(boxes=torch.zeros(4)))], r"samples\[0\].boxes: .*\[2, 4\]"),
    ],
)
def test_a_bad_sample_is_named(samples, message):
    with pytest.raises(ValueError, match=message):
        collate(samples, PLAN)
