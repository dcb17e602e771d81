"""How to open a file in each Python runtime, as a function from named arrays to named arrays.

This module needs only numpy and the runtime, and nothing of this package: `child.py` loads it by its path.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any


def _onnxruntime(runtime: Any, path: str) -> Callable:
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [x.name for x in session.get_outputs()]
    return lambda inputs: dict(zip(names, session.run(names, inputs)))  # noqa: B905  (older than Python 3.10)


def _openvino(runtime: Any, path: str) -> Callable:
    core = runtime.Core()
    # Without this, a processor with bfloat16 would compute in it.
    compiled = core.compile_model(core.read_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(inputs: dict[str, Any]) -> dict[str, Any]:
        found = compiled(inputs)
        return {name: found[x] for x in compiled.outputs for name in x.get_names()}

    return run


def _reference(runtime: Any, path: str) -> Callable:
    evaluator = importlib.import_module("onnx.reference").ReferenceEvaluator(path)
    return lambda inputs: dict(zip(evaluator.output_names, evaluator.run(None, inputs)))  # noqa: B905


def _tract(runtime: Any, path: str) -> Callable:
    codes = {"float32": "f32", "int64": "i64"}
    runnables: dict[tuple, tuple] = {}

    def prepare(shapes: dict[str, tuple]) -> tuple:
        """Prepare the model for the sizes of one batch: tract cannot solve for open sizes in sums and quotients."""
        model = runtime.onnx().load(path)
        inputs = [model.input_name(i) for i in range(model.input_count())]
        outputs = [model.output_name(i) for i in range(model.output_count())]
        for i, name in enumerate(inputs) if shapes else ():
            *shape, dtype = shapes[name]
            model.set_input_fact(i, ",".join([*map(str, shape), codes[dtype]]))
        for i in range(len(outputs)) if shapes else ():
            model.set_output_fact(i, None)
        return inputs, outputs, model.into_model().into_runnable() if shapes else None

    def numbers(x: Any) -> Any:
        try:
            return x.to_numpy()
        except runtime.TractError:  # a 64-bit integer, which tract treats as a size, a type of its own
            return x.convert_to(importlib.import_module("tract.tensor").DatumType.I64).to_numpy()

    prepare({})

    def run(given: dict[str, Any]) -> dict[str, Any]:
        shapes = {name: (*x.shape, x.dtype.name) for name, x in given.items()}
        key = tuple(shapes.items())
        if key not in runnables:
            runnables[key] = prepare(shapes)
        inputs, outputs, runnable = runnables[key]
        found = runnable.run([given[name] for name in inputs])
        return {name: numbers(x) for name, x in zip(outputs, found)}  # noqa: B905

    return run


def _torch(runtime: Any, path: str) -> Callable:
    if path.endswith(".aoti.pt2"):
        module = runtime._inductor.aoti_load_package(path)
    else:
        module = runtime.export.load(path).module()

    def run(inputs: dict[str, Any]) -> dict[str, Any]:
        with runtime.no_grad():
            found = module({name: runtime.from_numpy(x) for name, x in inputs.items()})
        return {name: x.numpy() for name, x in found.items()}

    return run


def _executorch(runtime: Any, path: str) -> Callable:
    """With the sizes of one batch: ExecuTorch needs an upper limit for open sizes."""
    torch, exir = importlib.import_module("torch"), importlib.import_module("executorch.exir")
    program = torch.export.load(path).module()
    methods: dict[tuple, tuple] = {}

    def prepare(tensors: dict[str, Any]) -> tuple:
        exported = torch.export.export(program, (tensors,))
        # Its check rejects operators as unknown although it has kernels for them.
        options = exir.EdgeCompileConfig(_check_ir_validity=False)
        lowered = exir.to_edge(exported, compile_config=options).to_executorch()
        (plan,) = lowered.executorch_program.execution_plan
        needed = {".".join(filter(None, (x.name, x.overload))) for x in plan.operators}
        missing = needed - {*runtime.Runtime.get().operator_registry.operator_names}
        if missing:  # its own error does not name them
            raise NotImplementedError(f"no kernel of {', '.join(sorted(missing))}")
        loaded = runtime.Runtime.get().load_program(lowered.buffer)
        return loaded, loaded.load_method("forward"), exported.call_spec.out_spec

    def run(inputs: dict[str, Any]) -> dict[str, Any]:
        tensors = {name: torch.from_numpy(x) for name, x in inputs.items()}
        key = _shapes(inputs)
        if key not in methods:
            methods[key] = prepare(tensors)
        _, method, structure = methods[key]
        found = torch.utils._pytree.tree_unflatten(method.execute([*tensors.values()]), structure)
        return {name: x.numpy() for name, x in found.items()}

    return run


def _iree(runtime: Any, path: str) -> Callable:
    """Its importer knows maximum and minimum only in ScatterND, and fails at a gather from stacked maps."""
    onnx, tools = importlib.import_module("onnx"), importlib.import_module("iree.compiler.tools")
    model = onnx.load(path)
    by_scatter_nd(model)
    without_stacks(model)
    with tempfile.TemporaryDirectory() as folder:
        onnx.save(model, f"{folder}/model.onnx")
        importer = [sys.executable, "-m", "iree.compiler.tools.import_onnx", f"{folder}/model.onnx"]
        subprocess.run([*importer, "-o", f"{folder}/model.mlir"], check=True)
        options = ["--iree-llvmcpu-target-cpu=host"]
        binary = tools.compile_file(f"{folder}/model.mlir", target_backends=["llvm-cpu"], extra_args=options)
    module = runtime.load_vm_flatbuffer(binary, driver="local-sync")
    function = module[model.graph.name]
    names = [[x.name for x in ports] for ports in (model.graph.input, model.graph.output)]

    def run(inputs: dict[str, Any]) -> dict[str, Any]:
        found = function(*(inputs[name] for name in names[0]))
        found = found if isinstance(found, tuple | list) else [found]
        return {name: x.to_host() for name, x in zip(names[1], found)}  # noqa: B905

    return run


def _tvm(runtime: Any, path: str) -> Callable:
    """With the sizes of one batch, and everything that follows from them computed: few operators accept open sizes."""
    onnx, frontend = importlib.import_module("onnx"), importlib.import_module("tvm.relax.frontend.onnx")
    relax = importlib.import_module("tvm.relax")
    machines: dict[tuple, Any] = {}
    names = [[x.name for x in ports] for ports in (onnx.load(path).graph.input, onnx.load(path).graph.output)]

    def run(inputs: dict[str, Any]) -> dict[str, Any]:
        key = _shapes(inputs)
        if key not in machines:
            model = onnx.load(path)
            fix_sizes(model, {name: x.shape for name, x in inputs.items()})
            built = runtime.compile(frontend.from_onnx(model), runtime.target.Target("llvm"))
            machines[key] = relax.VirtualMachine(built, runtime.cpu())
        found = machines[key]["main"](*(runtime.runtime.tensor(inputs[name]) for name in names[0]))
        found = [found] if hasattr(found, "numpy") else found
        return {name: x.numpy() for name, x in zip(names[1], found)}  # noqa: B905

    return run


def _litert(runtime: Any, path: str) -> Callable:
    """With the sizes of one batch, and 32-bit integers."""
    torch = importlib.import_module("torch")
    program = torch.export.load(path).module()

    class Plain(torch.nn.Module):
        """A wrapper, since the exported program refuses `eval`, which the converter calls."""

        def forward(self, **inputs: Any) -> Any:
            return program(inputs)

    models: dict[tuple, Any] = {}

    def run(inputs: dict[str, Any]) -> dict[str, Any]:
        key, tensors = _shapes(inputs), {name: torch.from_numpy(x) for name, x in inputs.items()}
        if key not in models:
            models[key] = runtime.convert(Plain().eval(), sample_kwargs=tensors)
        given = {name: x if x.is_floating_point() else x.int() for name, x in tensors.items()}
        found: dict[str, Any] = models[key](**given)
        return found

    return run


def by_scatter_nd(model: Any) -> None:
    """Replace ScatterElements with a maximum or minimum of vectors by ScatterND.

    Exported files cannot do so: ONNX Runtime computes ScatterND on several threads without a lock.
    """
    onnx = importlib.import_module("onnx")
    make, int64, nodes = onnx.helper.make_node, onnx.TensorProto.INT64, []
    model.graph.initializer.append(onnx.helper.make_tensor("last_axis", int64, [1], [-1]))
    for node in model.graph.node:
        if node.op_type == "ScatterElements" and any(x.s in (b"max", b"min") for x in node.attribute):
            kept = [x for x in node.attribute if x.name == "reduction"]
            wide, column = (f"{node.output[0]}_{x}" for x in ("wide", "column"))
            nodes += [make("Cast", [node.input[1]], [wide], to=int64), make("Unsqueeze", [wide, "last_axis"], [column])]
            node.op_type, node.input[1] = "ScatterND", column
            del node.attribute[:]
            node.attribute.extend(kept)
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def without_stacks(model: Any) -> None:
    """Read a column of stacked, transposed and flattened maps directly from the map that it comes from."""
    onnx = importlib.import_module("onnx")
    graph, last = model.graph, "last_size"
    made = {name: node for node in graph.node for name in node.output}
    constants = {x.name: onnx.numpy_helper.to_array(x) for x in graph.initializer}
    graph.initializer.append(onnx.helper.make_tensor(last, onnx.TensorProto.INT64, [1], [-1]))
    for node in graph.node:
        chain, name = [node], node.input[0] if node.input else ""
        for _ in range(4):
            chain.append(made.get(name, node))
            name = chain[-1].input[0] if chain[-1].input else ""
        if [x.op_type for x in chain] != ["Squeeze", "Slice", "Reshape", "Transpose", "Concat"]:
            continue
        _, column, flat, turned, stack = chain
        count, (place,) = len(stack.input), constants[column.input[1]].tolist()
        order, axis = turned.attribute[0].ints, stack.attribute[0].i
        if axis == 0 and order[-1] == 0 and constants[flat.input[1]].tolist() == [-1, count]:
            node.op_type, node.input[:] = "Reshape", [stack.input[place], last]


def fix_sizes(model: Any, shapes: dict[str, tuple]) -> None:
    """Set the sizes of the inputs, and compute everything that becomes constant."""
    onnx, evaluator = importlib.import_module("onnx"), importlib.import_module("onnx.reference").ReferenceEvaluator
    import numpy as np  # noqa: PLC0415

    graph, to_array = model.graph, onnx.numpy_helper.to_array
    for x in graph.input:
        for dim, size in zip(x.type.tensor_type.shape.dim, shapes[x.name]):  # noqa: B905
            dim.dim_value = size
    for x in graph.output:
        x.type.tensor_type.ClearField("shape")
    known, fewer = {x.name: to_array(x) for x in graph.initializer}, True
    while fewer:
        del graph.value_info[:]
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
        types = {x.name: x.type.tensor_type for x in (*inferred.graph.value_info, *inferred.graph.input)}
        sizes = {name: _sizes(x) for name, x in types.items()}
        kept = []
        for node in graph.node:
            if node.op_type == "Shape" and (found := sizes.get(node.input[0])) is not None:
                part = {x.name: x.i for x in node.attribute}
                known[node.output[0]] = np.array(found[part.get("start", 0) : part.get("end")], np.int64)
            elif {*node.input} - {""} <= {*known}:
                given = {name: known[name] for name in node.input if name}
                known |= dict(zip(node.output, map(np.asarray, evaluator(node).run(None, given))))  # noqa: B905
            else:
                kept.append(node)
        fewer = len(kept) < len(graph.node)
        del graph.node[:], graph.initializer[:]
        graph.node.extend(kept)
        read = {name for node in kept for name in node.input} | {x.name for x in graph.output}
        graph.initializer.extend(onnx.numpy_helper.from_array(x, name) for name, x in known.items() if name in read)
    model.CopyFrom(onnx.shape_inference.infer_shapes(model, data_prop=True))


def _sizes(tensor: Any) -> list[int] | None:
    """The sizes of a tensor of an ONNX graph; None if one of them is unknown."""
    known = tensor.HasField("shape") and all(x.HasField("dim_value") for x in tensor.shape.dim)
    return [x.dim_value for x in tensor.shape.dim] if known else None


def _shapes(inputs: dict[str, Any]) -> tuple:
    return tuple((name, x.shape) for name, x in inputs.items())


# The module to import, the package whose version it is, and the function that opens a file with it.
RUNTIMES: dict[str, tuple[str, str, Callable]] = {
    "onnxruntime": ("onnxruntime", "onnxruntime", _onnxruntime),
    "openvino": ("openvino", "openvino", _openvino),
    "reference": ("onnx", "onnx", _reference),
    "tract": ("tract", "tract", _tract),
    "iree": ("iree.runtime", "iree-base-runtime", _iree),
    "tvm": ("tvm", "apache-tvm", _tvm),
    "torch": ("torch", "torch", _torch),
    "executorch": ("executorch.runtime", "executorch", _executorch),
    "litert": ("litert_torch", "litert-torch", _litert),
}
