"""The function itself, uncompiled: all other numbers are compared with its numbers."""

from compiled_loss.audit.restoring import restored
from compiled_loss.audit.stages.subject import Result, Subject, first_line
from compiled_loss.audit.state import call
from compiled_loss.audit.trees import is_plain

_NO_BACKWARD = "no output requires a gradient, so there was no backward: set requires_grad on the inputs"
_NO_OUTPUT = "the function returns no tensor, so there are no numbers to compare: return what it computes"


def run_eagerly(subject: Subject) -> Result:
    """Call the function on every batch and keep the outcomes."""
    with restored(subject.state):
        for i, batch in enumerate(subject.batches):
            try:
                subject.expected.append(call(subject.function, batch, subject.state, backward=subject.backward))
            except Exception as error:
                return Result([], stopped=f"batch {i}: {_told(subject, error, batch)}")
    hidden = {type(x) for outcome in subject.expected for x in outcome.others if not is_plain(x)}
    if hidden:
        names = ", ".join(sorted(f"{x.__module__}.{x.__qualname__}" for x in hidden))
        return Result(
            [], stopped=f"returns {names}, in which the audit cannot find tensors: return containers or dataclasses"
        )
    if subject.state.unseen:
        names = ", ".join(subject.state.unseen)
        return Result(
            [], stopped=f"is given {names}, in which the audit cannot find tensors: give containers or dataclasses"
        )
    notes = [subject.note] if subject.note else []
    if subject.state.closed:
        notes.append(f"holds {', '.join(subject.state.closed)}, in which the audit cannot find tensors")
    if not any(x.outputs for x in subject.expected):
        notes.append(_NO_OUTPUT)
    elif subject.backward and not any(x.differentiable for x in subject.expected):
        notes.append(_NO_BACKWARD)
    return Result([], note="; ".join(notes))


def _told(subject: Subject, error: Exception, batch: tuple[object, ...]) -> str:
    place, _ = subject.finder.of_error(error)
    where = f" at {place}" if place else ""
    lists = isinstance(error, TypeError) and place is None and len(batch) == 1 and isinstance(batch[0], list)
    hint = "; a batch that is a list counts as one argument, a tuple as several" if lists else ""
    return f"{first_line(error)}{where}{hint}"
