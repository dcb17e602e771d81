"""The programs, called as the command line calls them."""

from compiled_loss.__main__ import main


def export(*arguments: object) -> int:
    """The exit status of `python -m compiled_loss export ...`."""
    return main(["export", *map(str, arguments)])
