#!/usr/bin/env bash
# torch.compile, inductor, CPU: what `exp` gives and is read twice before a sum over a middle dimension is written to memory
# whole, in a loop of its own, and read back; with `exp2` in its place nothing is. A good guess is one fused loop that keeps
# it in registers, or at least the same for both. So `exp2(x * log2(e))` saves a buffer of the input's size.
# Seen with torch 2.13.0+cpu on an AMD EPYC: one buffer of 21 MB with exp, none with exp2; 2.3 and 2.4 ms here, 3.6 and 2.9
# where more is computed from it.
# Fails if the buffers are others.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 torch==2.13.0
"$folder/venv/bin/python" - <<'PY'
import math
import statistics
import time

import torch
from torch._inductor.utils import run_and_get_code

SHAPE = 8, 80, 8400


def chain(e):
    return (e / (2 + e)) * (1 / (1 + e))


def with_exp(x):
    return chain((-x.abs()).exp()).sum(1)


def with_exp2(x):
    return chain((x.abs() * -math.log2(math.e)).exp2()).sum(1)


x = torch.randn(SHAPE)
buffers, ms = {}, {}
for function in (with_exp, with_exp2):
    compiled = torch.compile(function, fullgraph=True)
    result, codes = run_and_get_code(compiled, x)
    torch.testing.assert_close(result, function(x.double()).float())
    # Every buffer of x's size that the code allocates.
    buffers[function.__name__] = "".join(codes).count("empty_strided_cpu((8, 80, 8400)")
    times = []
    for _ in range(25):
        begin = time.perf_counter()
        compiled(x)
        times.append(1e3 * (time.perf_counter() - begin))
    ms[function.__name__] = round(statistics.median(times), 2)
print("torch", torch.__version__, "buffers of the input's size:", buffers, "ms:", ms)
assert buffers == {"with_exp": 1, "with_exp2": 0}, "no longer so"
PY
