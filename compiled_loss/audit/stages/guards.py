"""Why a graph was compiled again, from torch's reports of failed guards, those of the newest graph first."""

import linecache
import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from compiled_loss.audit.findings import Place
from compiled_loss.audit.places import Finder

_MISMATCH = re.compile(
    r"tensor '(?P<name>.+)' size mismatch at index (?P<dim>\d+)\. expected (?P<old>\d+), actual (?P<new>\d+)"
)
_LINE = re.compile(
    r"# (?P<path>\S+\.py|<[^>]*>):(?P<line>\d+) in (?P<name>[\w<>]+)(?P<note>(?: \((?:[^()]|\([^()]*\))*\))?)"
)
_FIRST_USE = "not due user code"  # torch's remark on a line that only used a size first
_SMALL = "2 <= "

Where = tuple[Place | None, tuple[Place, ...]]
FixedSizes = Mapping[tuple[str, str], list[Any]]


class Cause(NamedTuple):
    """What to report about a recompile, and the line to blame, if torch knows one."""

    message: str
    where: Where


def cause_of(guards: tuple[str, ...], fixed: FixedSizes, small: Iterable[int], finder: Finder, file: str = "") -> Cause:
    """The cause of a recompile.

    Args:
        guards: the failed guards of every earlier graph.
        fixed: sizes that were traced as numbers, with the stacks that used them.
        small: sizes of 0 or 1 in this batch that no earlier batch had in the same place.
        finder: finds the user's own lines.
        file: file of the traced function.
    """
    conditions = "; ".join(dict.fromkeys(map(_condition, guards)))
    mismatches = [found for x in guards if (found := _MISMATCH.search(x))]
    for x in mismatches if _MISMATCH.search(guards[0]) else ():
        if stack := _stack_of(x, fixed):
            message = f"compiled again: {conditions}; this line uses the size as the number {x['old']}"
            return Cause(message, finder.locate(stack))
    new = {int(x["new"]) for x in mismatches} or set(small)
    if new & {0, 1} and all(_MISMATCH.search(x) or _SMALL in _condition(x) for x in guards):
        size = " or ".join(map(str, sorted(new & {0, 1})))
        message = (
            f"compiled again for a size of {size}, because torch compiles separate graphs for 0 and 1: {conditions}"
        )
        return Cause(message, _line_of(guards, finder, file))
    if {int(x["old"]) for x in mismatches} & {0, 1} and len(mismatches) == len(guards):
        message = f"compiled again to make a size dynamic, which torch does not do for sizes of 0 and 1: {conditions}"
        return Cause(message, (None, ()))
    return Cause(f"compiled again: {conditions}", _line_of(guards, finder, file))


def _condition(guard: str) -> str:
    """The failed condition, without the number of the graph and torch's remarks."""
    return guard.partition("\n")[0].partition("#")[0].split(": ", 1)[-1].strip()


def _stack_of(mismatch: re.Match[str], fixed: FixedSizes) -> list[Any]:
    """The stack that used the size, which differs now, as a number."""
    place = f"{mismatch['name']}.size()[{mismatch['dim']}]"
    found = (x for (name, value), x in fixed.items() if value == mismatch["old"] and _local(name) == place)
    return next(found, [])


def _local(source: str) -> str:
    """The name of a source in guards: `L['x'].size()[0]` becomes `x.size()[0]`."""
    return re.sub(r"L\['(\w+)'\]", r"\1", source)


def _line_of(guards: tuple[str, ...], finder: Finder, file: str) -> Where:
    """The line that caused the newest guard that has one, rather than a line that only used the size first."""
    for guard in guards:
        if "User stack trace" in guard:
            return finder.of_text(guard)
        lines = list(_LINE.finditer(guard))
        for found in sorted(lines, key=lambda x: _FIRST_USE in x["note"]):
            # Torch gives only the end of a path.
            files = (x for x in (file, *linecache.cache, *_files()) if x.endswith(found["path"]))
            path = next(files, found["path"])
            return finder.of_text(f'File "{path}", line {found["line"]}, in {found["name"]}')
    return None, ()


def _files() -> list[str]:
    return [file for x in list(sys.modules.values()) if (file := getattr(x, "__file__", None))]
