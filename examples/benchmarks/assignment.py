"""Target assignment as an exported graph: ONNX Runtime against torch, compiled and eager.

    python examples/benchmarks/assignment.py [--rounds 21] [--profile]

Batch 8, 640x640, 80 classes, 50 mixed rows, positives and their dense view, forward only. All contenders compute the
same graph on the same number of threads; planned ones know how many pages of candidates all rows have together. Outputs
are compared before anything is timed. `--profile` adds a table of the operators in which ONNX Runtime spends its time.
"""

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import torch
from batches import BATCH, CLASSES, MIXED, SIZE, STRIDES, rows_of
from heads import HEADS, make_preds
from timing import in_turn, machine, table
from torch import Tensor

from compiled_loss import DetectionLoss, TargetPlan, pad_rows
from compiled_loss.exporting import Setting, export_assignment, load
from compiled_loss.exporting.graphs import AssignmentGraph

Function = Callable[[dict[str, Tensor]], dict[str, Tensor]]
PROFILED = 10  # runs
OPERATORS = 12  # lines of the table


def make_inputs() -> tuple[dict[str, Tensor], int]:
    """The named tensors of the graph, and the pages of the plan."""
    torch.manual_seed(0)
    preds, targets = make_preds(HEADS["detect"], BATCH, "cpu"), rows_of(50, MIXED)
    pages = TargetPlan((SIZE, SIZE), STRIDES).apply(targets).pages
    assert isinstance(pages, Tensor)
    rows = pad_rows(targets).mark_dynamic()
    inputs = {
        "pred_boxes": preds["boxes"].detach(),
        "pred_scores": preds["scores"].detach(),
        "batch_idx": rows.batch_idx,
        "cls": rows.labels,
        "boxes": rows.boxes,
    }
    return inputs, len(pages)


def compare(got: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Whole numbers must be equal, floating ones but for rounding."""
    for name, x in expected.items():
        torch.testing.assert_close(got[name], x, rtol=1e-3, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")


def profile(path: Path, inputs: dict[str, Tensor]) -> str:
    """The most expensive operators of one run."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    options.enable_profiling = True
    options.profile_file_prefix = str(path)
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    for _ in range(PROFILED):
        session.run(None, {name: x.numpy() for name, x in inputs.items()})
    events = json.loads(Path(session.end_profiling()).read_text())
    spent, nodes = Counter(), {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            operator = event["args"]["op_name"]
            spent[operator] += event["dur"] / 1000 / PROFILED
            nodes.setdefault(operator, set()).add(event["name"])
    total = spent.total()
    rows = [
        [operator, str(len(nodes[operator])), f"{ms:.2f}", f"{ms / total:.0%}"]
        for operator, ms in spent.most_common(OPERATORS)
    ]
    return table(["operator", "nodes", "ms", "share"], rows)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=21, help="timed rounds (default %(default)s)")
    parser.add_argument(
        "--profile", action="store_true", help="also list the operators in which ONNX Runtime spends its time"
    )
    options, _ = parser.parse_known_args()
    inputs, planned = make_inputs()
    rows, profiles = [], []
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        for name, pages in (("unplanned", None), (f"planned, {planned} pages", planned)):
            setting, path = Setting((SIZE, SIZE), pages=pages), Path(folder) / f"{pages}.onnx"
            loss = DetectionLoss(CLASSES, STRIDES)
            export_assignment(loss, path, setting)
            eager, session = AssignmentGraph(loss, setting), load(path).run
            torch.compiler.reset()
            compiled = torch.compile(eager, fullgraph=True)
            compare(compiled(inputs), eager(inputs))
            compare(session(inputs), eager(inputs))
            runs: dict[str, Function] = {"eager": eager, "compiled": compiled, "session": session}
            ms = in_turn({key: lambda run=run: run(inputs) for key, run in runs.items()}, options.rounds)
            rows.append([name, *(f"{x:.1f}" for x in ms.values()), f"{ms['session'] / ms['compiled']:.1f}x"])
            if options.profile:
                profiles.append(f"\nOperators of ONNX Runtime, {name}\n\n{profile(path, inputs)}")
    header = [
        "ms, 50 mixed rows",
        "torch, eager",
        "torch, compiled",
        "ONNX Runtime",
        "ONNX Runtime / compiled",
    ]
    print(table(header, rows))
    print(f"\n{machine('torch', 'onnxruntime')}, median of {options.rounds} rounds in turn")
    print("\n".join(profiles))


if __name__ == "__main__":
    main()
