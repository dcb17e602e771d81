"""The words of a finding: which line, which cause, which advice."""

import dataclasses
import traceback
from pathlib import Path
from typing import Any

import pytest
import torch

from compiled_loss.audit import audit
from compiled_loss.audit.places import Finder
from compiled_loss.audit.stages.subject import first_line


def vectors():
    return [torch.randn(3) for _ in range(3)]


def sorts(x):
    return sorted(x)[0] * x


def makes_a_generator(x):
    return x + torch.rand(3, generator=torch.Generator())


def turns_into_text(x):
    return x * len(str(x.sum()))


@pytest.mark.parametrize(
    ("function", "advice"),
    [
        (sorts, "sort with torch.sort"),
        (makes_a_generator, "draw from torch's default generator, or draw outside and pass the numbers"),
        (turns_into_text, "move it outside the compiled function, or write it with torch operations"),
    ],
)
def test_a_break_is_given_advice_for_what_breaks(function, advice):
    report = audit(function, vectors(), skip=["device", "recompiles", "numbers", "cudagraphs"])
    assert {x.advice for x in report.findings} == {advice}, str(report)


def test_the_cause_of_a_failed_compile_is_told():
    def fails(graph, inputs):
        raise KeyError("no such operator")

    with pytest.raises(RuntimeError, match="no such operator") as failed:
        torch.compile(lambda x: x + 1, backend=fails)(torch.ones(3))
    assert first_line(failed.value) == "KeyError: 'no such operator'"


@pytest.mark.parametrize(
    ("text", "told"),
    [("", ""), ("\n  a\nb", "a"), ("because:\n\n  of this\nand that", "because: of this")],
)
def test_a_message_is_cut_to_what_says_something(text, told):
    assert first_line(text) == told


WRITTEN = """
def reads(x):
    y = x * 2
    return y * y.sum().item()


def calls(x):
    y = x.sin()
    return reads(y)


def branches_on_its_size(x):
    y = x.sin()
    if y.shape[0] > 20:
        return y.sum()
    return y.cos().sum()
"""


@pytest.mark.parametrize("file", ["<string>", "<generated>", "no/such/file.py"])
def test_functions_from_exec_keep_their_lines(file, tmp_path):
    own: dict[str, Any] = {}
    exec(compile(WRITTEN, file, "exec"), own)
    report = audit(own["calls"], vectors(), backend="aot_eager")
    assert {x.name for x in report.findings} == {"sync@reads:4", "graph-break@reads:4"}
    assert {str(x.place) for x in report.findings} == {f"{file}:4"}
    assert f"{file}:4" in report.to_html(tmp_path / "page.html").read_text().replace("&lt;", "<").replace("&gt;", ">")
    sizes = [torch.randn(n) for n in (7, 5, 9, 40)]
    report = audit(own["branches_on_its_size"], sizes, backend="aot_eager")
    assert [x.name for x in report.findings] == ["recompile@branches_on_its_size:14"]


def test_a_method_that_dataclasses_wrote_is_not_the_users():
    @dataclasses.dataclass
    class Pair:
        x: Any

    def compares(x):
        same = Pair(x.sum()) == Pair(x.mean())
        return x * same

    report = audit(compares, vectors(), backend="aot_eager", skip=["breaks", "recompiles", "numbers", "cudagraphs"])
    assert [x.place.source for x in report.findings if x.place] == ["same = Pair(x.sum()) == Pair(x.mean())"]


@pytest.mark.parametrize("package", ["torchvision", "torch_geometric"])
def test_a_neighbour_of_torch_is_not_torch(package):
    file = str(Path(torch.__file__).parents[1] / package / "ops.py")
    place, trace = Finder([package]).locate([traceback.FrameSummary(file, 3, "nms")])
    assert place is not None
    assert (place.file, len(trace)) == (file, 1)
