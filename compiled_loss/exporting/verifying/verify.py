"""Run an exported file in a runtime over random and edge batches and compare it with eager torch, output by output.

What to compare with comes from the file itself: its task, its constants and its tables of inputs and outputs.
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
    """What a runtime makes of a file.

    Args:
        graph, task, end_to_end, setting, versions: of the file, from its metadata.
        runtime, version: that ran it.
        outputs: their names.
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
        """Whether every batch is."""
        return all(x.verdict == "right" for x in self.verdicts)

    def worst(self, output: str) -> tuple[float | None, str]:
        """The largest error of an output, and the batch that showed it; None where no batch had outputs."""
        errors = [(x.errors[output], x.batch) for x in self.verdicts if output in x.errors]
        error, batch = max(errors, default=(None, ""), key=lambda x: x[0])
        return error, batch if error else ""

    def plain(self) -> dict[str, Any]:
        """The report as values that JSON has; infinite errors are the text "inf"."""
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
    """Every batch through a runtime and through eager torch.

    Args:
        path: of an .onnx, .pt2 or .aoti.pt2 file.
        runtime: one of `RUNTIMES`; None for ONNX Runtime, or for the latter two kinds torch.
        python: interpreter of the environment that has the runtime, if that is one of Python.
        modules: folder that has the node_modules with the runtime, if that is one of Node.js.
        limit: seconds that loading, or a batch, may take.
        progress: called with every verdict.

    Returns:
        The verdicts, and what was run in what.

    Raises:
        ValueError: for a file that cannot be read, whose loss cannot be made anew, or not meant for the runtime.
        ImportError: where the runtime is not installed.

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
    """What a file says about itself; of an ONNX file without a runtime.

    Raises:
        ValueError: for a file that cannot be read, or that no program of this package wrote.
    """
    if suffix_of(path) != ".onnx":
        return load(path).metadata
    import onnx  # noqa: PLC0415  (an optional dependency)

    require(Path(path).is_file(), "path", "a file", path)
    try:
        model = onnx.load(path)
    except Exception as error:  # of protobuf, without a base of their own
        first = str(error).strip().splitlines()[:1]
        raise ValueError(f"path: expected a readable .onnx file, got {path}: {''.join(first)}") from error
    try:
        return Metadata.from_text({x.key: x.value for x in model.metadata_props})
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _number(error: float) -> float | str:
    return "inf" if error == float("inf") else error
