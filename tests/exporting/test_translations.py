"""Operators that lose digits in ONNX Runtime, or on the way there, are written in another way."""

import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compiled_loss.exporting.translations import translations
from compiled_loss.torch_private import quiet

SPECIAL = torch.tensor([-torch.inf, -200.0, 200.0, torch.inf, torch.nan])
LOGITS = torch.cat([torch.linspace(-87, 60, 1000), SPECIAL])


class Of(nn.Module):
    """A function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("function", "x"),
    [
        (torch.sigmoid, LOGITS),
        (F.softplus, LOGITS),
        (lambda x: F.softplus(x, beta=0.5), LOGITS),
        (torch.log1p, LOGITS.exp()),
        (torch.log1p, -torch.linspace(0, 1, 100)),
        (lambda x: torch.logaddexp(x, 2 * x), torch.cat([torch.linspace(-2000, -1, 500), SPECIAL])),
        (lambda x: torch.logaddexp(x, 2 * x), torch.linspace(1, 2000, 500)),
        (lambda x: torch.logaddexp2(x, 2 * x), torch.cat([torch.linspace(-2000, -2, 500), SPECIAL])),
    ],
    ids=[
        "sigmoid",
        "softplus",
        "softplus of another beta",
        "log1p of an exponential",
        "log1p of negative numbers",
        "logaddexp of small numbers",
        "logaddexp of large numbers",
        "logaddexp2",
    ],
)
def test_digits_are_kept_at_low_logits(function, x, dtype):
    x = x.to(dtype)
    with quiet():
        program = torch.export.export(Of(function), (x,))
        written = torch.onnx.export(
            program, dynamo=True, verbose=False, opset_version=20, custom_translation_table=translations()
        )
    assert written is not None
    session = onnxruntime.InferenceSession(written.model_proto.SerializeToString())
    (found,) = session.run(None, {"x": x.numpy()})
    torch.testing.assert_close(torch.as_tensor(found), function(x), rtol=1e-6, atol=0, equal_nan=True)


def test_whole_numbers_are_divided_downwards_without_comparing_truth_values():
    x, y = torch.arange(-9, 10)[:, None], torch.tensor([-64, -3, -1, 1, 2, 7])
    with quiet():
        program = torch.export.export(Of(lambda x: x // y), (x,))
        written = torch.onnx.export(
            program, dynamo=True, verbose=False, opset_version=20, custom_translation_table=translations()
        )
    assert written is not None
    assert not {node.op_type for node in written.model_proto.graph.node} & {"Equal", "And"}
    session = onnxruntime.InferenceSession(written.model_proto.SerializeToString())
    (found,) = session.run(None, {"x": x.numpy()})
    torch.testing.assert_close(torch.as_tensor(found), x // y)
