"""torch.export with the dimensions that vary between the batches, and ONNX Runtime, over all batches."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from compiled_loss.audit.findings import Finding
from compiled_loss.audit.restoring import restored
from compiled_loss.audit.stages.compare import compare
from compiled_loss.audit.stages.subject import Result, Subject, finding, first_line
from compiled_loss.audit.state import Outcome
from compiled_loss.audit.trees import is_plain, map_tensors, others_of, tensors_of
from compiled_loss.torch_private import quiet


class _OfTensors(nn.Module):
    """The function with only tensors as arguments; all other arguments are fixed."""

    def __init__(self, function: Callable[..., Any], batch: tuple[Any, ...]) -> None:
        super().__init__()
        self.function = function
        self.batch = batch

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        given = iter(tensors)
        args = map_tensors(lambda _: next(given), self.batch)
        return tuple(tensors_of(self.function(*args)))


def find_export_faults(subject: Subject) -> Result:
    """Whether the function exports, and the exported forms give the eager numbers on every batch."""
    found = _changing_constants(subject)
    varying = _varying_dimensions(subject.batches)
    tensors = [[x.detach() for x in tensors_of(batch)] for batch in subject.batches]
    examples = [i for i, x in enumerate(tensors) if all(x[t].shape[d] > 1 for t, d in varying)]
    if not examples:
        return Result(found, stopped="no batch has a size of at least 2 in every dimension that varies")
    example = examples[0]
    shapes: list[dict[int, Any]] = [{} for _ in tensors[example]]
    for t, d in varying:
        shapes[t][d] = torch.export.Dim.DYNAMIC
    module = _OfTensors(subject.function, subject.batches[example])
    errors: dict[str, float] = {}
    try:
        with restored(subject.state), quiet(), torch.no_grad():
            # A copy, as the program will be given later: views may have other strides.
            given = tuple(x.clone() for x in tensors[example])
            program = torch.export.export(module, given, dynamic_shapes=(tuple(shapes),))
    except Exception as error:
        message = f"torch.export: {first_line(error)}"
        where = subject.finder.of_text(str(error))
        if where[0] is None:
            where = subject.finder.locate(getattr(error, "real_stack", None) or [])
        return Result([*found, finding("export", message, where, example, detail=str(error))])
    comparable = [
        i for i, batch in enumerate(subject.batches) if _constants(batch) == _constants(subject.batches[example])
    ]
    with restored(subject.state):  # the program shares the function's buffers
        wrong = _compare(subject, program.module(), tensors, comparable, "exported", errors)
    found += wrong
    # Where the exported program is wrong, ONNX Runtime is wrong too: not a second finding.
    comparable = [i for i in comparable if not any(i in x.batches for x in wrong)]
    try:
        with quiet():
            run = _onnx(program)
    except ImportError as error:
        return Result(found, stopped=f"ONNX: {first_line(error)}; pip install 'compiled-loss[export]'", errors=errors)
    except Exception as error:
        where = subject.finder.of_text(str(error))
        found.append(finding("export", f"ONNX: {first_line(error)}", where, example, detail=str(error)))
        return Result(found, errors=errors)
    found += _compare(subject, run, tensors, comparable, "ONNX Runtime", errors)
    return Result(found, note=f"{len(varying)} dynamic dimensions", errors=errors)


def _compare(
    subject: Subject,
    function: Callable[..., Any],
    tensors: Sequence[Sequence[Tensor]],
    batches: Sequence[int],
    mode: str,
    errors: dict[str, float],
) -> list[Finding]:
    found: list[Finding] = []
    where = subject.finder.of_function(subject.function)
    for i in batches:
        inputs = [x.clone() for x in tensors[i]]
        try:
            got = Outcome(list(function(*inputs)), {}, False, [], {})
        except Exception as error:
            shapes = ", ".join(str(tuple(x.shape)) for x in inputs)
            message = f"{mode} cannot run this batch (shapes {shapes}): {first_line(error)}"
            found.append(finding("export", message, where, i, detail=str(error)))
            continue
        different = compare(subject, got, i, "export", mode, errors)
        found += [finding("export", f"different numbers in {x.message}", where, i) for x in different]
    return found


def _onnx(program: torch.export.ExportedProgram) -> Callable[..., list[Tensor]]:
    """A function that runs the program in ONNX Runtime on the CPU."""
    import onnxruntime  # noqa: PLC0415  (an optional dependency)

    converted = torch.onnx.export(program, dynamo=True, verbose=False)
    assert converted is not None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    model = converted.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def run(*inputs: Tensor) -> list[Tensor]:
        # By position: an input that is returned unchanged has another name here than in the program.
        feed = {x.name: given.cpu().numpy() for x, given in zip(session.get_inputs(), inputs, strict=True)}
        return [torch.as_tensor(x) for x in session.run(None, feed)]

    return run


def _varying_dimensions(batches: Sequence[tuple[Any, ...]]) -> list[tuple[int, int]]:
    """(tensor, dimension) of every size that is not the same in all batches."""
    shapes = [[tuple(x.shape) for x in tensors_of(batch)] for batch in batches]
    return [
        (t, d) for t, shape in enumerate(shapes[0]) for d in range(len(shape)) if len({x[t][d] for x in shapes}) > 1
    ]


def _constants(batch: tuple[Any, ...]) -> dict[str, Any]:
    """The plain values among the arguments, by path; other objects may not define equality."""
    return {f"args{name}": x for name, x in others_of(batch).items() if is_plain(x)}


def _changing_constants(subject: Subject) -> list[Finding]:
    """Arguments that are not tensors and differ between batches: an export keeps the value of the example."""
    where = subject.finder.of_function(subject.function)
    first, *others = map(_constants, subject.batches)
    changing = [name for name, value in first.items() if any(x.get(name, value) != value for x in others)]
    message = "is not a tensor and changes between batches: an exported graph keeps one value"
    return [finding("export", f"{name} {message}", where, 0) for name in changing]
