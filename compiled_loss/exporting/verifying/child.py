"""Runs an exported file in a runtime, one batch after another, as a process of its own.

    python child.py RUNTIME FILE

It needs only numpy and the runtime, and nothing of this package. It is run by its path, so that the runtime may be in
an environment without torch. First it answers {"version": VERSION} and, once the file is loaded, {}. Then each request
is a line of JSON, {"inputs": PATH, "outputs": PATH}; the answer is {} once the outputs are written, or
{"refused": REASON}. `adaptors.py` has the runtimes, `runtimes.py` is the other side.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import sys
from typing import Any

DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "BOOL": "|b1"}


def write(path: str, arrays: dict[str, Any], **notes: str) -> None:
    """Write named numpy arrays, and notes about them, as a file in the safetensors format."""
    codes = {code: name for name, code in DTYPES.items()}
    header: dict[str, Any] = {"__metadata__": notes} if notes else {}
    end = 0
    for name, x in arrays.items():
        begin, end = end, end + x.nbytes
        header[name] = {"dtype": codes[x.dtype.str], "shape": list(x.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for x in arrays.values():
            file.write(x.tobytes())


def read(path: str) -> dict[str, Any]:
    """Read the named numpy arrays of a file in the safetensors format."""
    import numpy as np  # noqa: PLC0415  (the package itself does without)

    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        data = file.read()
    found = {}
    for name, x in header.items():
        if name != "__metadata__":
            begin, end = x["data_offsets"]
            found[name] = np.frombuffer(data[begin:end], DTYPES[x["dtype"]]).reshape(x["shape"]).copy()
    return found


def main(runtime: str, path: str, adaptors: Any) -> None:
    """Answer requests until there are no more."""
    import numpy as np  # noqa: PLC0415

    # What a runtime prints must not mix with the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(**values: str) -> None:
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    name, package, open_file = adaptors.RUNTIMES[runtime]
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        return answer(missing=str(error))
    answer(version=getattr(module, "__version__", None) or importlib.metadata.version(package))
    try:
        run = open_file(module, path)
    except Exception as error:
        return answer(refused=_reason(error))
    answer()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            outputs = run(read(request["inputs"]))
            write(request["outputs"], {name: np.asarray(x) for name, x in outputs.items()})
        except Exception as error:
            answer(refused=_reason(error))
        else:
            answer()
    return None


def _reason(error: Exception) -> str:
    words = str(error).split("Stack backtrace:")[0].split()  # tract appends a long trace
    return f"{type(error).__name__}: {' '.join(words)[:500]}"


if __name__ == "__main__":
    beside = importlib.import_module("adaptors")
    sys.path.pop(0)  # this folder, so that its modules do not hide the runtime's
    main(sys.argv[1], sys.argv[2], beside)
