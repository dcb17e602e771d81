"""Detection losses that compile: one graph, no sync, no recompile, the same numbers everywhere."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compiled_loss.api import *  # noqa: F403
    from compiled_loss.api import __all__ as __all__

__version__ = "0.2.0"


def __getattr__(name: str) -> Any:
    # torch is loaded with the first public name, not by every pytest session, which imports the plugin in here.
    if name != "__all__" and name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    api = importlib.import_module("compiled_loss.api")
    globals().update({x: getattr(api, x) for x in api.__all__}, __all__=api.__all__)
    if name not in globals():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return globals()[name]


def __dir__() -> list[str]:
    return [*globals(), *__getattr__("__all__")]
