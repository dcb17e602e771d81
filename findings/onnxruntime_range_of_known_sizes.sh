#!/usr/bin/env bash
# ONNX Runtime refuses a valid model once a size is known: `Range(0, Gather(Cast<int32>(Shape(x)), 0), 1)`, all of int32, runs
# for x of [N, 10], and for x of [60, 10] the same graph is not loaded: "All inputs to 'Range' op must be of the same type".
# They are: onnx.checker with full_check and onnx.reference take both. With Cast behind Gather, or Range in int64, it loads.
# A good guess is "what runs with an open size runs with a fixed one", and "a type error is about types": it is what the
# shape inference of the load knows of a size that keeps the type from before the Cast. Whoever fixes the sizes of a model
# that runs, as tools do for hardware, loses it.
# Seen with onnxruntime 1.32.0, onnx 1.23.2, numpy 2.4.6; onnxruntime 1.20.1 loads all four.
# Fails if 1.32.0 loads the graph for [60, 10], or if one of the others is not loaded.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet onnx==1.23.2 numpy==2.4.6
cat > "$folder/run.py" <<'PY'
import numpy as np
import onnxruntime
from onnx import checker, parser
from onnx.reference import ReferenceEvaluator

ENDS = {
    "Cast before Gather": "s = Shape (x) c = Cast <to = 6> (s) n = Gather (c, zero)",
    "Cast behind Gather": "s = Shape (x) g = Gather (s, zero) n = Cast <to = 6> (g)",
}
print(f"onnxruntime {onnxruntime.__version__}")
options, x, refused = onnxruntime.SessionOptions(), np.zeros((60, 10), np.float32), []
options.log_severity_level = 3
for size in ("N", "60"):
    for name, end in ENDS.items():
        text = f"""<ir_version: 8, opset_import: ["" : 20]> g (float[{size}, 10] x) => (int32[M] y)
            <int32 zero = {{0}}, int32 one = {{1}}> {{ {end} y = Range (zero, n, one) }}"""
        model = parser.parse_model(text)
        checker.check_model(model, full_check=True)
        assert ReferenceEvaluator(model).run(None, {"x": x})[0].tolist() == list(range(60))
        try:
            session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            refused.append((size, name))
            print(f"x of [{size}, 10], {name}: {error}")
        else:
            found = session.run(None, {"x": x})[0]
            print(f"x of [{size}, 10], {name}: {found[:3].tolist()} ... {found[-1]}")
            assert found.tolist() == list(range(60))
expected = [("60", "Cast before Gather")] if onnxruntime.__version__ == "1.32.0" else []
assert refused == expected, "no longer so" if not refused else refused
PY
for version in 1.32.0 1.20.1; do
    "$folder/venv/bin/pip" install --quiet "onnxruntime==$version"
    "$folder/venv/bin/python" "$folder/run.py"
done
