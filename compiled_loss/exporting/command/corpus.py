"""The command that writes the conformance corpus."""

import argparse
import sys
from functools import partial
from typing import Any

from compiled_loss.exporting.command.naming import by_option
from compiled_loss.exporting.corpus.write import write_corpus

_TEXT = "write batches and their right answers as files for any language, to check another library or runtime"


def add_corpus(commands: Any) -> None:
    """Add the command to the subcommands of a parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "corpus", help=_TEXT, description=f"{_TEXT[0].upper()}{_TEXT[1:]}. Its README.md describes the format."
    )
    parser.add_argument("--out", default="corpus", metavar="DIR", help="a new or empty folder (corpus)")
    parser.set_defaults(run=partial(_run, parser))


def _run(parser: argparse.ArgumentParser, given: Any) -> int:
    try:
        names = write_corpus(given.out)
    except (ValueError, ImportError) as error:
        parser.error(by_option(error, given))
    sys.stdout.write(f"{given.out}: {len(names)} batches; its README.md describes the format\n")
    return 0
