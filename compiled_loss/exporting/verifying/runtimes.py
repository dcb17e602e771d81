"""A runtime in a process of its own: it may be in another environment, and it may crash."""

import json
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from threading import Timer
from types import TracebackType

import torch
from torch import Tensor

from compiled_loss.exporting.verifying import adaptors, child

NODE = ("onnxruntime-web", "onnxruntime-node")  # runtimes of Node.js; all others are Python packages
RUNTIMES = (*adaptors.RUNTIMES, *NODE)
OF_ARCHIVES = ("torch", "executorch", "litert")  # runtimes for .pt2 files; all others take .onnx files


class RefusedError(RuntimeError):
    """The runtime refused the file or the batch, with its own message."""


class EndedError(RuntimeError):
    """The process ended, or took too long."""


class Runtime:
    """An exported file in a runtime, in another process that is restarted after it has ended.

    Args:
        name: one of `RUNTIMES`.
        path: path of the file.
        python: interpreter of an environment that has the runtime and numpy.
        modules: for runtimes of Node.js, the folder with their node_modules.
        limit: seconds that loading, or a batch, may take.

    Raises:
        ImportError: if that environment lacks the runtime.
    """

    def __init__(
        self, name: str, path: str, python: str = sys.executable, modules: str = ".", limit: float = 120.0
    ) -> None:
        file, self.limit = str(Path(path).absolute()), limit
        if name in NODE:
            self._where = modules
            self._command = ["node", str(Path(child.__file__).with_suffix(".mjs")), name, file, modules]
        else:
            self._where = python
            self._command = [python, child.__file__, name, file]
        self._folder = tempfile.TemporaryDirectory()
        self._process: subprocess.Popen[str] | None = None
        # A file that cannot be loaded is not tried again for every batch.
        self._unloadable: RefusedError | EndedError | None = None
        self.version = ""
        try:
            self._start()
        except (RefusedError, EndedError) as error:
            self._unloadable = error
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Runtime":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def run(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """The outputs by name.

        Raises:
            RefusedError: if the runtime raises an error.
            EndedError: if its process ends, or takes longer than the limit.
        """
        if self._unloadable is not None:
            raise self._unloadable
        if self._process is None:
            self._start()
        paths = {name: f"{self._folder.name}/{name}" for name in ("inputs", "outputs")}
        child.write(paths["inputs"], {name: x.numpy() for name, x in inputs.items()})
        self._ask(paths)
        return {name: torch.from_numpy(x) for name, x in child.read(paths["outputs"]).items()}

    def close(self) -> None:
        """End the process."""
        self._stop()
        self._folder.cleanup()

    def _start(self) -> None:
        with open(f"{self._folder.name}/words", "w") as words:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=words,
                text=True,
            )
        self.version = self._answer().get("version", self.version)
        self._answer()

    def _ask(self, request: dict[str, str]) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended; the missing answer shows that
        self._answer()

    def _answer(self) -> dict[str, str]:
        """The next answer of the process; an error if it refuses, does not answer in time, or has ended."""
        process = self._process
        assert process is not None
        assert process.stdout is not None
        late: list[bool] = []

        def end() -> None:
            late.append(True)
            process.kill()

        timer = Timer(self.limit, end)
        timer.start()
        line = process.stdout.readline()
        timer.cancel()
        if not line:
            status = process.wait()
            self._stop()
            raise EndedError(f"not done after {self.limit:g} s" if late else self._end(status))
        answer: dict[str, str] = json.loads(line)
        if "missing" in answer:
            raise ImportError(f"{answer['missing']}, in {self._where}")
        if "refused" in answer:
            raise RefusedError(answer["refused"])
        return answer

    def _end(self, status: int) -> str:
        """How the process ended, and the last line that it printed."""
        names = {-x.value: x.name for x in signal.Signals}
        words = Path(self._folder.name, "words").read_text(errors="replace").strip().splitlines()
        return ": ".join([names.get(status, f"status {status}"), *words[-1:]])

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None
