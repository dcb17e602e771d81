"""`python -m compiled_loss audit ...` and `python -m compiled_loss export ...`."""

import argparse
import sys
from collections.abc import Sequence

import torch

from compiled_loss import __version__
from compiled_loss.audit.command import add_audit
from compiled_loss.exporting.command.main import add_export


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m compiled_loss", description="Detection losses that compile.")
    version = f"compiled_loss {__version__}, torch {torch.__version__}"
    parser.add_argument("--version", action="version", version=version)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_audit(commands)
    add_export(commands)
    given = parser.parse_args(arguments)
    return given.run(given)


if __name__ == "__main__":
    sys.exit(main())
