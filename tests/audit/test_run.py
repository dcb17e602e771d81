"""What the caller asks for, and what the report says when a stage cannot run."""

import json
import sys
from typing import Any

import pytest
import torch
from torch import nn

from compiled_loss import torch_private
from compiled_loss.audit import STAGES, audit

FAST: dict[str, Any] = {"backend": "aot_eager"}
BREAKS: dict[str, Any] = {"skip": ["device", "recompiles", "numbers", "cudagraphs", "gpu"]}


def clean(x):
    return (x * 2).sum()


def reads(x):
    return x * x.sum().item()


def learnt(*sizes):
    return [torch.randn(n, requires_grad=True) for n in sizes]


def outcome(report, stage):
    return next(x for x in report.stages if x.name == stage)


def test_a_clean_function_passes_with_the_real_backend():
    report = audit(clean, learnt(4, 6, 9))
    report.raise_if_failed()
    assert report.ok
    assert str(report).endswith("PASSED")
    assert [x.phase for x in report.graphs] == ["forward", "backward"] * 2
    assert all(x.operators and x.seconds for x in report.graphs)
    assert {"compiled: output 0", "compiled: gradient of args[0]"} <= set(report.largest_errors)


def test_findings_can_be_allowed_by_kind_or_by_line_with_a_reason():
    report = audit(reads, learnt(3), **FAST, allow={"graph-break": "known", "sync@reads:*": "once an epoch"})
    assert report.ok
    assert {x.allowed for x in report.findings} == {"known", "once an epoch"}
    assert "once an epoch" in str(report)
    assert not audit(reads, learnt(3), **FAST, allow={"graph-break": "known"}).ok


def test_an_allowance_that_matches_nothing_is_told():
    assert "matched nothing: sync" in str(audit(clean, learnt(3), **FAST, allow={"sync": "why"}))


def test_stages_turned_off_are_in_the_report():
    report = audit(reads, learnt(3), skip=set(STAGES) - {"eager", "device"})
    assert [x.name for x in report.stages if x.outcome == "off"] == [x for x in STAGES if x not in ("eager", "device")]
    assert report.counts() == {"sync": 1}


def test_a_function_that_fails_eagerly_is_no_pass():
    report = audit(lambda x: x.nothing(), learnt(3), **FAST)
    assert not report.ok
    assert {x.outcome for x in report.stages} == {"incomplete", "skipped"}
    assert "AttributeError" in outcome(report, "eager").note
    with pytest.raises(AssertionError, match="INCOMPLETE"):
        report.raise_if_failed()


def test_a_function_that_ends_the_process_is_no_pass():
    report = audit(lambda x: sys.exit(0), learnt(3), **FAST)
    assert not report.ok
    assert outcome(report, "eager").note == "batch 0: RuntimeError: it ends the process (SystemExit: 0)"


def test_a_stage_whose_interface_torch_lacks_is_no_pass(monkeypatch):
    monkeypatch.setitem(torch_private._INTERFACES, "breaks", "torch._dynamo.symbolic_convert:NoSuchClass.method")
    report = audit(clean, learnt(3), **FAST)
    assert not report.ok
    assert [x.name for x in report.incomplete] == ["breaks"]
    assert f"torch {torch.__version__} has no torch._dynamo.symbolic_convert.NoSuchClass" in " ".join(
        str(report).split()
    )


class Hides:
    def __init__(self, x):
        self.x = x


@pytest.mark.parametrize(
    ("function", "name"),
    [(Hides, f"{__name__}.Hides"), (lambda x: {"all": [Hides(x)]}, "Hides"), (lambda x: (x for _ in "a"), "generator")],
)
def test_an_output_that_cannot_be_looked_into_is_no_pass(function, name):
    report = audit(lambda x: function(x), learnt(3, 3, 3), **FAST)
    assert not report.ok
    assert f"{name}, in which the audit cannot find tensors" in outcome(report, "eager").note
    assert outcome(report, "device").outcome == "clean"  # the others go on


