"""Sums at repeated indices keep every term, in any form of index, and in ONNX Runtime on several threads."""

import onnxruntime
import pytest
import torch
from torch import nn

from compiled_loss.exporting.accumulation import without_races
from compiled_loss.torch_private import quiet

FIRST, SECOND = torch.tensor([[0, -1], [2, 0], [0, 0]]), torch.tensor([1, -2])


@pytest.fixture(autouse=True)
def _quiet():
    with quiet():
        yield


class Accumulate(nn.Module):
    """`values` with `rows` added at given indices."""

    def __init__(self, *indices):
        super().__init__()
        self.indices = indices

    def forward(self, values, rows):
        return torch.ops.aten.index_put(values, self.indices, rows, True)


def rewritten(module, *inputs):
    """Exported, rewritten, and exported again, as a loss with its gradients is."""
    return torch.export.export(without_races(torch.export.export(module, inputs).module()), inputs)


@pytest.mark.parametrize(
    ("indices", "rows"),
    [
        ((FIRST,), (3, 2, 4, 5)),
        ((FIRST, SECOND), (3, 2, 5)),
        ((FIRST, None, SECOND), (3, 2, 4)),
        ((None, FIRST), (3, 3, 2, 5)),
        ((None, FIRST, SECOND), (3, 3, 2)),
        ((FIRST, SECOND), (5,)),
        ((SECOND, None), ()),
    ],
)
def test_every_form_of_index_gives_the_sums_of_index_put(indices, rows):
    torch.manual_seed(0)
    values, rows = torch.randn(3, 4, 5, dtype=torch.float64), torch.randn(rows, dtype=torch.float64)
    program = rewritten(Accumulate(*indices), values, rows)
    targets = [str(node.target) for node in program.graph.nodes]
    assert not any("index_put" in target for target in targets)
    assert any("scatter_add" in target for target in targets)
    torch.testing.assert_close(program.module()(values, rows), Accumulate(*indices)(values, rows))


def test_an_assignment_stays_as_it_is():
    class Assign(nn.Module):
        def forward(self, values, rows):
            return torch.ops.aten.index_put(values, [torch.tensor([2, 0])], rows)

    values, rows = torch.zeros(3), torch.tensor([1.0, 2.0])
    program = rewritten(Assign(), values, rows)
    assert program.module()(values, rows).tolist() == [2.0, 0.0, 1.0]


@pytest.mark.parametrize("width", [1, 32])
def test_threads_of_onnx_runtime_lose_no_term(width):
    # With ScatterND, 200 of 200 runs of this size were wrong on two cores.
    class Count(nn.Module):
        def forward(self, index, rows):
            return torch.ops.aten.index_put(torch.zeros(3, width), [index], rows, True)

    index, rows = torch.randint(0, 3, (20000,)), torch.ones(20000, width)
    program = torch.onnx.export(rewritten(Count(), index, rows), dynamo=True, verbose=False, opset_version=20)
    assert program is not None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 4
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString(), options)
    names, counts = [x.name for x in session.get_inputs()], index.bincount(minlength=3)
    for _ in range(20):
        (found,) = session.run(None, dict(zip(names, (index.numpy(), rows.numpy()), strict=True)))
        assert torch.equal(torch.as_tensor(found), counts[:, None].expand(3, width).float())
