"""All private or unstable interfaces of torch that this package uses, each behind a probe.

`probe(name)` returns the object, or raises `MissingInterfaceError`, which names the torch version. A stage of the audit
that needs it is then reported as incomplete instead of passing silently, and an export is refused.
"""

import contextlib
import importlib
import logging
import warnings
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

_INTERFACES = {
    "breaks": "torch._dynamo.symbolic_convert:InstructionTranslatorBase.log_graph_break",
    "frames": "torch._dynamo.convert_frame:ConvertFrameAssert.__call__",
    "unsupported": "torch._dynamo.exc:Unsupported",
    "user error": "torch._dynamo.exc:UserError",
    "tracing": "torch._guards:TracingContext.extract_stack",
    "callbacks": "torch._dynamo.callback:callback_handler",
    "constant numbers": "torch._dynamo.config:specialize_float",
    "counters": "torch._dynamo.utils:counters",
    "equal sizes": "torch.fx.experimental._config:use_duck_shape",
    "fixed sizes": "torch.fx.experimental.symbolic_shapes:ShapeEnv._set_replacement",
    "guard reasons": "torch._dynamo.convert_frame:get_and_maybe_log_recompilation_reasons",
    "inductor": "torch._inductor.compile_fx:compile_fx",
    "inductor graph": "torch._inductor.compile_fx:compile_fx_inner",
    "aot": "torch._dynamo.backends.common:aot_autograd",
    "cudagraph refusals": "torch._inductor.utils:is_cudagraph_unsafe_fx_node",
    "unbacked symbols": "torch.fx.experimental.symbolic_shapes:free_unbacked_symbols",
    "autograd node": "torch._C:_current_autograd_node",
    "autocast": "torch.amp.autocast_mode:autocast.__init__",
    "autocast state": "torch:is_autocast_enabled",
    "autocast dtype": "torch:get_autocast_dtype",
    "generator": "torch:Generator",
    "cond": "torch:cond",
    "synchronize": "torch.cuda:synchronize",
    "any synchronize": "torch.accelerator:synchronize",
    "stream synchronize": "torch.cuda:Stream.synchronize",
    "event synchronize": "torch.cuda:Event.synchronize",
    "joint graph": "torch.export.experimental:_export_forward_backward",
    "aliasing": "torch.utils._python_dispatch:return_and_correct_aliasing",
}

# Older tracers take `torch.compiler.is_exporting` for True in every compile.
_SAYS_YES = torch.__version__ < "2.13"


class MissingInterfaceError(RuntimeError):
    """This version of torch lacks an interface that this package uses."""


class Compile(NamedTuple):
    """One compile: its kind, and for a recompile the guards that failed."""

    trigger: str  # DYNAMO, LAZY_BACKWARD, ...
    guards: tuple[str, ...]
    code: CodeType | None  # of the traced function; the same for a backward that is compiled with it


def probe(name: str) -> Any:
    """The interface of that name.

    Raises:
        MissingInterfaceError: if this version of torch lacks it.
    """
    module, _, path = _INTERFACES[name].partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError):
        raise MissingInterfaceError(
            f"torch {torch.__version__} has no {module}.{path}, which compiled_loss uses"
        ) from None
    return found


def is_exporting() -> bool:
    """Whether the code is traced for an export, and not for a compile.

    Example:
        >>> is_exporting()
        False
    """
    return torch.compiler._is_exporting_flag if _SAYS_YES else torch.compiler.is_exporting()


@contextlib.contextmanager
def replaced(name: str, make: Callable[[Any], Any]) -> Iterator[None]:
    """Replace an interface by `make(original)` while the block runs."""
    # The tracer's tables, filled on import, recognise functions by identity: they must hold torch's own functions.
    importlib.import_module("torch._dynamo")
    original = probe(name)
    module, _, path = _INTERFACES[name].partition(":")
    owner: Any = importlib.import_module(module)
    *parents, last = path.split(".")
    for part in parents:
        owner = getattr(owner, part)
    setattr(owner, last, make(original))
    try:
        yield
    finally:
        setattr(owner, last, original)


@contextlib.contextmanager
def collect_compiles() -> Iterator[list[Compile]]:
    """List every compile while the block runs, including lazy compiles of backward graphs."""
    found: list[Compile] = []
    handler = probe("callbacks")
    failed: list[str] = []
    traced: list[CodeType] = []

    def spy_on_reasons(original: Any) -> Any:
        def explain(*args: Any, **kwargs: Any) -> Any:
            told = original(*args, **kwargs)
            failed[:] = told
            return told

        return explain

    def spy_on_frames(original: Any) -> Any:
        def convert(self: Any, frame: Any, *args: Any, **kwargs: Any) -> Any:
            traced.append(frame.f_code)
            try:
                return original(self, frame, *args, **kwargs)
            finally:
                traced.pop()

        return convert

    def note(args: Any) -> None:
        found.append(Compile(args.callback_trigger.name, tuple(failed), traced[-1] if traced else None))
        failed.clear()

    with replaced("guard reasons", spy_on_reasons), replaced("frames", spy_on_frames):
        handler.register_start_callback(note)
        try:
            yield found
        finally:
            handler.remove_start_callback(note)


