"""The command: audit a function of a file or a module from the shell."""

import argparse
import contextlib
import importlib
import importlib.util
import os
import sys
import traceback
import types
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from compiled_loss.audit.report import AuditReport
from compiled_loss.audit.run import STAGES, audit
from compiled_loss.audit.text import render

CLEAN, FOUND, FAILED = 0, 1, 2  # exit statuses

_NOT_THE_USERS = (str(Path(__file__).parent), str(Path(importlib.__file__).parent), "<frozen")
_EXAMPLE = """\
FILE.py:FUNCTION names a function (or an instance of a module) in a file, PACKAGE.MODULE:FUNCTION one to import.
Exit status: 0 nothing found, 1 findings, 2 the audit could not run, or one of its stages had to stop."""


class CannotRunError(Exception):
    """The audit cannot start; the text says why."""


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    progress = None if options.quiet else _say
    try:
        _check_folders(options)
        # Output of the audited code goes to standard error, like the progress: standard output holds only the report.
        with contextlib.redirect_stdout(sys.stderr):
            report = _audit(options, progress)
        _write(report, options)
    except CannotRunError as error:
        _say(f"compiled_loss: {error}")
        return FAILED
    except (Exception, SystemExit):  # neither must look like a result of the audit
        _say(traceback.format_exc())
        return FAILED
    if report.failures and not report.incomplete:
        return FOUND
    return CLEAN if report.ok else FAILED


def _audit(options: argparse.Namespace, progress: Callable[[str], None] | None) -> AuditReport:
    home, _, name = options.target.rpartition(":")
    module = _module(home, options.target)
    function = _look_up(module, name, home)
    if isinstance(function, type):
        raise CannotRunError(f"{options.target} is a class: name a function, or an instance made in the file")
    if not callable(function):
        raise CannotRunError(f"{options.target} is {type(function).__name__}, expected a callable")
    batches = _batches(options.batches, module, home)
    allow = dict(x.split("=", 1) for x in options.allow)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own warnings about the many ways to run the function
        try:
            return audit(
                function,
                batches,
                backward=options.backward,
                exportable=options.exportable,
                warmup=options.warmup,
                backend=options.backend,
                dynamic=options.dynamic,
                tolerance=options.tolerance,
                skip=options.skip,
                allow=allow,
                packages=options.package,
                progress=progress,
            )
        except ValueError as error:
            text = str(error)
            option = text.partition(":")[0] in vars(options)
            raise CannotRunError(f"--{text}" if option else text) from error


def _module(home: str, target: str) -> types.ModuleType:
    """The module named before the colon: a file, or a module to import."""
    if not home:
        raise CannotRunError(f"expected FILE.py:FUNCTION or PACKAGE.MODULE:FUNCTION, got {target!r}")
    if not home.endswith(".py"):
        with _users_errors(f"cannot import {home}"):
            return importlib.import_module(home)
    path = Path(home).resolve()
    if not path.is_file():
        raise CannotRunError(f"there is no file {home}")
    return _module_of_file(path)


def _module_of_file(path: Path) -> types.ModuleType:
    """Import a file under the name that it has in its package; its siblings become importable too."""
    root, name = path.parent, path.stem
    while (root / "__init__.py").is_file():
        root, name = root.parent, f"{root.name}.{name}"
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    if name in sys.modules:
        if getattr(sys.modules[name], "__file__", None) == str(path):
            return sys.modules[name]
        name = f"audited_{name.replace('.', '_')}"  # a library already has that name
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise CannotRunError(f"cannot import {path}")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    with _users_errors(f"cannot import {path}"):
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return module


def _look_up(module: types.ModuleType, name: str, home: str) -> Any:
    """The object called `name` in the module; the name may have dots."""
    value: Any = module
    for part in name.split("."):
        if not hasattr(value, part):
            raise CannotRunError(f"{home} has no {name!r}; it has {', '.join(_callables(module)) or 'nothing to call'}")
        value = getattr(value, part)
    return value


def _callables(module: types.ModuleType) -> list[str]:
    """What can be audited in a module: its own functions, and callable instances."""
    public = {name: x for name, x in vars(module).items() if not name.startswith("_") and callable(x)}
    functions = (types.FunctionType, types.BuiltinFunctionType)
    return [
        name
        for name, x in public.items()
        if not isinstance(x, type) and (x.__module__ == module.__name__ or not isinstance(x, functions))
    ]


