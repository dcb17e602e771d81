"""The commands that write a file: assignment, loss, decode."""

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from compiled_loss.exporting.command.losses import add_loss, check_together, loss_of, setting_of
from compiled_loss.exporting.command.naming import by_option
from compiled_loss.exporting.export import export_assignment, export_decoding, export_loss
from compiled_loss.exporting.metadata import INTERFACE_VERSION, Metadata


def add_writing(commands: Any) -> None:
    """Add the commands to the subcommands of a parser."""
    text = "write the target assignment of a task: predictions and targets in, positives and their dense view out"
    assignment = _command(commands, "assignment", text, _assignment).add_argument
    assignment("--slots", type=int, help="also put the rows into this many slots per image (padded form)")

    text = "write a loss: predictions and targets in, the loss and its terms out, and optionally the gradients"
    loss = _command(commands, "loss", text, _loss).add_argument
    loss("--gradients", action="store_true", help="also write the gradient for every prediction (experimental)")
    loss("--end-to-end", action="store_true", help="a loss of two branches, --top-k 10 and --top-k 7 --keep 1")
    loss("--gain", action="append", metavar="TERM=NUMBER", help="factor of a term, such as box=7.5; may be repeated")

    text = "write the decoding of a task: predictions in; boxes, keypoints, masks in pixels and their scores out"
    decode = _command(commands, "decode", text, _decoding, targets=False).add_argument
    decode("--k", type=int, default=300, help="number of best detections per image; 0: decode every anchor instead")
    size = "size of the masks; None: size of the prototypes"
    decode("--mask-size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help=size)


def _command(
    commands: Any, name: str, text: str, write: Callable[[argparse.Namespace], Metadata], *, targets: bool = True
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=text,
        description=f"{text[0].upper()}{text[1:]}.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add_loss(parser, f"{name}.onnx", targets=targets)
    parser.set_defaults(run=partial(_run, parser, write))
    return parser


def _run(parser: argparse.ArgumentParser, write: Callable[[argparse.Namespace], Metadata], given: Any) -> int:
    """Write a file and print its content; a wrong option ends the program with status 2."""
    begin = time.perf_counter()
    check_together(parser, given)
    try:
        metadata = write(given)
    except (ValueError, ImportError) as error:
        parser.error(by_option(error, given))
    took = time.perf_counter() - begin
    sys.stdout.write(f"{summary(Path(given.out), metadata)}\n")
    sys.stdout.write(f"written in {took:.0f} s; check it with: python -m compiled_loss export verify {given.out}\n")
    return 0


def _assignment(given: argparse.Namespace) -> Metadata:
    return export_assignment(loss_of(given), given.out, setting_of(given, given.slots))


def _loss(given: argparse.Namespace) -> Metadata:
    loss = loss_of(given, end_to_end=given.end_to_end, gains=given.gain)
    return export_loss(loss, given.out, setting_of(given), gradients=given.gradients)


def _decoding(given: argparse.Namespace) -> Metadata:
    size = None if given.mask_size is None else tuple(given.mask_size)
    return export_decoding(loss_of(given), given.out, setting_of(given)._replace(k=given.k or None, mask_size=size))


def summary(path: Path, metadata: Metadata) -> str:
    """The file's name, kind and size, and every input and output."""
    state = ", experimental" if metadata.experimental else ""
    kind = f"{metadata.graph} of task {metadata.task}, interface version {INTERFACE_VERSION}{state}"
    lines = [f"{path}  {path.stat().st_size / 1024:.0f} KiB{_opset(metadata)}", kind]
    for title, ports in (("inputs", metadata.inputs), ("outputs", metadata.outputs)):
        lines.append(title)
        width = max(len(port.name) for port in ports)
        for port in ports:
            shape = ", ".join(str(size) for size in port.shape)
            lines.append(f"  {port.name:{width}}  {port.dtype:7}  [{shape}]  {port.meaning}")
    return "\n".join(lines)


def _opset(metadata: Metadata) -> str:
    return f", opset {metadata.needs['opset']}" if metadata.needs else ""
