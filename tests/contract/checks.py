"""The contract as audits: one graph, no read from the device, the same numbers compiled and exported."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import onnxruntime
import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from compiled_loss.audit import AuditReport, audit
from compiled_loss.torch_private import quiet

ROUNDING = 1e-5  # of the largest entry
COMPILED_SIZES = (17, 0, 100, 1, 480, 2)
LOW_PRECISION_SIZES = (17, 0, 100)
WAITING_SIZES = (17,)
EXPORTED_SIZES = (5, 0, 1, 2, 7)
COMPILED = ("recompiles", "numbers", "cudagraphs")


class Case(NamedTuple):
    """A function of tensors alone, and its inputs for any number of rows."""

    function: Callable[..., tuple[Tensor, ...]]
    inputs: Callable[[int, bool], Sequence[Tensor]]  # (rows, padded) -> tensors
    learnt: int  # the first inputs, whose gradients are compared
    rows: int  # the last inputs, which have N rows
    exact: bool = False  # bit for bit instead of to float32 rounding
    planned: int = 0  # inputs that come after the rows, each with a size of its own

    @property
    def tolerance(self) -> float:
        """Of the largest entry."""
        return 0.0 if self.exact else ROUNDING


def audit_compiled(case: Case, *, backend: str = "inductor") -> AuditReport:
    """One compile, forward and backward, for batches of very different numbers of rows, and the eager numbers."""
    batches = [batch_of(case, n, padded=True) for n in COMPILED_SIZES]
    return audit(case.function, batches, warmup=1, backend=backend, tolerance=case.tolerance)


def audit_waits(case: Case) -> AuditReport:
    """Nothing is read from the device, nor does a size depend on a value: no compile, so a second at most."""
    batches = [batch_of(case, n, padded=True) for n in WAITING_SIZES]
    return audit(case.function, batches, skip=("breaks", *COMPILED))


def audit_low_precision(case: Case) -> AuditReport:
    """The same with the learnt inputs in bfloat16."""
    batches = [batch_of(case, n, padded=True, dtype=torch.bfloat16) for n in LOW_PRECISION_SIZES]
    return audit(case.function, batches, warmup=1, backend="aot_eager")


def audit_export(case: Case) -> AuditReport:
    """The ExportedProgram and ONNX Runtime give the eager numbers, also without rows."""
    batches = [batch_of(case, n, padded=False, learnt=False) for n in EXPORTED_SIZES]
    return audit(
        case.function, batches, exportable=True, tolerance=case.tolerance, skip=("device", "breaks", *COMPILED)
    )


def batch_of(
    case: Case,
    rows: int,
    *,
    padded: bool,
    learnt: bool = True,
    dtype: torch.dtype | None = None,
    device: str | None = None,
) -> tuple[Tensor, ...]:
    """The inputs of a case; padded rows are marked dynamic."""
    inputs = [x.detach().to(device) for x in case.inputs(rows, padded)]
    if learnt:
        inputs[: case.learnt] = [x.to(dtype).requires_grad_() for x in inputs[: case.learnt]]
    if padded:
        for x in inputs[len(inputs) - case.rows - case.planned :]:
            torch._dynamo.mark_dynamic(x, 0)
    return tuple(inputs)


def assert_same(got: Sequence[Tensor], expected: Sequence[Tensor], *, exact: bool = False) -> None:
    """Integers and bools to the bit, floating numbers to float32 rounding."""
    for i, (x, y) in enumerate(zip(got, expected, strict=True)):
        assert (x.dtype, x.shape) == (y.dtype, y.shape), f"output {i}: {x.dtype} {x.shape}, {y.dtype} {y.shape}"
        scale = 0.0 if exact or y.numel() == 0 or not y.is_floating_point() else y.abs().max().item()
        torch.testing.assert_close(x, y, rtol=0, atol=ROUNDING * scale, equal_nan=True, msg=f"output {i}:\n{x}\n{y}")


def export(case: Case) -> tuple[ExportedProgram, "OnnxFunction"]:
    """The function as an ExportedProgram and in ONNX Runtime, N dynamic."""
    inputs = tuple(x.detach() for x in case.inputs(5, False))
    sizes = [Dim("N")] * case.rows + [Dim(f"G{i}") for i in range(case.planned)]
    fixed = len(inputs) - len(sizes)
    shapes = tuple({} if i < fixed else {0: sizes[i - fixed]} for i in range(len(inputs)))
    program = torch.export.export(_Module(case.function), inputs, dynamic_shapes=(shapes,))
    return program, OnnxFunction(program)


class OnnxFunction:
    """An exported program in ONNX Runtime, on the CPU."""

    def __init__(self, program: ExportedProgram) -> None:
        with quiet():
            converted = torch.onnx.export(program, dynamo=True, verbose=False)
        assert converted is not None
        model = converted.model_proto.SerializeToString()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        names = [x.name for x in self.session.get_inputs()]
        feed = {name: x.numpy() for name, x in zip(names, inputs, strict=True)}
        return [torch.as_tensor(x) for x in self.session.run(None, feed)]


class _Module(torch.nn.Module):
    def __init__(self, function: Callable[..., tuple[Tensor, ...]]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return self.function(*inputs)