def test_without_gradients_the_report_says_that_there_was_no_backward():
    assert "no output requires a gradient" in outcome(audit(clean, [torch.ones(3)], **FAST), "eager").note


def test_a_function_that_returns_no_tensor_is_told_that_nothing_is_compared():
    report = audit(lambda x: [x * 2][:0], [torch.ones(3)] * 3, **FAST)
    assert "the function returns no tensor, so there are no numbers to compare" in outcome(report, "eager").note


def test_a_lazy_backward_compile_is_found():
    def batch(requires):
        return torch.ones(3, requires_grad=requires), torch.ones(3, requires_grad=True)

    report = audit(lambda x, y: x * y, [batch(False), batch(False), batch(True)], **FAST)
    assert report.counts() == {"recompile": 1}


def test_a_single_warm_up_batch_asks_for_one_graph():
    assert audit(clean, learnt(4, 6, 9), **FAST).ok
    assert audit(clean, learnt(4, 6, 9), **FAST, warmup=1).counts() == {"recompile": 1}
    marked = learnt(4, 6, 9)
    torch._dynamo.mark_dynamic(marked[0], 0)
    assert audit(clean, marked, **FAST, warmup=1).ok


def test_without_a_batch_after_warm_up_no_recompile_is_judged():
    report = audit(lambda x: x.sin() if x.shape[0] > 2 else x.cos(), learnt(4, 1), **FAST)
    assert outcome(report, "recompiles").outcome == "skipped"
    assert "there is no batch after the first 2 (warm-up)" in str(report)


def test_a_function_that_torch_leaves_alone_is_no_pass():
    report = audit(lambda x, more: x + 1 if more else x, [(torch.ones(3), m) for m in (False, False, True)], **FAST)
    assert "nothing was compiled" in outcome(report, "recompiles").note
    assert not report.ok


def test_gradients_that_are_zero_but_for_rounding_are_no_mismatch():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    images = [torch.randn(5, 3, 8, 8) for _ in range(3)]
    assert audit(lambda x: net(x).square().mean(), images, skip=["breaks", "device"]).ok


def test_the_tolerance_of_a_low_precision_is_told():
    coarse = audit(lambda x: x.half().sum().float(), learnt(3), **FAST)
    assert "up to 2e-02 is allowed" in outcome(coarse, "numbers").note
    assert "is allowed" not in outcome(audit(clean, learnt(3), **FAST), "numbers").note


def test_a_report_in_which_no_stage_looked_is_no_pass():
    report = audit(clean, learnt(3), **FAST, skip=set(STAGES) - {"eager", "gpu"})
    assert not report.ok
    assert str(report).endswith("NOTHING JUDGED: no stage had anything to look at")


def test_a_pass_says_what_was_not_judged():
    assert str(audit(clean, learnt(3), **FAST)).endswith("PASSED, but not judged: recompiles")


def test_what_is_compiled_already_is_looked_into():
    net = nn.Sequential(nn.Linear(3, 3))
    net.compile(backend="eager")
    impl = net._compiled_call_impl
    report = audit(net, learnt(3, 3, 3), **FAST)
    assert report.ok, str(report)
    assert "compiled in place, but called uncompiled here: Sequential" in outcome(report, "eager").note
    assert net._compiled_call_impl is impl
    inside = torch.compile(reads, backend="eager")
    for function in (inside, lambda x: inside(x)):
        assert audit(function, learnt(3), **FAST).counts() == {"graph-break": 1, "sync": 1}
    assert "already compiled" in outcome(audit(inside, learnt(3), **FAST), "eager").note
    assert "already compiled" in outcome(audit(torch.compile(nn.Linear(3, 3)), learnt(3), **FAST), "eager").note


def test_a_single_name_may_be_skipped_and_any_kind_allowed():
    report = audit(reads, learnt(3), **FAST, skip="device", allow={"*@reads:*": "known"})
    assert outcome(report, "device").outcome == "off"
    assert report.ok


