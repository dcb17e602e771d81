"""Graph breaks: every place where the tracer gives up, forward and in the backward of custom functions."""

import re

from compiled_loss.audit.findings import FALLS_BACK, Finding
from compiled_loss.audit.places import below_audit
from compiled_loss.audit.restoring import restored
from compiled_loss.audit.stages.subject import Result, Subject, finding, first_line
from compiled_loss.audit.state import call
from compiled_loss.audit.watching import Break, collect_breaks
from compiled_loss.torch_private import isolated_compile, own_compile_state

_SKIPPED = "the rest of this function ran outside any graph and was not searched for further breaks"
_OPTIMIZER = "torch.optim breaks the graph around every step() on purpose; these breaks are not counted"


def find_breaks(subject: Subject) -> Result:
    """Trace every batch with a backend that compiles nothing, and list where tracing stopped."""
    found: list[Finding] = []
    stopped = ""
    notes: set[str] = set()
    with own_compile_state("eager"), restored(subject.state):
        compiled = isolated_compile(subject.function, backend="eager", dynamic=subject.dynamic)
        for i, batch in enumerate(subject.batches):
            with collect_breaks() as breaks:
                try:
                    call(compiled, batch, subject.state, backward=subject.backward)
                except Exception as error:
                    stopped = f"batch {i}: {first_line(error)}"
            notes |= {_OPTIMIZER for x in breaks if _is_an_optimizers_own(x)}
            notes |= {_SKIPPED for x in breaks if x.skips_frame}
            breaks = [x for x in breaks if not _is_an_optimizers_own(x)]
            for x in breaks:
                new = _finding(subject, x, i)
                # After a break the call runs uncompiled, and what it calls breaks again inside: not a second finding.
                if _has_own_line(subject, x) or not any(y.place == new.place and i in y.batches for y in found):
                    found.append(new)
            if i == 0 and breaks:
                notes.add(f"{len(breaks)} breaks in the first batch")
            if stopped:
                break
    return Result(found, stopped=stopped, note="; ".join(sorted(notes)))


def _is_an_optimizers_own(broken: Break) -> bool:
    return bool(broken.stack) and broken.stack[-1].filename.endswith("torch/optim/optimizer.py")


def _finding(subject: Subject, broken: Break, batch: int) -> Finding:
    where = subject.finder.locate([*below_audit(broken.callers), *below_audit(broken.stack)])
    gb_type, explanation = _reason(broken)
    message = f"{gb_type}: {explanation}" if explanation else gb_type
    if broken.skips_frame:
        message += FALLS_BACK
    return finding("graph-break", message, where, batch, detail=broken.reason.strip())


def _has_own_line(subject: Subject, broken: Break) -> bool:
    return any(subject.finder.is_own(x.filename, x.name) for x in broken.stack)


def _reason(broken: Break) -> tuple[str, str]:
    """Torch's name for the break and its explanation, without its remarks about the frame."""
    text = f"{broken.error}" if f"{broken.error}".strip() else broken.reason
    # The text of a break within a loop begins with the first reason, and only that is wanted.
    text = text.split("*** While handling this graph break")[0].strip()
    name = text.splitlines()[0].strip() if text else type(broken.error).__name__
    explanation = re.search(r"Explanation: (.*?)(?:\n\s*Hint:|\n\n|\Z)", text, re.DOTALL)
    return name, " ".join(explanation[1].split()) if explanation else ""
