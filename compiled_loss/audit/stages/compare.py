"""Numbers against the eager run's."""

import torch
from torch import Tensor

from compiled_loss.audit.findings import Finding
from compiled_loss.audit.stages.subject import Subject, finding
from compiled_loss.audit.state import Outcome

# Errors allowed relative to the largest entry: a few hundred roundings, which sums in another order may cost.
_TOLERANCES = {torch.float64: 1e-11, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 5e-2}


def compare(
    subject: Subject, got: Outcome, batch: int, kind: str, mode: str, errors: dict[str, float], floor: float = 0.0
) -> list[Finding]:
    """Findings for outputs and gradients that differ from the eager ones; the errors are noted in `errors`.

    `floor` is the least tolerance: that of the lowest precision used inside.
    """
    expected = subject.expected[batch]
    pairs = {f"output {i}": pair for i, pair in enumerate(zip(got.outputs, expected.outputs, strict=False))}
    found: list[Finding] = []
    where = subject.finder.of_function(subject.function)
    if len(got.outputs) != len(expected.outputs):
        message = f"{mode}: {len(got.outputs)} output tensors where eager gives {len(expected.outputs)}"
        return [finding(kind, message, where, batch)]
    for name, x in expected.gradients.items():
        if name in got.gradients:
            pairs[f"gradient of {name}"] = (got.gradients[name], x)
        elif got.gradients:
            found.append(finding(kind, f"{mode}: {name} gets no gradient, eagerly it does", where, batch))
    for name, (x, y) in pairs.items():
        problem, error = _difference(x, y, subject.tolerance, floor)
        errors[f"{mode}: {name}"] = max(error, errors.get(f"{mode}: {name}", 0.0))
        if problem:
            phase = "backward" if name.startswith("gradient") else "forward"
            found.append(finding(kind, f"{mode} {name}: {problem}", where, batch, phase=phase))
    return found


def tolerance_of(dtype: torch.dtype) -> float:
    """Largest error allowed, relative to the largest entry."""
    return _TOLERANCES.get(dtype, 0.0)


def _difference(got: Tensor, expected: Tensor, tolerance: float | None, floor: float) -> tuple[str, float]:
    """What is wrong with `got` (empty if nothing), and its largest error relative to the largest entry."""
    if got.shape != expected.shape or got.dtype != expected.dtype:
        return f"{got.dtype} {tuple(got.shape)}, expected {expected.dtype} {tuple(expected.shape)}", 0.0
    if got.numel() == 0:
        return "", 0.0
    if not expected.is_floating_point():
        wrong = int((got != expected).sum())
        return (f"{wrong} of {got.numel()} entries differ" if wrong else ""), wrong / got.numel()
    finite = got.isfinite() & expected.isfinite()
    same = (got == expected) | (got.isnan() & expected.isnan())
    if not bool((finite | same).all()):
        return f"{int((~(finite | same)).sum())} entries are not finite in one of the two", float("inf")
    zero = torch.zeros((), dtype=torch.float64, device=got.device)
    scale = torch.where(finite, expected.double().abs(), zero).max().item()
    error = torch.where(finite, (got.double() - expected.double()).abs(), zero).max().item()
    relative = error / scale if scale else error
    allowed = max(floor, tolerance_of(expected.dtype)) if tolerance is None else tolerance
    return (f"off by {relative:.1e} of the largest entry" if relative > allowed else ""), relative
