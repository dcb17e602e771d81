"""Which line is to blame: the innermost one of the user's own code."""

import functools
import inspect
import linecache
import os
import re
import site
import sys
import sysconfig
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import torch

from compiled_loss.audit.findings import Place


def _folders(*paths: str | Path) -> tuple[str, ...]:
    """Prefixes of the files inside these folders. They end in a separator: `torch/` must not match `torchvision/`."""
    return tuple({f"{path}{os.sep}" for path in paths})


_TORCH = _folders(Path(torch.__file__).parent)
_HERE = _folders(Path(__file__).parent)
_STANDARD = _folders(sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"))
_LIBRARIES = _folders(*site.getsitepackages(), site.getusersitepackages(), sysconfig.get_path("purelib"))
_NO_FILES = ("<frozen", "<eval_with_key", "<attrs generated", "<__array_function__")
# Code run by `exec` is the user's own, except for the methods that dataclasses generate.
_TEXT, _WRITTEN = "<string>", {f"__{x}__" for x in ("init", "repr", "eq", "lt", "le", "gt", "ge", "hash", "setattr")}
_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<function>\S+)')


class Finder:
    """Turns stacks into places; `packages` are installed packages whose lines count as the user's own."""

    def __init__(self, packages: Iterable[str] = ()) -> None:
        self.own = tuple(f"/{name.replace('.', '/')}" for name in packages)

    def is_own(self, file: str, function: str = "") -> bool:
        """Whether a file is the user's: not torch, not the audit, not the standard library, not installed."""
        if self._is_machinery(file, function):
            return False
        return not file.startswith(_LIBRARIES) or any(f"{x}/" in file or file.endswith(f"{x}.py") for x in self.own)

    def locate(self, frames: Iterable[traceback.FrameSummary]) -> tuple[Place | None, tuple[Place, ...]]:
        """The innermost line of the user's own (otherwise of a library), and all lines, outermost first."""
        trace = tuple(_place(x) for x in frames if not self._is_machinery(x.filename, x.name))
        own = [x for x in trace if self.is_own(x.file, x.function)]
        return (own or trace or [None])[-1], trace

    def here(self, frame: FrameType | None = None) -> tuple[Place | None, tuple[Place, ...]]:
        """The place being executed now, inside the audited function."""
        return self.locate(below_audit(traceback.extract_stack(frame or sys._getframe(1))))

    def of_error(self, error: BaseException) -> tuple[Place | None, tuple[Place, ...]]:
        """The place that an exception came from."""
        return self.locate(traceback.extract_tb(error.__traceback__))

    def of_text(self, text: str) -> tuple[Place | None, tuple[Place, ...]]:
        """The place that a printed stack trace leads to."""
        found = (traceback.FrameSummary(m["file"], int(m["line"]), m["function"]) for m in _FRAME.finditer(text))
        return self.locate(below_audit(found))

    def of_code(self, code: CodeType) -> tuple[Place | None, tuple[Place, ...]]:
        """Where a function is defined; for a part that the tracer resumes after a break, the line where it resumes."""
        resumed = re.fullmatch(r"torch_dynamo_resume_in_(?P<name>.*)_at_(?P<line>\d+)", code.co_name)
        line = int(resumed["line"]) if resumed else _definition(code)
        return self.locate(
            [traceback.FrameSummary(code.co_filename, line, resumed["name"] if resumed else code.co_name)]
        )

    def of_function(self, function: Any) -> tuple[Place | None, tuple[Place, ...]]:
        """Where a function, a method, or a module's forward is defined."""
        function = function.forward if isinstance(function, torch.nn.Module) else function
        while isinstance(function, functools.partial):
            function = function.func
        function = inspect.unwrap(getattr(function, "__func__", function))
        code = getattr(function, "__code__", None) or getattr(type(function).__call__, "__code__", None)
        return self.of_code(code) if code else (None, ())

    @staticmethod
    def _is_machinery(file: str, function: str) -> bool:
        standard = file.startswith(_STANDARD) and not file.startswith(_LIBRARIES)
        return standard or file.startswith((*_TORCH, *_HERE, *_NO_FILES)) or (file == _TEXT and function in _WRITTEN)


def below_audit(frames: Iterable[traceback.FrameSummary]) -> list[traceback.FrameSummary]:
    """The frames inside the audited function, after the last of the audit's own; none if it is not running."""
    frames = list(frames)
    inside = any(x.filename.startswith(_HERE) for x in frames)
    # The simulated device's own frames come last, inside the user's. They are not the user's either.
    while frames and frames[-1].filename.startswith(_HERE + _TORCH):
        frames.pop()
    last = max((i for i, x in enumerate(frames) if x.filename.startswith(_HERE)), default=-1)
    return [] if inside and last < 0 else frames[last + 1 :]


def _definition(code: CodeType) -> int:
    """The line of the `def`, below its decorators."""
    lines = [linecache.getline(code.co_filename, code.co_firstlineno + i) for i in range(20)]
    found = (i for i, line in enumerate(lines) if re.match(rf"\s*(async )?def {re.escape(code.co_name)}\b", line))
    return code.co_firstlineno + next(found, 0)


def _place(frame: traceback.FrameSummary) -> Place:
    line = frame.lineno or 0
    function = re.sub(r"^torch_dynamo_resume_in_(.*)_at_\d+$", r"\1", frame.name)
    return Place(frame.filename, line, function, linecache.getline(frame.filename, line).strip())
