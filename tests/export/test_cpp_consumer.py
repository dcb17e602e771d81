"""The C++ program: built with CMake, its outputs those of eager torch, one line for every wrong argument."""

import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from compiled_loss import DetectionLoss
from compiled_loss.exporting import Metadata, Setting, eager, export_assignment
from compiled_loss.exporting.files import cpp_compiler
from compiled_loss.exporting.verifying.batches import Draw, make
from compiled_loss.exporting.verifying.compare import judge

SOURCE = Path(__file__).parents[2] / "export" / "consumers" / "cpp"
TORCH = Path(torch.utils.cmake_prefix_path)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(cpp_compiler() is None, reason="the C++ program needs a compiler: CXX, or g++ on the path"),
    pytest.mark.skipif(shutil.which("cmake") is None, reason="the C++ program needs cmake on the path"),
    pytest.mark.skipif(not (TORCH / "Torch").is_dir(), reason="the C++ program needs the CMake files of torch"),
]


class Built(NamedTuple):
    """The program, a package, and a folder for tensors."""

    program: Path
    package: Path
    metadata: Metadata
    folder: Path

    def run(self, *arguments) -> subprocess.CompletedProcess[str]:
        """The program's end."""
        return subprocess.run([self.program, *arguments], capture_output=True, text=True, timeout=60, check=False)

    def assign(self, inputs: dict[str, torch.Tensor]) -> tuple[subprocess.CompletedProcess[str], Path]:
        """The program's end with these inputs, and where its outputs are."""
        written, read = self.folder / "inputs.pt", self.folder / "outputs.pt"
        read.unlink(missing_ok=True)
        torch.save(inputs, written)
        return self.run(self.package, written, read), read


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The program as the README builds it, and an assignment of three classes."""
    folder = tmp_path_factory.mktemp("cpp")
    for command in (
        ["cmake", "-S", SOURCE, "-B", folder / "build", f"-DCMAKE_PREFIX_PATH={TORCH}"],
        ["cmake", "--build", folder / "build"],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "warning: " not in done.stderr
    package = folder / "assignment.aoti.pt2"
    metadata = export_assignment(DetectionLoss(3), package, Setting((64, 96)))
    return Built(folder / "build" / "assign", package, metadata, folder)


@pytest.mark.parametrize("images", [1, 2, 8])
@pytest.mark.parametrize("rows", [0, 1, 2, 7, 300])
def test_the_program_assigns_as_eager_torch_does(built, images, rows):
    def program(inputs):
        done, read = built.assign(inputs)
        assert done.returncode == 0, done.stderr
        found = dict(torch.load(read))
        assert done.stdout.splitlines()[-1] == f"{found['valid'].sum()} positives"
        return found

    draw = Draw("plain", {"B": images, "N": rows})
    found = judge(program, eager(built.metadata), built.metadata, draw, seed=images + rows)
    assert found.verdict == "right", found


def test_the_table_shows_the_positives(built):
    inputs = make(built.metadata, Draw("plain", {"B": 2, "N": 7}), seed=9)
    done, read = built.assign(inputs)
    found = dict(torch.load(read))
    header, *lines, _ = done.stdout.splitlines()
    assert header.split() == ["image", "anchor", "row", "weight"]
    shown = torch.tensor([[float(x) for x in line.split()] for line in lines])
    positives = torch.stack([found[name].float() for name in ("image", "anchor", "row", "weight")], 1)[found["valid"]]
    torch.testing.assert_close(shown, positives, rtol=1e-3, atol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cls": None}, "assign: input cls: expected int64 [ N ], got nothing"),
        ({"cls": torch.zeros(7)}, "assign: input cls: expected int64 [ N ], got float [7]"),
        ({"cls": torch.full((7,), 3)}, "assign: input cls: expected 0 to 2"),
        ({"boxes": torch.zeros(6, 4)}, "assign: input boxes: expected float32 [ N 4 ], got float [6, 4]"),
        ({"boxes": torch.zeros(7, 5)}, "assign: input boxes: expected float32 [ N 4 ], got float [7, 5]"),
    ],
)
def test_wrong_tensors_end_with_status_2_and_a_line(built, change, message):
    inputs = make(built.metadata, Draw("plain", {"B": 2, "N": 7}), seed=0) | change
    done, _ = built.assign({name: x for name, x in inputs.items() if x is not None})
    assert (done.returncode, done.stderr) == (2, f"{message}\n")


def test_wrong_files_end_with_status_2_and_a_line(built, tmp_path):
    text = tmp_path / "text"
    text.write_text("nothing")
    _, read = built.assign(make(built.metadata, Draw("plain", {"B": 2, "N": 7}), seed=0))
    written = built.folder / "inputs.pt"
    for arguments, reason in (
        ([], "usage: assign assignment.aoti.pt2 inputs.pt outputs.pt"),
        (["none", written, read], "no file none"),
        ([text, written, read], f"{text}: expected an AOTInductor package, of this version of torch"),
        ([built.package, "none", read], "no file none"),
        ([built.package, text, read], f"{text}: expected a dict of tensors, written by torch.save"),
        ([built.package, written, tmp_path / "no" / "out"], f"cannot write {tmp_path / 'no' / 'out'}"),
    ):
        done = built.run(*arguments)
        assert (done.returncode, done.stderr) == (2, f"assign: {reason}\n")
