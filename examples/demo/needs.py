"""What a program says where a package that it needs is not installed."""

import sys
from typing import NoReturn


def end_without(error: ModuleNotFoundError) -> NoReturn:
    """Leave with the line that installs what is missing; a module of the project's own that is missing is a fault."""
    name = str(error.name).partition(".")[0]
    if name == "demo":
        raise error
    print(f"error: {name} is not installed; from the project's folder: pip install '.[demo]'", file=sys.stderr)
    raise SystemExit(2)
