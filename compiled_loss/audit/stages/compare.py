"""Compares numbers with those of the eager run."""

from collections.abc import Mapping

import torch
from torch import Tensor

from compiled_loss.audit.findings import Finding
from compiled_loss.audit.stages.subject import Subject, finding
from compiled_loss.audit.state import Outcome
from compiled_loss.audit.trees import is_plain

# Errors allowed, relative to the largest entry: a few hundred roundings, as sums in another order may differ.
_TOLERANCES = {torch.float64: 1e-11, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 5e-2}
_TOLERANCES |= {dtype.to_complex(): x for dtype, x in _TOLERANCES.items() if dtype != torch.bfloat16}


def compare(
    subject: Subject,
    got: Outcome,
    batch: int,
    kind: str,
    mode: str,
    errors: dict[str, float],
    floors: Mapping[str, float] | None = None,
) -> list[Finding]:
    """Findings for outputs and gradients that differ from the eager ones; the errors are added to `errors`.

    `floors` are the least tolerances by name: those of the lowest precision from which a number was computed.
    """
    expected = subject.expected[batch]
    where = subject.finder.of_function(subject.function)
    if len(got.outputs) != len(expected.outputs):
        message = f"{mode}: {len(got.outputs)} output tensors where eager gives {len(expected.outputs)}"
        return [finding(kind, message, where, batch)]
    given = got.forward() | got.backward()
    forward = {name: (given[name], x) for name, x in expected.forward().items() if name in given}
    backward = {name: (given.get(name), x) for name, x in expected.backward().items()}
    if kind == "export":  # an exported program has no backward
        backward = {}
    largest = max((_largest(x) for x in expected.gradients.values()), default=0.0)
    found: list[Finding] = []
    for phase, pairs in (("forward", forward), ("backward", backward)):
        wrong = {}
        for name, (x, y) in pairs.items():
            least = 1e-2 * largest if phase == "backward" and subject.tolerance is None else 0.0
            floor = (floors or {}).get(name, 0.0)
            problem, error = ("it is missing", 0.0) if x is None else _difference(x, y, subject.tolerance, floor, least)
            errors[f"{mode}: {name}"] = max(error, errors.get(f"{mode}: {name}", 0.0))
            if problem:
                wrong[name] = problem
        if wrong:
            names = ", ".join(list(wrong)[:3]) + (f" and {len(wrong) - 3} more" if len(wrong) > 3 else "")
            detail = "\n".join(f"{name}: {problem}" for name, problem in wrong.items())
            message = f"{mode}: {names}: {next(iter(wrong.values()))}"
            found.append(finding(kind, message, where, batch, phase=phase, detail=detail))
    if kind == "mismatch" and _differ(got.others, expected.others):
        message = f"{mode}: returns {got.others!r:.80} where eager returns {expected.others!r:.80}"
        found.append(finding(kind, message, where, batch))
    return found


def _differ(got: list[object], expected: list[object]) -> bool:
    """Whether plain values differ; objects that define no equality are not compared."""
    pairs = zip(got, expected, strict=False)
    return len(got) != len(expected) or any(is_plain(y) and x != y and y == y for x, y in pairs)


def _largest(x: Tensor) -> float:
    x = torch.where(x.isfinite(), x.abs(), 0)
    return x.max().item() if x.numel() else 0.0


def tolerance_of(dtype: torch.dtype) -> float:
    """Largest error allowed, relative to the largest entry."""
    return _TOLERANCES.get(dtype, 0.0)


def _difference(
    got: Tensor, expected: Tensor, tolerance: float | None, floor: float, least: float
) -> tuple[str, float]:
    """What is wrong with `got` (empty if nothing), and its largest error relative to the largest entry.

    `least` is the least scale: a gradient that is zero except for rounding is judged on the scale of the others.
    """
    if got.shape != expected.shape or got.dtype != expected.dtype:
        return f"{got.dtype} {tuple(got.shape)}, expected {expected.dtype} {tuple(expected.shape)}", 0.0
    if got.numel() == 0:
        return "", 0.0
    if expected.is_complex():
        got, expected = torch.view_as_real(got.resolve_conj()), torch.view_as_real(expected.resolve_conj())
    if not expected.is_floating_point():
        wrong = int((got != expected).sum())
        return (f"{wrong} of {got.numel()} entries differ" if wrong else ""), wrong / got.numel()
    finite = got.isfinite() & expected.isfinite()
    same = (got == expected) | (got.isnan() & expected.isnan())
    if not bool((finite | same).all()):
        return f"{int((~(finite | same)).sum())} entries are not finite in one of the two", float("inf")
    zero = torch.zeros((), dtype=torch.float64, device=got.device)
    scale = max(least, torch.where(finite, expected.double().abs(), zero).max().item())
    error = torch.where(finite, (got.double() - expected.double()).abs(), zero).max().item()
    relative = error / scale if scale else error
    allowed = max(floor, tolerance_of(expected.dtype)) if tolerance is None else tolerance
    return (f"off by {relative:.1e}, relative to the largest entry" if relative > allowed else ""), relative
