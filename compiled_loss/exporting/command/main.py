"""`python -m compiled_loss export assignment|loss|decode|verify|corpus`."""

from typing import Any

from compiled_loss.exporting.command.corpus import add_corpus
from compiled_loss.exporting.command.verification import add_verification
from compiled_loss.exporting.command.writing import add_writing


def add_export(commands: Any) -> None:
    """Add the command to the subcommands of a parser; the parsed `run` returns the exit status."""
    text = "write assignment, losses and decoding as files that run without this package, and verify them"
    parser = commands.add_parser("export", help=text, description=f"{text[0].upper()}{text[1:]}.")
    names = parser.add_subparsers(required=True, metavar="WHAT")
    add_writing(names)
    add_verification(names)
    add_corpus(names)
