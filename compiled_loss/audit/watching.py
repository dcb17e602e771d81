"""What torch's tracer does while a block runs: where it breaks the graph, and which sizes it uses as numbers."""

import contextlib
import traceback
from collections.abc import Iterator
from typing import Any, NamedTuple

from compiled_loss.torch_private import probe, replaced


class Break(NamedTuple):
    """One graph break as the tracer reports it."""

    error: BaseException
    reason: str
    stack: list[Any]  # FrameSummary, outermost first: from the traced frame inwards
    callers: list[Any]  # the Python stack at that time, down to the caller of the traced frame
    skips_frame: bool  # the rest of the function runs untraced


@contextlib.contextmanager
def collect_breaks() -> Iterator[list[Break]]:
    """List every graph break while the block runs, also in loops, on first lines and in skipped frames."""
    found: list[Break] = []
    soft = probe("unsupported"), probe("user error")
    extract_stack = probe("tracing")

    def spy_on_breaks(original: Any) -> Any:
        def log_graph_break(self: Any, code_options: Any, reason: str, exc: Any) -> None:
            if not getattr(exc, "logged", False):
                stack = getattr(exc, "real_stack", None)
                skips = "Skipping the function" in reason
                stack = list(extract_stack() if stack is None else stack)
                found.append(Break(exc, reason, stack, traceback.extract_stack(), skips))
            original(self, code_options, reason=reason, exc=exc)

        return log_graph_break

    def spy_on_frames(original: Any) -> Any:
        def convert(self: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                return original(self, *args, **kwargs)
            except soft as error:
                if not getattr(error, "logged", False):
                    stack = list(getattr(error, "real_stack", None) or [])
                    found.append(Break(error, str(error), stack, traceback.extract_stack(), True))
                    error.logged = True  # type: ignore[union-attr]
                raise

        return convert

    with replaced("breaks", spy_on_breaks), replaced("frames", spy_on_frames):
        yield found


@contextlib.contextmanager
def collect_fixed_sizes() -> Iterator[dict[tuple[str, str], list[Any]]]:
    """List every size that was traced as a number: its name and the number, with the stack of the line that used it."""
    found: dict[tuple[str, str], list[Any]] = {}

    def spy(original: Any) -> Any:
        def set_replacement(self: Any, symbol: Any, value: Any, *args: Any) -> None:
            original(self, symbol, value, *args)
            for source in self.var_to_sources.get(symbol, ()) if value.is_number else ():
                if stack := self.specialization_stacks.get(source):
                    name = source.name() if callable(source.name) else source.name
                    found[str(name), str(value)] = list(stack)

        return set_replacement

    with replaced("fixed sizes", spy):
        yield found
