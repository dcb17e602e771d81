"""Check exported graphs against the conformance corpus, with numpy and onnxruntime alone.

    python run.py CORPUS GRAPH.onnx [GRAPH.onnx ...]

It runs every batch that fits a graph. To check another runtime or a library of your own, replace `open_graph`: it says
which batches it takes, and maps named arrays to named arrays. Exit status: 0 all right, 1 not all, 2 none to run.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime

DTYPES = {"F32": "<f4", "I64": "<i8"}


def read(path):
    """The named arrays of a file of tensors."""
    data = Path(path).read_bytes()
    begin = 8 + int.from_bytes(data[:8], "little")
    facts = json.loads(data[8:begin])
    slices = {name: slice(*(begin + x for x in fact["data_offsets"])) for name, fact in facts.items()}
    return {n: np.frombuffer(data[slices[n]], DTYPES[x["dtype"]]).reshape(x["shape"]) for n, x in facts.items()}


def open_graph(path):
    """Whether a graph takes a case of the corpus, and how it runs one."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    constants = json.loads(session.get_modelmeta().custom_metadata_map["constants"])
    inputs, outputs = [x.name for x in session.get_inputs()], [x.name for x in session.get_outputs()]
    wanted = [constants["loss"], constants["arguments"], constants["setting"]["image_size"]]

    def takes(case):
        return [case["loss"], case["arguments"], case["image_size"]] == wanted and {*inputs} <= {
            *case["inputs"],
            "share",
        }

    def run(given):
        return dict(zip(outputs, map(np.asarray, session.run(outputs, {x: given[x] for x in inputs})), strict=True))

    return takes, run


def error_of(got, expected):
    """Largest difference as a share of the largest entry; whole numbers must be equal."""
    if got.shape != expected.shape or (expected.dtype.kind == "i" and (got != expected).any()):
        return float("inf")
    return float(np.abs(got - expected).max(initial=0) / max(np.abs(expected).max(initial=0), 1e-30))


def main(folder: str, *graphs: str) -> int:
    """Run every case that a graph takes; returns the exit status."""
    corpus = json.loads(Path(folder, "corpus.json").read_text())
    ran, wrong = 0, 0
    for graph in graphs:
        takes, run = open_graph(graph)
        for case in filter(takes, corpus["cases"]):
            tensors = read(Path(folder, case["file"]))
            given = {name.removeprefix("input/"): x for name, x in tensors.items() if name.startswith("input/")}
            given["share"] = np.array((case["shares"] or [0])[0], np.float32)
            found = run(given)
            if "valid" in found:  # an assignment: the slots that hold a positive, sorted
                held = np.stack([found[x] for x in ("image", "anchor", "row")], 1)[found["valid"]]
                order = np.lexsort(held.T[::-1])
                found |= {"positives": held[order], "weights": found["weight"][found["valid"]][order]}
            compared = [name for name in found if f"expected/{name}" in tensors]
            errors = {name: error_of(found[name], tensors[f"expected/{name}"]) for name in compared}
            bad = [name for name, error in errors.items() if not error <= corpus["tolerance"]]
            ran, wrong = ran + 1, wrong + bool(bad)
            told = f"WRONG in {', '.join(bad)}" if bad else f"right, {max(errors.values()):.0e}"
            print(f"{graph}  {case['name']}: {len(errors)} outputs {told}")
    print(f"{ran} batches in onnxruntime {onnxruntime.__version__}: {wrong} wrong")
    return 2 if not ran else int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
