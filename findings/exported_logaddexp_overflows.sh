#!/usr/bin/env bash
# torch.onnx.export writes logaddexp as Log(Exp(a) + Exp(b)), so the file's result is infinite above 88 and has no right
# digit where both are far below 0, although torch's own logaddexp exists to avoid both, and although logsumexp of the very
# same numbers is exported in its safe form. A good guess is "the exporter keeps the operator's one promise".
# Seen with torch 2.13.0+cpu, onnx 1.23.2, onnxscript 0.7.2, onnxruntime 1.32.0: logaddexp(100, 100) = inf and
# logaddexp(-200, -200) = -inf in ONNX Runtime, 100.69 and -199.31 in torch; logsumexp is right in both.
# Fails if logaddexp is right in the file, or logsumexp wrong.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6 onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.32.0
"$folder/venv/bin/python" - "$folder" <<'PY'
import math
import sys
import warnings

import onnxruntime
import torch

warnings.simplefilter("ignore")


class Add(torch.nn.Module):
    def forward(self, a, b):
        return torch.logaddexp(a, b), torch.logsumexp(torch.stack([a, b]), 0)


a = torch.tensor([100.0, 0.0, -200.0])
wanted = Add()(a, a)
path = f"{sys.argv[1]}/add.onnx"
torch.onnx.export(Add(), (a, a), path, dynamo=True, verbose=False)
session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
names = [x.name for x in session.get_inputs()]
got = session.run(None, dict(zip(names, [a.numpy()] * 2)))
print(f"torch {torch.__version__}, onnxruntime {onnxruntime.__version__}")
for name, right, found in zip(("logaddexp", "logsumexp"), wanted, got):
    print(f"{name} of {a.tolist()} twice: torch {right.tolist()}, file {found.tolist()}")
assert got[0][0] == math.inf and got[0][2] == -math.inf, "no longer so"
assert abs(got[0][1] - math.log(2)) < 1e-6
assert abs(got[1] - wanted[1].numpy()).max() < 1e-4, "logsumexp is wrong"
PY
