"""Write a loss as a file: predictions and targets in, the loss and its terms out, and on demand the gradients."""

from __future__ import annotations

import sys

from compiled_loss.exporting import export_loss
from export.settings import loss_of, loss_parser, parse, run, setting_of


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0, 2 for a wrong argument."""
    parser = loss_parser("loss", __doc__ or "", "loss.onnx")
    add = parser.add_argument
    add("--gradients", action="store_true", help="also the gradient for every prediction (experimental)")
    add("--end-to-end", action="store_true", help="two branches, with --top-k 10, and --top-k 7 --keep 1")
    add("--gain", action="append", metavar="TERM=NUMBER", help="factor of a term, such as box=7.5; may be repeated")
    given = parse(parser, arguments)

    def write():
        loss = loss_of(given, end_to_end=given.end_to_end, gains=given.gain)
        return export_loss(loss, given.out, setting_of(given), gradients=given.gradients)

    return run(parser, given.out, write)


if __name__ == "__main__":
    sys.exit(main())
