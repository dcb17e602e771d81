"""Random and edge batches for a graph, made from the table of its inputs."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from compiled_loss.exporting.interface import Port, sizes
from compiled_loss.exporting.metadata import Metadata

IMAGES, ROWS = (1, 2, 8), (0, 1, 2, 7, 300)
# Sizes of the coarsest level if the image size is open. In the largest, distances exceed the finest level's bins.
CELLS = ((2, 3), (4, 2), (5, 5), (10, 8))
# Mean and spread of the class logits: of a trained head, and of the batches with these names.
SCORES = {"plain": (-2, 2), "fresh head": (-11.5, 1), "certain background": (-18, 3), "saturated scores": (0, 60)}


class Draw(NamedTuple):
    """One batch to make.

    Args:
        name: what is special about it.
        axes: sizes of B, N, h and w.
        decided: whether its assignment depends on values, and not on a rule for ties.
    """

    name: str
    axes: dict[str, int]
    decided: bool = True

    @property
    def title(self) -> str:
        """Such as `plain B=2 N=7`."""
        return f"{self.name} B={self.axes['B']} N={self.axes['N']}"


def draws() -> Iterator[Draw]:
    """Every number of images with every number of rows, then the edge cases."""
    for i, (images, rows) in enumerate((b, n) for b in IMAGES for n in ROWS):
        yield Draw("plain", _axes(images, rows, i))
    for i, (images, rows) in enumerate(((2, 7), (8, 300))):
        yield Draw("unsorted with padding", _axes(images, rows, i))
        yield Draw("equal scores and boxes", _axes(images, rows, i), decided=False)
        yield Draw("half of the anchors NaN", _axes(images, rows, i))
        yield Draw("boxes outside or empty", _axes(images, rows, i))
        yield Draw("boxes three images wide", _axes(images, rows, -1))
    for i, name in enumerate(("fresh head", "certain background", "saturated scores")):
        yield Draw(name, _axes(8, 40, i))


def make(metadata: Metadata, draw: Draw, seed: int) -> dict[str, Tensor]:
    """The inputs of a graph; the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    arguments: dict[str, Any] = metadata.constants["arguments"]
    inputs = {}
    for port in metadata.inputs:
        shape = sizes(port, draw.axes)
        field = port.name.split("_", 1)[-1] if port.name.startswith(("pred_", "many_", "one_")) else None
        if field is None:
            inputs[port.name] = _target(port, shape, draw, arguments["num_classes"], generator)
        else:
            inputs[port.name] = _prediction(field, shape, draw, arguments["reg_max"], generator)
    return inputs


def moved(inputs: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
    """The same batch with its floating-point numbers moved by a few roundings."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, x in inputs.items():
        off = torch.randn(x.shape, generator=generator)
        found[name] = x * (1 + 1e-6 * off) if x.is_floating_point() else x
    return found


def _axes(images: int, rows: int, i: int) -> dict[str, int]:
    height, width = CELLS[i % len(CELLS)]
    return {"B": images, "N": rows, "h": height, "w": width}


def _prediction(field: str, shape: list[int], draw: Draw, bins: int, generator: torch.Generator) -> Tensor:
    x = torch.randn(shape, generator=generator)
    if field.startswith("boxes"):
        x = x.abs() * 4 if bins == 1 else x * 2
    elif field.startswith("scores"):
        mean, spread = SCORES.get(draw.name, SCORES["plain"])
        x = x * spread + mean
    if draw.name.startswith("equal") and not field.startswith(("prototypes", "semantic")):
        x = torch.full(shape, 2.0) if field.startswith("boxes") else torch.zeros(shape)
    if draw.name.endswith("NaN") and not field.startswith(("prototypes", "semantic")):
        x.flatten(2)[..., ::2] = torch.nan
    return x


def _target(port: Port, shape: list[int], draw: Draw, classes: int, generator: torch.Generator) -> Tensor:
    images, rows = draw.axes["B"], draw.axes["N"]
    if port.name == "batch_idx":
        image = torch.randint(images, shape, generator=generator)
        if not draw.name.startswith("unsorted"):
            return image.sort().values
        image[::3] = -1
        image[1::5] = images
        return image
    if port.name in ("cls", "class_map"):
        return torch.randint(classes, shape, generator=generator)
    if port.name == "index_map":
        # Blocks of pixels, so that an index covers an area; some indices belong to no row.
        blocks = torch.randint(rows + 2, [shape[0], -(-shape[1] // 4), -(-shape[2] // 4)], generator=generator)
        return blocks.repeat_interleave(4, 1).repeat_interleave(4, 2)[:, : shape[1], : shape[2]].contiguous()
    x = torch.rand(shape, generator=generator)
    if port.name == "boxes":
        x[:, 2:] = x[:, 2:] ** 2 * 0.7 + 0.03
        if draw.name.startswith("boxes outside"):
            x[::3, :2] = x[::3, :2] * 4 - 1.5
            x[1::4, 2:] = 0.0
        elif draw.name.startswith("boxes three"):
            x[:, 2:] = x[:, 2:] + 2.5
    elif port.name == "keypoints":
        x[..., 2] = torch.randint(3, shape[:2], generator=generator).float()
    elif port.name == "angles":
        x = x * 6 - 3
    return x
