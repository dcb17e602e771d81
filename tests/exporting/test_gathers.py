"""Indices through the operator that is quick give what the index gives, and fail out of bounds as it does."""

from typing import Any

import onnxruntime
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from torch import nn
from torch.export import Dim

from compiled_loss.exporting.gathers import quick_gathers
from compiled_loss.torch_private import quiet


class Index(nn.Module):
    """`values[indices]`."""

    def forward(self, values, *indices):
        return values[indices]


def session_of(values, indices, dynamic):
    with quiet():
        program = torch.export.export(Index(), (values, *indices), dynamic_shapes=(None, dynamic))
        written = torch.onnx.export(
            program, dynamo=True, verbose=False, opset_version=20, custom_translation_table=quick_gathers()
        )
    assert written is not None
    operators = {node.op_type for node in written.model_proto.graph.node}
    return onnxruntime.InferenceSession(written.model_proto.SerializeToString()), operators


def run(session, values, indices):
    names = [x.name for x in session.get_inputs()]
    (found,) = session.run(None, {n: x.numpy() for n, x in zip(names, (values, *indices), strict=True)})
    return torch.as_tensor(found)


def draw(sizes, shapes):
    return tuple(torch.randint(0, size, shape) for size, shape in zip(sizes, shapes, strict=False))


ROWS = Dim("rows")


@pytest.mark.parametrize(
    ("sizes", "shapes", "quick"),
    [
        ((7,), [(5,)], True),
        ((7,), [(5, 3)], True),
        ((4, 6, 9), [(5, 1), (5, 1), (5, 8)], True),
        ((4, 6, 9), [(5,), (5,), (5,)], False),
        ((4, 6, 9), [(5, 1), (5, 8)], False),
        ((4, 600), [(5, 1), (5, 2)], False),
    ],
)
def test_an_index_gives_the_same_numbers_for_any_number_of_rows(sizes, shapes, quick):
    values = torch.randn(sizes)
    session, operators = session_of(values, draw(sizes, shapes), tuple({0: ROWS} for _ in shapes))
    assert ("GatherElements" in operators) is quick
    for rows in (0, 1, 2, 11):
        indices = draw(sizes, [(rows, *shape[1:]) for shape in shapes])
        assert torch.equal(run(session, values, indices), values[indices])


def test_an_index_beyond_the_end_fails():
    values, index = torch.randn(7), torch.tensor([0, 6])
    session, _ = session_of(values, (index,), ({0: ROWS},))
    with pytest.raises(Exception, match="Out of range"):
        run(session, values, (torch.tensor([0, 7]),))


class Rows(nn.Module):
    """The first numbers of rows, by an index that is as wide."""

    def __init__(self, width):
        super().__init__()
        self.width = width

    def forward(self, values, place):
        return (values.gather(0, place[:, None].expand(-1, self.width)),)


@pytest.mark.parametrize(("width", "operator"), [(5, "Gather"), (2, "GatherElements")])
def test_whole_rows_are_taken_as_such_in_the_reference_too(width, operator):
    values, place = torch.randn(80, 5), torch.randint(80, (90,))
    with quiet():
        program = torch.export.export(Rows(width), (values, place), dynamic_shapes=(None, {0: ROWS}))
        written = torch.onnx.export(
            program, dynamo=True, verbose=False, opset_version=20, custom_translation_table=quick_gathers()
        )
    assert written is not None
    model, inputs = written.model_proto, {"values": values.numpy(), "place": place.numpy()}
    assert [x.op_type for x in model.graph.node if x.op_type.startswith("Gather")] == [operator]
    found: list[Any] = [*onnxruntime.InferenceSession(model.SerializeToString()).run(None, inputs)]
    if operator == "Gather":
        found += ReferenceEvaluator(model).run(None, inputs)
    assert all(torch.equal(torch.from_numpy(x), values[place, :width]) for x in found)
