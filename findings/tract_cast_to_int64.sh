#!/usr/bin/env bash
# tract: Cast to int64, and only that Cast, makes symbolic sizes of plain data. Their running sums and their order are then
# refused ("TDim is not a number"), and their sum is an output that cannot be read; the very same graphs are right with Cast
# to int32, and with an int64 input in place of the Cast. A good guess is "int64 is the integer type of ONNX, int32 the
# risky one". Whoever exports index arithmetic from torch, all of it int64, gets a model that loads and refuses every batch.
# Seen with tract 0.23.9, onnx 1.23.2, numpy 2.4.6.
# Fails if one of the graphs with Cast to int64 is right, or one of the others is not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet tract==0.23.9 onnx==1.23.2 numpy==2.4.6
"$folder/venv/bin/python" - "$folder" <<'PY'
import sys
from importlib.metadata import version

import numpy as np
import onnx
import tract
from onnx import parser

# Of the numbers 0 to 3, as `c`.
OPERATORS = {
    "CumSum": ("zero = Constant <value_int = 0> () y = CumSum (c, zero)", [0, 1, 3, 6]),
    "TopK": ("k = Constant <value_ints = [4]> () y, i = TopK <axis = 0> (c, k)", [3, 2, 1, 0]),
    "ReduceSum": ("y = ReduceSum <keepdims = 1> (c)", [6]),
}
CODES = {"int32": onnx.TensorProto.INT32, "int64": onnx.TensorProto.INT64}
print(f"tract {version('tract')}")
path, data = f"{sys.argv[1]}/graph.onnx", np.arange(4)
for name, (body, right) in OPERATORS.items():
    for given, kind in (("float", "int64"), ("float", "int32"), ("int64", "int64")):
        first = "c = Identity (x)" if given == kind else f"c = Cast <to = {CODES[kind]}> (x)"
        text = f"""<ir_version: 8, opset_import: ["" : 20]> g ({given}[N] x) => ({kind}[M] y) {{ {first} {body} }}"""
        onnx.save(parser.parse_model(text), path)
        try:
            model = tract.onnx().load(path).into_model().into_runnable()
            found = model.run([data.astype(np.float32 if given == "float" else np.int64)])[0].to_numpy().tolist()
        except tract.TractError as error:
            lines = [x.strip() for x in str(error).split("Stack backtrace")[0].splitlines() if x.strip()]
            found = f"refused: {lines[-1]}"
        print(f"{name} of {given} data as {kind}: {found}")
        is_cast = given == "float" and kind == "int64"
        assert (found == right) != is_cast, "no longer so" if is_cast else "another one is wrong"
PY
