#!/usr/bin/env bash
# torch.compile(dynamic=True), any backend: a number of a module, such as `math.e`, or of an object, that `forward` of an
# autograd.Function reads is taken for one that may change; a second call of the function in the same graph then ends in an
# AssertionError of the tracer. A good guess is that a number which nobody changes is a constant, or that two calls are traced as one
# is. With one call, without dynamic=True, or with the number as a literal or read once before, there is no error.
# Seen with torch 2.13.0+cpu; 2.11.0, 2.12.1 and 2.14.1 alike.
# Fails if the second call is traced, or one of the others is not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 torch==2.13.0
"$folder/venv/bin/python" - <<'PY'
import math

import torch


class OfModule(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * math.e

    @staticmethod
    def backward(ctx, gradient):
        return gradient * math.e


class Literal(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2.718281828459045

    @staticmethod
    def backward(ctx, gradient):
        return gradient * 2.718281828459045


def once(function, x, y):
    return function.apply(x).sum()


def twice(function, x, y):
    return function.apply(x).sum() + function.apply(y).sum()


def read_before(function, x, y):
    return twice(function, x * math.e / math.e, y)


x, y = torch.ones(3, requires_grad=True), torch.ones(4, requires_grad=True)
seen = {}
for name, calls, function, dynamic in (
    ("once", once, OfModule, True),
    ("twice", twice, OfModule, True),
    ("twice, sizes not open", twice, OfModule, None),
    ("twice, a literal", twice, Literal, True),
    ("twice, read before", read_before, OfModule, True),
):
    torch._dynamo.reset()
    compiled = torch.compile(calls, dynamic=dynamic, backend="eager", fullgraph=True)
    try:
        compiled(function, x, y)
        seen[name] = "traced"
    except Exception as error:
        seen[name] = type(error).__name__
    print(f"torch {torch.__version__}, {name}: {seen[name]}")
assert seen.pop("twice") == "AssertionError" and set(seen.values()) == {"traced"}, "no longer so"
PY