@contextlib.contextmanager
def own_compile_state(backend: str | Callable[..., Any]) -> Iterator[None]:
    """Compile as in a fresh process, and leave the caller's compiled functions, settings and counters unchanged.

    `isolate_recompiles` hides the entries of the caller's compiled functions. Torch's memory of sizes that changed is
    set aside, since it would hide the compile in which torch learns that they change.
    """
    import torch._dynamo  # noqa: PLC0415  (slow to import)
    import torch._functorch.config as functorch  # noqa: PLC0415
    import torch._inductor.config as inductor  # noqa: PLC0415
    from torch._dynamo import pgo  # noqa: PLC0415

    counters = probe("counters")
    counted = {key: value.copy() for key, value in counters.items()}
    learnt = {name: getattr(pgo, name) for name in ("_CODE_STATE", "_INIT_CODE_STATE") if hasattr(pgo, name)}
    limits = {
        name: 256 for name in ("recompile_limit", "accumulated_recompile_limit") if hasattr(torch._dynamo.config, name)
    }
    pgo_files = ("automatic_dynamic_local_pgo", "automatic_dynamic_remote_pgo")
    sizes = {name: False for name in pgo_files if hasattr(torch._dynamo.config, name)}
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.compiler.set_stance("default"))
        stack.enter_context(torch._dynamo.config.patch({**limits, **sizes, "suppress_errors": False, "disable": False}))
        # A hit in the cache of whole graphs would hide them; the cache of kernels stays in use.
        stack.enter_context(functorch.patch({"donated_buffer": False, "enable_autograd_cache": False}))
        if backend == "inductor":  # with inductor's own random numbers, results could not be compared
            stack.enter_context(inductor.patch(fallback_random=True))
        stack.enter_context(quiet())
        counters.clear()
        for name in learnt:
            setattr(pgo, name, None)
        try:
            yield
        finally:
            for name, value in learnt.items():
                setattr(pgo, name, value)
            counters.clear()
            counters.update(counted)


def check_backend(backend: Any) -> None:
    """Check that `torch.compile` knows a backend; by itself it reports that only at the first call.

    Raises:
        ValueError: if there is no backend of that name.
    """
    __tracebackhide__ = True  # pytest then shows only the user's own lines
    # Only names are looked up, since that imports torch's compiler.
    if not callable(backend) and backend not in torch.compiler.list_backends(exclude_tags=()):
        expected = "a backend of torch.compile, such as 'inductor' or 'aot_eager', or a function"
        raise ValueError(f"backend: expected {expected}, got {backend!r}")


def isolated_compile(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """`torch.compile` without cache entries of other functions; before torch 2.13 all caches are reset instead."""
    import torch._dynamo  # noqa: PLC0415

    if "isolate_recompiles" in (torch.compile.__kwdefaults__ or {}):
        options["isolate_recompiles"] = True
    else:
        torch._dynamo.reset()
    return torch.compile(function, **options)


@contextlib.contextmanager
def each_size_for_itself() -> Iterator[None]:
    """Compile with every open size separate from the others, and with numbers that are not sizes as constants.

    By default torch treats 4 images and the 4 sides of a box as one size ("duck shaping"), and compiles again when they
    differ. With `dynamic=True` it also treats a loss's own numbers, such as a gain, as open, and traces and compiles
    everything twice to find that they are not. If torch lacks these switches, nothing changes.
    """
    with contextlib.ExitStack() as stack:
        for name, value in (("equal sizes", False), ("constant numbers", True)):
            with contextlib.suppress(MissingInterfaceError):
                stack.enter_context(replaced(name, lambda _, value=value: value))
        yield


def without_compile(function: Any) -> Any:
    """The function inside `torch.compile`'s wrapper; the function itself if there is no wrapper."""
    while True:
        held = vars(function) if hasattr(function, "__dict__") else {}
        if type(function).__name__ == "OptimizedModule":
            function = held["_modules"]["_orig_mod"]
        elif "_torchdynamo_orig_callable" in held and "_torchdynamo_disable" not in held:
            function = held["_torchdynamo_orig_callable"]
        else:
            return function


@contextlib.contextmanager
def modules_called_plainly(modules: list[nn.Module]) -> Iterator[list[nn.Module]]:
    """Call modules that were compiled in place, by `module.compile()`, without compiling; yields these modules."""
    compiled = [(x, x._compiled_call_impl) for x in modules if x._compiled_call_impl is not None]
    for x, _ in compiled:
        x._compiled_call_impl = None
    try:
        yield [x for x, _ in compiled]
    finally:
        for x, call in compiled:
            x._compiled_call_impl = call


def copy_marks(source: Tensor, copy: Tensor) -> Tensor:
    """Copy the marks of `mark_dynamic` and similar functions to another tensor."""
    for name, value in vars(source).items():
        if name.startswith("_dynamo_") or name == "_has_symbolic_sizes_strides":
            setattr(copy, name, value.copy() if hasattr(value, "copy") else value)
    return copy


@contextlib.contextmanager
def traced_backward() -> Iterator[None]:
    """Record for every backward operation where its forward operation was called."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the warning that anomaly mode is slow
        with torch.autograd.set_detect_anomaly(True, check_nan=False):
            yield


def forward_trace() -> str:
    """During a backward pass, the place where the forward operation was called; empty elsewhere."""
    node = probe("autograd node")()
    lines = node.metadata.get("traceback_", []) if node is not None else []
    return "".join(lines)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep torch's own messages about breaks and recompiles off the terminal: they are in the report."""
    handlers = {h for name in ("torch", "torch._dynamo") for h in logging.getLogger(name).handlers}
    levels = {handler: handler.level for handler in handlers}
    for handler in handlers:
        handler.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for handler, level in levels.items():
            handler.setLevel(level)
