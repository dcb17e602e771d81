"""Train a small model with the loss inside the compiled step, and watch it learn.

python examples/train.py                                        # poses of rendered figures, minutes on two cores
python examples/train.py --task obb                             # or detect, segment: rotated boxes, instance masks
python examples/train.py --task segment --head end2end          # a second head, evaluated without suppression
python examples/train.py --data DATA --task detect              # yours, in the forms that --help lists
python examples/train.py --resume runs/pose-figures/checkpoint.pt
"""

from __future__ import annotations

import sys

from demo.needs import end_without

try:
    from demo.labels import DataError
    from demo.run import INTERRUPTED, run
    from demo.settings import parse
    from rich.console import Console
except ModuleNotFoundError as error:
    end_without(error)


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0, 2 for bad input, a loss that is no number or a file that cannot be written, 130 after Ctrl-C."""
    try:
        return run(parse(arguments), Console())
    except (DataError, FloatingPointError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
