"""A training loop in the style of torchvision's detection references: `model(images, targets)` returns losses by name.

    python examples/trainers/torchvision_style.py [--data FOLDER] [--device cuda]

Targets come as a list of dicts with boxes in pixels; gradients of two batches are accumulated.
"""

from __future__ import annotations

import torch
from claims import Record, claim
from common import STRIDES, Detection, Pictures, make_optimizer, make_step, plan_of, read_options
from torch import Tensor, nn
from torch.utils.data import DataLoader

from compiled_loss import TargetPlan, Targets, sources

ACCUMULATE = 2


class AsDicts(torch.utils.data.Dataset):
    """The pictures with labels as torchvision's models take them: boxes (x1, y1, x2, y2) in pixels, classes from 1."""

    def __init__(self, pictures: Pictures) -> None:
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        image, rows = self.pictures[index]
        centre, half = rows.boxes[:, :2], rows.boxes[:, 2:] / 2
        corners = torch.cat([centre - half, centre + half], 1) * image.shape[-1]
        return image, {"boxes": corners, "labels": rows.labels + 1}


class Collate:
    """In the place of the references' `tuple(zip(*batch))`.

    Reading the dicts looks at values, so it belongs here, on the host and in the loader's workers, and not after
    `targets.to(device)`, where every look is a wait.
    """

    def __init__(self, plan: TargetPlan) -> None:
        self.plan = plan

    def __call__(self, batch: list[tuple[Tensor, dict[str, Tensor]]]) -> tuple[Tensor, Targets]:
        images, dicts = zip(*batch, strict=True)
        # Class 0 is torchvision's background, and the first class here.
        dicts = [{**one, "labels": one["labels"] - 1} for one in dicts]
        rows = sources.from_torchvision(dicts, self.plan.image_size)
        return torch.stack(images), self.plan.apply(rows, len(images))


class Model(nn.Module):
    """A dict of losses, which the loop adds up: the mean of an image, since `terms` carry B."""

    def __init__(self, step: Detection) -> None:
        super().__init__()
        self.step = step

    def forward(self, images: Tensor, targets: Targets) -> dict[str, Tensor]:
        terms = self.step.criterion(*self.step.model(images), targets).terms
        return {f"loss_{name}": term / images.shape[0] for name, term in terms.items()}


def train(model: nn.Module, loader: DataLoader, steps: int, device: str, record: Record | None = None) -> list[float]:
    optimizer, losses = make_optimizer(model), []
    while len(losses) < steps:
        for images, targets in loader:
            # Under mode="reduce-overhead" a replay writes over what the one before returned, and accumulation keeps
            # several in flight: say where a step begins. Anywhere else this does nothing.
            torch.compiler.cudagraph_mark_step_begin()
            parts = model(images.to(device), targets.to(device))
            loss = torch.stack([*parts.values()]).sum()
            # Each batch is divided by the scores of its own positives, so the mean of two batches is not the one of a
            # batch twice as large: with accumulation all is right but for that, as with any normaliser of a batch.
            (loss / ACCUMULATE).backward()
            losses.append(loss.item())
            if len(losses) % ACCUMULATE == 0:
                optimizer.step()
                optimizer.zero_grad()
            if record is not None:
                record.step(losses[-1])
            if len(losses) == steps:
                break
    return losses


def main() -> None:
    options = read_options(__doc__)
    pictures = Pictures(options)
    plan, data = plan_of(pictures, options.batch_size), AsDicts(pictures)
    loader = DataLoader(data, options.batch_size, collate_fn=Collate(plan), drop_last=True)

    step = make_step(pictures).to(options.device)
    model = Model(step)
    model.compile(fullgraph=True, backend=options.backend)
    record = Record()
    train(model, loader, options.steps, options.device, record)
    print(f"torchvision's reference style, torch {torch.__version__}, on {options.device}")
    claim(f"strides {STRIDES}, one plan of {plan.rows} rows", plan.rows is not None)
    plain = train(Model(make_step(pictures).to(options.device)), loader, options.steps, options.device)
    record.prove(step.criterion, plain)


if __name__ == "__main__":
    main()
