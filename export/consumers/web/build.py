"""Build the explorer of assignments: one static folder with the page, the graphs that it runs, and onnxruntime-web."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from compiled_loss import DenseLoss, DetectionLoss, OrientedLoss, ResidualPoseLoss, SimOTA
from compiled_loss.exporting import Metadata, Setting, export_assignment, load
from compiled_loss.overlaps import iou

HERE = Path(__file__).parent
PACKAGE = HERE.parents[2] / "compiled_loss"
RUNTIME = HERE / "node_modules/onnxruntime-web/dist"
PAGE = ("*.html", "*.css", "*.js")
# The single-threaded part: no headers of the server are needed for it.
RUNTIME_FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
IMAGE_SIZE = (320, 320)

JOINTS = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
KEYPOINTS = ("head", *(f"{side} {joint}" for joint in JOINTS for side in ("left", "right")))
LIMBS = (
    (0, 1),
    (0, 2),
    (1, 2),
    (1, 3),
    (3, 5),
    (2, 4),
    (4, 6),
    (1, 7),
    (2, 8),
    (7, 8),
    (7, 9),
    (9, 11),
    (8, 10),
    (10, 12),
)
CLASSES = {"detect": ("disc", "square", "triangle"), "pose": ("person",), "obb": ("boat", "raft")}


def losses_of(task: str) -> dict[str, DenseLoss]:
    """By assigner, the losses whose assignments the page shows; without distance bins: a prediction is four numbers."""
    classes = len(CLASSES[task])
    if task == "pose":
        return {"TaskAligned": ResidualPoseLoss(classes, len(KEYPOINTS), keypoint_dims=2, reg_max=1, flow=None)}
    if task == "obb":
        return {"TaskAligned": OrientedLoss(classes, reg_max=1)}
    return {
        "TaskAligned": DetectionLoss(classes, reg_max=1),
        "SimOTA": DetectionLoss(classes, reg_max=1, assigner=SimOTA(), overlap=iou),
    }


def build(out: Path) -> None:
    """Write the folder; graphs that are newer than the package are kept.

    Raises:
        ValueError: where npm has not installed onnxruntime-web, or the folder's name is that of a file.
    """
    file = next((path for path in (out, *out.parents) if path.exists() and not path.is_dir()), None)
    if file is not None:
        raise ValueError(f"--out: expected a folder, got {out}, as {file} is a file")
    missing = [name for name in RUNTIME_FILES if not (RUNTIME / name).is_file()]
    if missing:
        raise ValueError(f"{RUNTIME}: no {', '.join(missing)}; run: npm ci --prefix {HERE.relative_to(PACKAGE.parent)}")
    (out / "ort").mkdir(parents=True, exist_ok=True)
    for name in RUNTIME_FILES:
        shutil.copy2(RUNTIME / name, out / "ort" / name)
    for path in (path for pattern in PAGE for path in HERE.glob(pattern)):
        shutil.copy2(path, out / path.name)
    facts = {"tasks": [_facts(task, out) for task in CLASSES]}
    (out / "explorer.json").write_text(json.dumps(facts, indent=1) + "\n")


def server(folder: Path, port: int) -> ThreadingHTTPServer:
    """A server of the folder on the loopback alone; port 0 takes a free one."""
    return ThreadingHTTPServer(("127.0.0.1", port), partial(_Handler, directory=str(folder)))


class _Handler(SimpleHTTPRequestHandler):
    # Browsers refuse modules and WebAssembly under another type, and a system's own table may lack them.
    extensions_map = {  # noqa: RUF012  (as the base class has it)
        **SimpleHTTPRequestHandler.extensions_map,
        ".js": "text/javascript",
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
        ".json": "application/json",
    }

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing of every request."""


def _graph(loss: DenseLoss, path: Path) -> Metadata:
    """Of the graph of a loss's assignment at this path, written anew unless nothing of the package is younger."""
    newest = max(source.stat().st_mtime for source in (*PACKAGE.rglob("*.py"), Path(__file__)))
    if path.is_file() and path.stat().st_mtime > newest:
        return load(path).metadata
    print(f"exporting {path.name}", flush=True)
    return export_assignment(loss, path, Setting(IMAGE_SIZE))


def _facts(task: str, out: Path) -> dict[str, Any]:
    """What the page must know of a task, whose graphs are written; all of them have the same inputs."""
    files = {assigner: f"{task}-{assigner}.onnx" for assigner in losses_of(task)}
    metadata, *_ = [_graph(loss, out / files[assigner]) for assigner, loss in losses_of(task).items()]
    pose = {"keypoints": KEYPOINTS, "limbs": LIMBS} if task == "pose" else {}
    return {
        "name": task,
        "graphs": [{"assigner": assigner, "file": file} for assigner, file in files.items()],
        "classes": CLASSES[task],
        **pose,
        "inputs": [{"name": port.name, "shape": port.shape, "dtype": port.dtype} for port in metadata.inputs],
        "strides": metadata.constants["arguments"]["strides"],
    }


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0, 2 for a wrong argument or missing packages."""
    parser = argparse.ArgumentParser(prog="python -m export.consumers.web.build", description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=Path("build/explorer"), help="folder to write (default: %(default)s)"
    )
    parser.add_argument(
        "--serve", type=int, metavar="PORT", help="then serve it on the loopback interface; 0 chooses a free port"
    )
    given = parser.parse_args(arguments)
    try:
        build(given.out)
    except (ValueError, ImportError, OSError) as error:
        parser.error(str(error))
    print(f"{given.out} is ready for any web server")
    if given.serve is None:
        return 0
    try:
        serving = server(given.out, given.serve)
    except (OSError, OverflowError) as error:
        parser.error(f"--serve {given.serve}: {error}")
    with serving:
        print(f"http://127.0.0.1:{serving.server_address[1]}/  (Ctrl+C ends it)", flush=True)
        try:
            serving.serve_forever()
        except KeyboardInterrupt:
            print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
