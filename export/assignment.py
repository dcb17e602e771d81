"""Write the target assignment of a task as a file: predictions and targets in, positives and their dense view out."""

from __future__ import annotations

import sys

from compiled_loss.exporting import export_assignment
from export.settings import loss_of, loss_parser, parse, run, setting_of


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0, 2 for a wrong argument."""
    parser = loss_parser("assignment", __doc__ or "", "assignment.onnx")
    parser.add_argument("--slots", type=int, help="padded form: also fill the rows into so many slots an image")
    given = parse(parser, arguments)
    return run(parser, given.out, lambda: export_assignment(loss_of(given), given.out, setting_of(given, given.slots)))


if __name__ == "__main__":
    sys.exit(main())