def _batches(name: str, module: types.ModuleType, home: str) -> Any:
    """The batches that the named function yields, or the named list of batches."""
    other, _, name = name.rpartition(":")
    if other:
        module, home = _module(other, f"{other}:{name}"), other
    try:
        source = _look_up(module, name, home)
    except CannotRunError as error:
        raise CannotRunError(f"{error}; --batches NAME says which function yields the batches") from None
    with _users_errors(f"{home}:{name} yields no batches"):
        given: Any = source() if callable(source) else source
        # A tensor or a dict is a single batch, which the audit refuses.
        return given if isinstance(given, Tensor | Mapping) else list(given)


@contextlib.contextmanager
def _users_errors(what: str) -> Iterator[None]:
    """Turn an error of the user's code into the reason not to run, with the user's part of the traceback."""
    try:
        yield
    except (CannotRunError, KeyboardInterrupt):
        raise
    except BaseException as error:
        frames = traceback.extract_tb(error.__traceback__)
        own = [x for x in frames if not x.filename.startswith(_NOT_THE_USERS)]
        text = "".join([*traceback.format_list(own), *traceback.format_exception_only(error)])
        raise CannotRunError(f"{what}:\n{text.rstrip()}") from error


def _check_folders(options: argparse.Namespace) -> None:
    """Check before the audit, not after it, that the files can be written in their folders."""
    for file in (options.html, options.json):
        if file and file != "-":
            try:
                os.scandir(Path(file).parent).close()
            except OSError as error:
                raise CannotRunError(f"cannot write: {error}") from error


def _write(report: AuditReport, options: argparse.Namespace) -> None:
    try:
        if options.html:
            _say(f"written: {report.to_html(options.html)}")
        if options.json and options.json != "-":
            Path(options.json).write_text(report.to_json() + "\n", encoding="utf-8")
            _say(f"written: {options.json}")
    except OSError as error:
        raise CannotRunError(f"cannot write: {error}") from error
    if options.json == "-":
        sys.stdout.write(report.to_json() + "\n")
    else:
        _show(report)


def _show(report: AuditReport) -> None:
    """Print the report to standard output, in colour if that is a terminal and rich is installed."""
    if sys.stdout.isatty() and not os.environ.get("NO_COLOR"):
        try:
            from rich.console import Console  # noqa: PLC0415  (an optional dependency)
            from rich.text import Text  # noqa: PLC0415
        except ImportError:
            pass
        else:
            console = Console(file=sys.stdout)
            for line, style in render(report):
                console.print(Text(line, style), soft_wrap=True)
            return
    sys.stdout.write(f"{report}\n")


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _allowance(text: str) -> str:
    if "=" not in text:
        raise argparse.ArgumentTypeError(f"expected NAME=REASON, got {text!r}")
    return text


def add_audit(commands: Any) -> None:
    """Add the command to the subcommands of a parser; the parsed `run` returns the exit status."""
    command = commands.add_parser(
        "audit",
        help="find graph breaks, recompiles and waits of any function, each with its line",
        description="Find everything that keeps a function from being one graph without waits, with the line to blame.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = command.add_argument
    add("target", metavar="FILE.py:FUNCTION", help="what to audit")
    add("--batches", metavar="NAME", default="batches", help="function that yields the batches, or OTHER.py:NAME")
    add("--no-backward", dest="backward", action="store_false", help="audit only the forward pass")
    add("--exportable", action="store_true", help="also check torch.export and ONNX Runtime")
    add("--warmup", type=int, default=2, metavar="N", help="number of first batches that may compile (2)")
    add("--backend", default="inductor", help="backend of torch.compile; aot_eager is faster")
    shapes = command.add_mutually_exclusive_group()
    shapes.add_argument("--dynamic", action="store_true", default=None, help="torch.compile(dynamic=True)")
    shapes.add_argument("--static", dest="dynamic", action="store_false", help="torch.compile(dynamic=False)")
    add("--tolerance", type=float, help="largest error of compiled numbers, relative to the largest entry")
    add(
        "--skip",
        action="append",
        default=[],
        choices=list(STAGES),
        metavar="STAGE",
        help=f"leave out a stage: {', '.join(STAGES)}",
    )
    add("--allow", action="append", default=[], type=_allowance, metavar="NAME=REASON", help="let a finding pass")
    add("--package", action="append", default=[], metavar="NAME", help="installed package that counts as your own")
    add("--html", metavar="FILE", help="write the report as a page")
    add("--json", metavar="FILE", help="write the report as JSON; - writes it to standard output, instead of the text")
    add("--quiet", action="store_true", help="do not print progress")
    command.set_defaults(run=run)
