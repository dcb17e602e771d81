#!/usr/bin/env bash
# OpenVINO's CPU plugin computes ReduceMin of integers in float32, whatever precision is asked for: the smallest of two
# numbers that are both 2147483647 is 2147483520, which is neither of them, and ids above 2^24 come back as their
# neighbours. Elementwise Min, Where and ScatterElements of the same numbers, in the same plugin, are exact. A good guess
# is "a minimum is one of its inputs". Whoever fills with the largest integer and takes the minimum, as a search for a
# first index does, gets a large number that is not the fill, takes it for an index, and reads anywhere.
# Seen with openvino 2026.4.1 (CPU, INFERENCE_PRECISION_HINT f32), onnx 1.23.2, numpy 2.4.6.
# Fails if ReduceMin is exact, or Min is not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet openvino==2026.4.1 onnx==1.23.2 numpy==2.4.6
"$folder/venv/bin/python" - "$folder" <<'PY'
import sys

import numpy as np
import onnx
import openvino
from onnx import parser

GRAPHS = {
    "ReduceMin": """<ir_version: 8, opset_import: ["" : 20]>
        g (int32[N, M] x) => (int32[N] y) <int64[1] last = {1}> { y = ReduceMin <keepdims = 0> (x, last) }""",
    "Min": """<ir_version: 8, opset_import: ["" : 20]>
        g (int32[N] a, int32[N] b) => (int32[N] y) { y = Min (a, b) }""",
}
print(f"openvino {openvino.__version__}")
core = openvino.Core()
x = np.array([[2**31 - 1, 2**31 - 1], [2**24 + 1, 2**24 + 3]], np.int32)
found = {}
for name, text in GRAPHS.items():
    path = f"{sys.argv[1]}/{name}.onnx"
    onnx.save(parser.parse_model(text), path)
    model = core.compile_model(core.read_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found[name] = model([x] if name == "ReduceMin" else [x[:, 0], x[:, 1]])[0].tolist()
    print(f"{name} of {x.tolist()}: {found[name]}, right is {x.min(1).tolist()}")
assert found["Min"] == x.min(1).tolist(), "Min is wrong"
assert found["ReduceMin"] == [2147483520, 2**24], "no longer so"
PY
