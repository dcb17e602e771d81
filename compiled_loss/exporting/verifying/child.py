"""Runs an exported file in a runtime, batch after batch, as a process of its own.

    python child.py RUNTIME FILE

It needs numpy and the runtime, and nothing of this package: it is run by its path, so that the runtime may live in an
environment without torch. A request is a line of JSON, {"inputs": PATH, "outputs": PATH}; the answer is {} once the
outputs are written, or {"refused": REASON}. Before, it says {"version": VERSION} and, once the file is loaded, {}.
`runtimes.py` is the other side.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import sys
from collections.abc import Callable
from typing import Any

DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "BOOL": "|b1"}


def write(path: str, arrays: dict[str, Any], **notes: str) -> None:
    """Named numpy arrays, and notes about them, as a file of the safetensors format."""
    codes = {code: name for name, code in DTYPES.items()}
    header: dict[str, Any] = {"__metadata__": notes} if notes else {}
    end = 0
    for name, x in arrays.items():
        begin, end = end, end + x.nbytes
        header[name] = {"dtype": codes[x.dtype.str], "shape": list(x.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for x in arrays.values():
            file.write(x.tobytes())


def read(path: str) -> dict[str, Any]:
    """The named numpy arrays of a file of the safetensors format."""
    import numpy as np  # noqa: PLC0415  (the package itself does without)

    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        data = file.read()
    found = {}
    for name, x in header.items():
        if name != "__metadata__":
            begin, end = x["data_offsets"]
            found[name] = np.frombuffer(data[begin:end], DTYPES[x["dtype"]]).reshape(x["shape"]).copy()
    return found


def _onnxruntime(runtime: Any, path: str) -> Callable:
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [x.name for x in session.get_outputs()]
    return lambda inputs: dict(zip(names, session.run(names, inputs)))  # noqa: B905  (older than Python 3.10)


def _openvino(runtime: Any, path: str) -> Callable:
    core = runtime.Core()
    # Without, a processor that has bfloat16 would compute in it.
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
        """It solves for open sizes and gives up at sums and quotients of them: made anew for every batch's own."""
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
        except runtime.TractError:  # a whole number of 64 bits, which it takes for a size, a type of its own
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


# The module to import, and how a file is opened with it.
RUNTIMES = {
    "onnxruntime": ("onnxruntime", _onnxruntime),
    "openvino": ("openvino", _openvino),
    "reference": ("onnx", _reference),
    "tract": ("tract", _tract),
    "torch": ("torch", _torch),
}


def main(runtime: str, path: str) -> None:
    """Answer requests until there are no more."""
    import numpy as np  # noqa: PLC0415

    # What a runtime prints must not come between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(**values: str) -> None:
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    name, open_file = RUNTIMES[runtime]
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        return answer(missing=str(error))
    answer(version=getattr(module, "__version__", None) or importlib.metadata.version(name))
    try:
        run = open_file(module, path)
    except Exception as error:
        return answer(refused=_reason(error))
    answer()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            outputs = run(read(request["inputs"]))
            write(request["outputs"], {name: np.asarray(x) for name, x in outputs.items()})
        except Exception as error:
            answer(refused=_reason(error))
        else:
            answer()
    return None


def _reason(error: Exception) -> str:
    words = str(error).split("Stack backtrace:")[0].split()  # tract tells all that it passed through
    return f"{type(error).__name__}: {' '.join(words)[:500]}"


if __name__ == "__main__":
    sys.path.pop(0)  # this folder: its modules are none of the runtime's
    main(*sys.argv[1:])
