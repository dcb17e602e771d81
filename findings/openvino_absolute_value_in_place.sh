#!/usr/bin/env bash
# OpenVINO's CPU plugin computes Abs of what Concat made in place, although somebody else reads it: in
# `c = Concat(x, x); a = Abs(c); s = Sin(c)` the sine is that of |x|, without an error, static shapes or open ones. The same
# graph with Neg, Floor, Exp or Sqrt in place of Abs is right, and so is Abs with an operator between. A good guess is "a plan
# of memory looks at all readers". `torch.isfinite` exports as Abs beside a comparison, so that a check for NaN behind a
# concatenation turns negative numbers into positive ones.
# Seen with openvino 2026.4.1 (CPU, INFERENCE_PRECISION_HINT f32), onnx 1.23.2, numpy 2.4.6.
# Fails if the graph with Abs is right, or another one is not.
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

print(f"openvino {openvino.__version__}")
core, x = openvino.Core(), np.array([-1.0, 0.5], np.float32)
right = np.sin(np.concatenate([x, x]))
for size in ("N", "2"):
    for name in ("Abs", "Neg", "Floor", "Exp", "Sqrt"):
        path = f"{sys.argv[1]}/{name}{size}.onnx"
        text = f"""<ir_version: 8, opset_import: ["" : 20]> g (float[{size}] x) => (float[M] a, float[M] s)
        {{ c = Concat <axis = 0> (x, x) a = {name} (c) s = Sin (c) }}"""
        onnx.save(parser.parse_model(text), path)
        model = core.compile_model(core.read_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        found = model([x])[model.outputs[1]]
        print(f"Sin beside {name}, x of {size}: {np.float64(found).round(4).tolist()}, right is {np.float64(right).round(4).tolist()}")
        is_right = np.allclose(found, right, atol=1e-6)
        assert is_right == (name != "Abs"), "no longer so" if name == "Abs" else f"{name} is wrong"
PY
