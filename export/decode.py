"""Write the decoding of a task as a file: predictions in; boxes, keypoints, masks in pixels and their scores out."""

from __future__ import annotations

import sys

from compiled_loss.exporting import export_decoding
from export.settings import loss_of, loss_parser, parse, run, setting_of


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0, 2 for a wrong argument."""
    parser = loss_parser("decode", __doc__ or "", "decode.onnx", targets=False)
    parser.add_argument("--k", type=int, default=300, help="the best detections of an image; 0: every anchor instead")
    parser.add_argument(
        "--mask-size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help="of the masks; None: that of the prototypes"
    )
    given = parse(parser, arguments)

    def write():
        size = None if given.mask_size is None else tuple(given.mask_size)
        return export_decoding(loss_of(given), given.out, setting_of(given)._replace(k=given.k or None, mask_size=size))

    return run(parser, given.out, write)


if __name__ == "__main__":
    sys.exit(main())
