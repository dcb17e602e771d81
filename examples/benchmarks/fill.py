"""The vectorised fill of `[N, 17, 3]` keypoints against its peers.

    python examples/benchmarks/fill.py [--rounds 41] [--device cuda]

`loop` is the plain Python loop over images. `scatter` is the usual vectorised form, which is right only for sorted
rows. PyG's `to_dense_batch` (if `torch_geometric` is installed) gets both sizes, so that it reads no value from the
device; it is also right only for sorted rows.
"""

from collections.abc import Callable
from functools import partial

import torch
from timing import available, in_turn, machine, parser_of, read_options, table
from torch import Tensor

from compiled_loss import fill

SIZES = ((16, 164), (64, 1966), (256, 25671))  # B, N


def loop(values: Tensor, batch_idx: Tensor, batch_size: int, capacity: int) -> Tensor:
    """One masked copy per image."""
    out = values.new_zeros(batch_size, capacity, *values.shape[1:])
    for image in range(batch_size):
        rows = values[batch_idx == image]
        out[image, : len(rows)] = rows
    return out


def scatter(values: Tensor, batch_idx: Tensor, batch_size: int, capacity: int) -> Tensor:
    """Counts, offsets, one indexed write; rows of one image must stand together, in order."""
    counts = batch_idx.new_zeros(batch_size).scatter_add(0, batch_idx, torch.ones_like(batch_idx))
    offsets = counts.cumsum(0) - counts
    slot = torch.arange(len(batch_idx), device=batch_idx.device) - offsets[batch_idx]
    out = values.new_zeros(batch_size, capacity, *values.shape[1:])
    return out.index_put((batch_idx, slot), values)


def run_size(batch_size: int, rows: int, rounds: int, device: str, with_pyg: bool) -> tuple[int, dict[str, float]]:
    """The capacity used, and median microseconds of every contender."""
    torch.manual_seed(0)
    torch.compiler.reset()
    shuffled = torch.randint(0, batch_size, (rows,), device=device)
    ordered, values = shuffled.sort().values, torch.randn(rows, 17, 3, device=device)
    capacity = int(torch.bincount(shuffled).max())
    sizes = (batch_size, capacity)

    def ours(values: Tensor, batch_idx: Tensor, is_sorted: bool) -> Tensor:
        return fill(values, batch_idx, *sizes, is_sorted=is_sorted).values

    compiled = torch.compile(ours, fullgraph=True)
    compiled_scatter = torch.compile(partial(scatter, batch_size=batch_size, capacity=capacity), fullgraph=True)
    contenders: dict[str, Callable[[], Tensor]] = {
        "loop": lambda: loop(values, ordered, *sizes),
        "scatter": lambda: scatter(values, ordered, *sizes),
        "scatter, compiled": lambda: compiled_scatter(values, ordered),
        "ours, sorted": lambda: ours(values, ordered, True),
        "ours, sorted, compiled": lambda: compiled(values, ordered, True),
        "ours, compiled": lambda: compiled(values, ordered, False),
        "ours, compiled, shuffled rows": lambda: compiled(values, shuffled, False),
    }
    if with_pyg:
        from torch_geometric.utils import to_dense_batch  # noqa: PLC0415  # pyright: ignore[reportMissingImports]

        contenders["PyG"] = lambda: to_dense_batch(values, ordered, max_num_nodes=capacity, batch_size=batch_size)[0]
    truth = loop(values, ordered, *sizes)
    for name, run in contenders.items():
        expected = loop(values, shuffled, *sizes) if "shuffled" in name else truth
        assert torch.equal(run(), expected), name
    return capacity, {name: ms * 1e3 for name, ms in in_turn(contenders, rounds, warmup=10, device=device).items()}


def main() -> None:
    """Print the table."""
    options = read_options(parser_of(__doc__, rounds=41))
    rounds, device = options.rounds, options.device
    with_pyg = available("torch_geometric")
    results = [(b, n, *run_size(b, n, rounds, device, with_pyg)) for b, n in SIZES]
    header = ["us", *(f"B={b}, N={n}, M={m}" for b, n, m, _ in results)]
    rows = [[name, *(f"{us[name]:.0f}" for *_, us in results)] for name in results[0][-1]]
    rows += [
        [f"{name} / scatter, compiled", *(f"{us[name] / us['scatter, compiled']:.2f}" for *_, us in results)]
        for name in ("ours, sorted, compiled", "ours, compiled", "ours, compiled, shuffled rows")
    ]
    print(table(header, rows))
    print(f"\n{machine('torch', 'torch-geometric', device=device)}, median of {rounds} rounds in turn")


if __name__ == "__main__":
    main()
