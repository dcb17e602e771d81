"""Peak memory of a step of detection, forward and backward, relative to what every step needs.

    python examples/benchmarks/memory.py [--device cuda]

Batch 8, 640x640, 80 classes. Predictions and their gradients count 1.0: 1.5 means that a step needs half as much again.
On a CPU the peak is the process's resident memory as Linux keeps it, on a GPU what torch has allocated.
"""

import ctypes
from collections.abc import Callable, Sequence

import torch
from batches import Case, detection_cases
from heads import HEADS, criteria, drop_gradients, leaves_of, make_batch, make_preds, make_steps
from timing import available, cell, machine, parser_of, print_table, read_options
from torch import Tensor

COLUMNS = ("reference", "criterion, compiled", "criterion, eager")
TRIES = 3  # the least counts: memory may lie about from before


def peak_bytes(run: Callable[[], object], leaves: Sequence[Tensor], device: str) -> float:
    """Memory that a step adds at its peak, gradients included; call it when the step is compiled and warm."""
    return min(_one_peak(run, leaves, device) for _ in range(TRIES))


def _one_peak(run: Callable[[], object], leaves: Sequence[Tensor], device: str) -> float:
    drop_gradients(leaves)
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        resting = torch.cuda.memory_allocated(device)
        run()
        return torch.cuda.max_memory_allocated(device) - resting
    ctypes.CDLL(None).malloc_trim(0)  # else memory that earlier steps gave back still counts as resting
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak is what is resident now
    resting = _peak_resident()
    run()
    return _peak_resident() - resting


def _peak_resident() -> int:
    with open("/proc/self/status") as lines:
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def run_case(case: Case, device: str, with_reference: bool) -> list[str]:
    """Peaks of all contenders, as cells."""
    torch.manual_seed(0)
    torch.compiler.reset()
    head = HEADS["detect"]
    preds, batch = make_preds(head, case.images, device), make_batch(case.targets.to(device))
    leaves = leaves_of(preds)
    steps = make_steps(criteria(head, preds, batch, with_reference), leaves)
    once = sum(x.nbytes for x in leaves)  # the gradients are as large
    shares = {name: (once + peak_bytes(run, leaves, device)) / (2 * once) for name, run in steps.items()}
    return [case.name, f"{2 * once / 2**20:.0f}", *(cell(shares, name, digits=2) for name in COLUMNS)]


def main() -> None:
    """Print the table."""
    options = read_options(parser_of(__doc__))
    with_reference = available("ultralytics")
    header = ["peak / (predictions + gradients)", "predictions + gradients, MB", *COLUMNS]
    print_table(header, (run_case(case, options.device, with_reference) for case in detection_cases()))
    print(f"\n{machine('torch', 'ultralytics', device=options.device)}, least of {TRIES} steps")


if __name__ == "__main__":
    main()
