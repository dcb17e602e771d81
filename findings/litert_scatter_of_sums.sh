#!/usr/bin/env bash
# litert-torch converts scatter_add, index_add and scatter_reduce("amax") without a word, into a model that its own runtime
# refuses at the first call: "Only update, Add, Multiply, Maximum and Minimum operations are currently supported for
# stablehlo.scatter", although an Add, or a Maximum, is just what each of them is. Plain scatter, of the very same
# indices, runs and is right. A good guess is "the sentence lists what works". Whoever converts a graph with sums by
# index (a segment sum, a histogram, a gradient of an embedding) gets a file, and learns on the device that none runs.
# Seen with litert-torch 0.10.0, ai-edge-litert 2.3.0, litert-converter 0.5.0, torch 2.13.0, on a CPU.
# Fails if one of the three runs, or if plain scatter does not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0
"$folder/venv/bin/pip" install --quiet litert-torch==0.10.0 ai-edge-litert==2.3.0 litert-converter==0.5.0
"$folder/venv/bin/python" - 2> "$folder/words" <<'PY' || { tail -n 20 "$folder/words" >&2; exit 1; }
import contextlib
import io
from importlib.metadata import version

import litert_torch
import torch

CALLS = {
    "scatter": lambda x, i, u: x.scatter(0, i.long(), u),
    "scatter_add": lambda x, i, u: x.scatter_add(0, i.long(), u),
    "index_add": lambda x, i, u: x.index_add(0, i.long(), u),
    "scatter_reduce amax": lambda x, i, u: x.scatter_reduce(0, i.long(), u, "amax"),
}


class Module(torch.nn.Module):
    def __init__(self, call):
        super().__init__()
        self.call = call

    def forward(self, x, i, u):
        return self.call(x, i, u)


inputs = torch.zeros(5), torch.tensor([1, 4, 2], dtype=torch.int32), torch.tensor([3.0, 5.0, 7.0])
print("litert-torch", version("litert-torch"), "ai-edge-litert", version("ai-edge-litert"), "torch", torch.__version__)
ran = {}
for name, call in CALLS.items():
    with contextlib.redirect_stdout(io.StringIO()):  # its progress
        model = litert_torch.convert(Module(call).eval(), inputs)
    try:
        found = model(*inputs).tolist()
    except RuntimeError as error:
        print(f"{name}: converted, then {error}")
        assert "Only update, Add, Multiply, Maximum" in str(error)
    else:
        ran[name] = found
        print(f"{name}: {found}, right is {call(*inputs).tolist()}")
assert ran == {"scatter": [0.0, 3.0, 7.0, 0.0, 5.0]}, "no longer so"
PY
