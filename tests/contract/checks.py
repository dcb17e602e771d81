"""The contract as code: one graph, no read from the device, the same numbers exported. A breach raises."""

import copy
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import onnxruntime
import torch
from torch import Tensor
from torch._dynamo.callback import CallbackArgs, CallbackTrigger, callback_handler
from torch._dynamo.utils import counters
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import Dim, ExportedProgram
from torch.utils._python_dispatch import TorchDispatchMode

ROUNDING = 1e-5  # of the largest entry
COMPILED_SIZES = (17, 0, 100, 1, 480, 2)
EXPORTED_SIZES = (0, 1, 2, 7)


class Case(NamedTuple):
    """A function of tensors alone, and its inputs for any number of rows."""

    function: Callable[..., tuple[Tensor, ...]]
    inputs: Callable[[int, bool], Sequence[Tensor]]  # (rows, padded) -> tensors
    learnt: int  # the first inputs, whose gradients are compared
    rows: int  # the last inputs, which have N rows
    exact: bool = False  # bit for bit instead of to float32 rounding


class CompileLog:
    """Counts what is compiled while it is open: graphs, and backward graphs that were left for later."""

    def __enter__(self) -> "CompileLog":
        torch._dynamo.reset()
        counters.clear()
        self.graphs: list[str] = []
        self.lazy_backwards: list[str] = []
        callback_handler.register_start_callback(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        callback_handler.remove_start_callback(self._note)

    def _note(self, args: CallbackArgs) -> None:
        lazy = args.callback_trigger == CallbackTrigger.LAZY_BACKWARD
        (self.lazy_backwards if lazy else self.graphs).append(args.compile_id)

    def assert_one_graph(self) -> None:
        assert len(self.graphs) == 1, f"expected one compile, got {self.graphs}"
        assert len(self.lazy_backwards) <= 1, f"expected one backward, got {self.lazy_backwards}"
        assert not counters["graph_break"], dict(counters["graph_break"])
        assert not counters["unimplemented"], dict(counters["unimplemented"])


def run(function: Callable[..., tuple[Tensor, ...]], inputs: Sequence[Tensor], learnt: int) -> list[Tensor]:
    """Outputs, and the gradients of a weighted sum of the first output."""
    outputs = function(*inputs)
    if not learnt:
        return list(outputs)
    weight = torch.linspace(1, 2, outputs[0].numel(), dtype=outputs[0].dtype, device=outputs[0].device)
    scalar = (outputs[0] * weight.view(outputs[0].shape)).sum()
    return [x.detach() for x in outputs] + list(torch.autograd.grad(scalar, inputs[:learnt]))


def assert_same(got: Sequence[Tensor], expected: Sequence[Tensor], *, exact: bool = False) -> None:
    """Integers and bools to the bit, floating numbers to float32 rounding."""
    for i, (x, y) in enumerate(zip(got, expected, strict=True)):
        assert (x.dtype, x.shape) == (y.dtype, y.shape), f"output {i}: {x.dtype} {x.shape}, {y.dtype} {y.shape}"
        scale = 0.0 if exact or y.numel() == 0 or not y.is_floating_point() else y.abs().max().item()
        torch.testing.assert_close(x, y, rtol=0, atol=ROUNDING * scale, equal_nan=True, msg=f"output {i}:\n{x}\n{y}")


def assert_one_graph(case: Case, *, backend: str = "inductor") -> None:
    """One compile, forward and backward, for batches of very different numbers of rows, and the eager numbers."""
    compiled = torch.compile(case.function, fullgraph=True, backend=backend)
    with CompileLog() as log:
        for rows in COMPILED_SIZES:
            inputs = _leaves(case, case.inputs(rows, True))
            expected = run(case.function, inputs, case.learnt)
            for x in inputs[len(inputs) - case.rows :]:
                torch._dynamo.mark_dynamic(x, 0)
            assert_same(run(compiled, inputs, case.learnt), expected, exact=case.exact)
    log.assert_one_graph()


def assert_no_sync(case: Case, rows: int = 7) -> None:
    """Values are out of reach here, and so is every device but the inputs' own."""
    function = case.function
    if isinstance(function, torch.nn.Module):
        function = copy.deepcopy(function).to("meta")
    inputs = [x.to("meta") for x in case.inputs(rows, False)]
    with FakeTensorMode(shape_env=None, allow_non_fake_inputs=True) as mode, _Spy():
        run(function, _leaves(case, [mode.from_tensor(x) for x in inputs]), case.learnt)


def export(case: Case) -> tuple[ExportedProgram, "OnnxFunction"]:
    """The function as an ExportedProgram and in ONNX Runtime, N dynamic."""
    inputs = tuple(x.detach() for x in case.inputs(5, False))
    size = Dim("N")
    fixed = len(inputs) - case.rows
    shapes = tuple({} if i < fixed else {0: size} for i in range(len(inputs)))
    program = torch.export.export(_Module(case.function), inputs, dynamic_shapes=(shapes,))
    return program, OnnxFunction(program)


def assert_exports(case: Case) -> None:
    """The ExportedProgram and ONNX Runtime give the eager numbers, also without rows."""
    program, onnx = export(case)
    for rows in EXPORTED_SIZES:
        inputs = [x.detach() for x in case.inputs(rows, False)]
        expected = case.function(*inputs)
        assert_same(program.module()(*inputs), expected, exact=case.exact)
        assert_same(onnx(*inputs), expected, exact=case.exact)


class OnnxFunction:
    """An exported program in ONNX Runtime, on the CPU."""

    def __init__(self, program: ExportedProgram) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's own
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


class _Spy(TorchDispatchMode):
    """Sees what the fake tensors let pass: writes through a mask, and copies to another device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket in (torch.ops.aten.index_put, torch.ops.aten.index_put_):
            masks = [i for i in args[1] if i is not None and i.dtype in (torch.bool, torch.uint8)]
            assert not masks, f"{func} through a mask waits for the number of True entries"
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._to_copy.default and args[0].device.type == "meta":
            assert result.device.type == "meta", f"a copy from the device to {result.device} waits"
        return result


def _leaves(case: Case, inputs: Sequence[Tensor]) -> list[Tensor]:
    return [x.detach().requires_grad_(i < case.learnt) for i, x in enumerate(inputs)]