def test_a_bad_argument_is_refused_before_any_stage():
    lines = []
    with pytest.raises(ValueError, match="backend: expected"):
        audit(clean, learnt(3), backend="inductr", progress=lines.append)
    assert not lines


def test_a_backend_may_be_a_function_or_one_for_debugging():
    graphs = []

    def plain(graph, _):
        graphs.append(graph)
        return graph

    for backend in (plain, "eager"):
        report = audit(clean, learnt(2, 3, 4), backend=backend, skip=["device", "gpu"])
        assert report.ok, str(report)
        told = "the audit cannot see the graphs of backend 'plain'"
        assert any(x.note == told for x in report.stages) == (backend is plain)
    assert graphs


def helper(x):
    return x * x.sum().item()


def breaks_in_a_loop_and_outside(x):
    y = helper(x)
    for _ in range(2):
        y = y + helper(y)
    return y


def test_one_break_inside_and_outside_a_loop_is_one_finding():
    report = audit(breaks_in_a_loop_and_outside, [torch.ones(3), torch.ones(4)], **BREAKS)
    (found,) = report.findings
    assert found.place is not None
    assert (found.place.function, found.batches) == ("helper", (0, 1))
    assert found.count > 2
    assert found.message.endswith("(the whole function falls back to eager)")


def test_a_batch_that_is_a_list_is_explained():
    report = audit(lambda x, y: x + y, [[torch.ones(3), torch.ones(3)]], **FAST)
    assert "a batch that is a list counts as one argument, a tuple as several" in outcome(report, "eager").note


def test_the_report_is_told_as_json():
    told = json.loads(audit(reads, learnt(3), **FAST).to_json())
    assert told["ok"] is False
    assert told["counts"] == {"graph-break": 1, "sync": 1}
    assert {x["place"]["function"] for x in told["findings"]} == {"reads"}


def test_progress_tells_each_stage():
    lines = []
    audit(clean, learnt(3), **FAST, progress=lines.append)
    assert [x.split(":")[0] for x in lines] == [x for x in STAGES if x != "export"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batches": []}, "batches: expected at least one"),
        ({"function": 3}, "function: expected a callable, .*, got 3"),
        ({"skip": ["brakes"]}, "skip: expected names among .*, got brakes"),
        ({"allow": {"sync": " "}}, "allow: expected a reason for 'sync'"),
        ({"allow": {"sync": None}}, "allow: expected a reason for 'sync'"),
        ({"skip": "devise"}, "skip: expected names among .*, got devise"),
        ({"skip": [x for x in STAGES if x not in ("eager", "export")]}, "skip: expected at least one stage to run"),
        ({"allow": {"snyc": "why"}}, "allow: expected a kind among .*, got 'snyc'"),
        ({"warmup": 0}, "warmup: expected at least 1, got 0"),
        ({"tolerance": float("nan")}, "tolerance: expected None or at least 0, got nan"),
        ({"skip": ["eager"]}, "skip: expected names among device, .*, got eager"),
        ({"skip": [x for x in STAGES if x != "eager"]}, "skip: expected at least one stage to run"),
        ({"batches": torch.ones(3)}, "batches: expected a sequence of batches, got one Tensor"),
        ({"batches": {"x": torch.ones(3)}}, "batches: expected a sequence of batches, got one dict"),
        ({"batches": learnt}, "^batches: expected a sequence of batches, got a function; call it$"),
        ({"batches": dict}, "^batches: expected a sequence of batches, got a class; call it$"),
        ({"batches": 3}, "^batches: expected a sequence of batches, got int$"),
        ({"backend": "inductr"}, "^backend: expected a backend of torch.compile, .*, got 'inductr'$"),
        ({"backend": None}, "^backend: expected a backend of torch.compile, .*, got None$"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        audit(**({"function": clean, "batches": learnt(3)} | arguments))
