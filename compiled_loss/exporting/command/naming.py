"""Error messages that name the option of a command instead of an argument."""

import argparse

# Arguments whose options have other names.
_OPTIONS = {"num_classes": "--classes", "num_keypoints": "--keypoints", "folder": "--out"}


def by_option(error: Exception, given: argparse.Namespace, path: str = "--out") -> str:
    """An error's text with the name of the option in place of that of the argument.

    Args:
        error: an error of this package, whose text begins with an argument's name and a colon.
        given: the options of the command.
        path: the command's name for the file.

    Example:
        >>> by_option(ValueError("num_classes: expected more"), argparse.Namespace(classes=0))
        '--classes: expected more'
    """
    argument, colon, rest = str(error).partition(":")
    own = f"--{argument.replace('_', '-')}" if argument in vars(given) else argument
    return f"{({**_OPTIONS, 'path': path}).get(argument, own)}{colon}{rest}"
