"""Run an exported file in a runtime over random and edge batches and compare it with eager torch, output by output.

The reference is rebuilt from the file itself: its task, its constants and its tables of inputs and outputs.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from compiled_loss.checks import require
from compiled_loss.exporting.files import load, suffix_of
from compiled_loss.exporting.metadata import Metadata
from compiled_loss.exporting.reference import eager
from compiled_loss.exporting.verifying.batches import draws
from compiled_loss.exporting.verifying.compare import Verdict, judge
from compiled_loss.exporting.verifying.runtimes import OF_ARCHIVES, RUNTIMES, Runtime


class Report(NamedTuple):
    """The result of running a file in a runtime.

    Args:
        graph, task, end_to_end, setting, versions: from the file's metadata.
        runtime, version: the runtime that ran it.
        outputs: names of the outputs.
        verdicts: one for every batch.
    """

    graph: str
    task: str
    end_to_end: bool
    setting: dict[str, Any]
    versions: dict[str, str]
    runtime: str
    version: str
    outputs: list[str]
    verdicts: list[Verdict]

    @property
    def right(self) -> bool:
        """Whether the verdict on every batch is "right"."""
        return all(x.verdict == "right" for x in self.verdicts)

    def worst(self, output: str) -> tuple[float | None, str]:
        """The largest error of an output, and the batch where it occurred; None if no batch had outputs."""
        errors = [(x.errors[output], x.batch) for x in self.verdicts if output in x.errors]
        error, batch = max(errors, default=(None, ""), key=lambda x: x[0])
        return error, batch if error else ""

    def plain(self) -> dict[str, Any]:
        """The report as JSON-compatible values; infinite errors become the text "inf"."""
        verdicts = [
            {**x._asdict(), "errors": {name: _number(error) for name, error in x.errors.items()}} for x in self.verdicts
        ]
        return {**self._asdict(), "verdicts": verdicts}


def verify(
    path: str,
    runtime: str | None = None,
    *,
    python: str = sys.executable,
    modules: str = ".",
    limit: float = 120.0,
    progress: Callable[[Verdict], None] | None = None,
) -> Report:
    """Run every batch through a runtime and through eager torch, and compare the outputs.

    Args:
        path: path of an .onnx, .pt2 or .aoti.pt2 file.
        runtime: one of `RUNTIMES`; None means ONNX Runtime for .onnx files and torch for the others.
        python: interpreter of the environment with the runtime, for Python runtimes.
        modules: folder with the node_modules that hold the runtime, for Node.js runtimes.
        limit: seconds that loading, or a batch, may take.
        progress: called with every verdict.

    Returns:
        `Report`, with the verdicts and what was run.

    Raises:
        ValueError: if the file cannot be read, its loss cannot be rebuilt, or it is not meant for the runtime.
        ImportError: if the runtime is not installed.

    Example:
        >>> verify("loss.pt2", "openvino")
        Traceback (most recent call last):
        ValueError: runtime: expected torch, executorch, litert for a .pt2 file, got openvino
    """
    kinds = {
        ".onnx": tuple(x for x in RUNTIMES if x not in OF_ARCHIVES),
        ".pt2": OF_ARCHIVES,
        ".aoti.pt2": OF_ARCHIVES[:1],
    }
    fitting = kinds[suffix_of(path)]
    runtime = fitting[0] if runtime is None else runtime
    require(runtime in fitting, "runtime", f"{', '.join(fitting)} for a {suffix_of(path)} file", runtime)
    require(limit > 0, "limit", "seconds above 0", limit)
    metadata = read_metadata(path)
    try:
        truth = eager(metadata)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    verdicts = []
    with Runtime(runtime, path, python, modules, limit) as file:
        for i, draw in enumerate(draws()):
            verdicts.append(judge(file.run, truth, metadata, draw, i))
            if progress is not None:
                progress(verdicts[-1])
    constants = metadata.constants
    facts = (
        metadata.graph,
        metadata.task,
        constants["end_to_end"] is not None,
        constants["setting"],
        metadata.versions,
    )
    return Report(*facts, runtime, file.version, [port.name for port in metadata.outputs], verdicts)


def read_metadata(path: str) -> Metadata:
    """Read a file's metadata; for an ONNX file, no runtime is needed.

    Raises:
        ValueError: if the file cannot be read, or this package did not write it.
    """
    if suffix_of(path) != ".onnx":
        return load(path).metadata
    import onnx  # noqa: PLC0415  (an optional dependency)

    require(Path(path).is_file(), "path", "a file", path)
    try:
        model = onnx.load(path)
    except Exception as error:  # protobuf's errors have no common base
        first = str(error).strip().splitlines()[:1]
        raise ValueError(f"path: expected a readable .onnx file, got {path}: {''.join(first)}") from error
    try:
        return Metadata.from_text({x.key: x.value for x in model.metadata_props})
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _number(error: float) -> float | str:
    return "inf" if error == float("inf") else error
