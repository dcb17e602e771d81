"""Which option of a command an error is about."""

import argparse

# Arguments that are called otherwise than their options.
_OPTIONS = {"num_classes": "--classes", "num_keypoints": "--keypoints", "folder": "--out"}


def by_option(error: Exception, given: argparse.Namespace, path: str = "--out") -> str:
    """An error's text with the option that it is about, in place of the argument that the option becomes.

    Args:
        error: of this package: its text begins with an argument's name and a colon.
        given: the options of the command.
        path: what the command calls the file.

    Example:
        >>> by_option(ValueError("num_classes: expected more"), argparse.Namespace(classes=0))
        '--classes: expected more'
    """
    argument, colon, rest = str(error).partition(":")
    own = f"--{argument.replace('_', '-')}" if argument in vars(given) else argument
    return f"{({**_OPTIONS, 'path': path}).get(argument, own)}{colon}{rest}"
