"""Operators that ONNX Runtime has less exactly than torch are written in another way."""

import onnxruntime
import pytest
import torch
from torch import nn

from compiled_loss.audit.torch_private import quiet
from compiled_loss.exporting.translations import translations


class Sigmoid(nn.Module):
    """`sigmoid(x)`."""

    def forward(self, x):
        return x.sigmoid()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_sigmoid_keeps_its_digits_at_low_logits(dtype):
    x = torch.cat([torch.linspace(-87, 60, 1000), torch.tensor([-torch.inf, -200.0, 200.0, torch.inf, torch.nan])])
    x = x.to(dtype)
    with quiet():
        program = torch.export.export(Sigmoid(), (x,))
        written = torch.onnx.export(
            program, dynamo=True, verbose=False, opset_version=20, custom_translation_table=translations()
        )
    assert written is not None
    session = onnxruntime.InferenceSession(written.model_proto.SerializeToString())
    (found,) = session.run(None, {"x": x.numpy()})
    torch.testing.assert_close(torch.as_tensor(found), x.sigmoid(), rtol=1e-6, atol=0, equal_nan=True)
