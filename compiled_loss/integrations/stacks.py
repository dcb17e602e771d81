"""Installations that replace a class's members; of several, the latest that is not uninstalled is active."""

from collections.abc import Callable
from typing import Any, NamedTuple, Self


class _Stack(NamedTuple):
    own: dict[str, Any]  # the class's members that were replaced; None for what it inherits
    installations: list["Stacked"]  # the latest last


_STACKS: dict[type, _Stack] = {}


class Stacked:
    """An installation for a class, until `uninstall()` or the end of a `with` block.

    Args:
        kind: the class.
        how: the backend that compiles losses; None if they run eagerly.
        replacements: the members that replace the class's own, by name. All installations share them, and they ask
            `in_force` for the active one.

    Example:
        >>> class Network:
        ...     def loss(self):
        ...         return "its own"
        >>> ours = {"loss": lambda self: in_force(Network)}
        >>> outer = Stacked(Network, "inductor", lambda: ours)
        >>> with Stacked(Network, None, lambda: ours):
        ...     print(Network().loss(), outer)
        Installation(Network, eager, 0 criteria made) Installation(Network, compiled by inductor, 0 criteria made, \
replaced by a later one)
        >>> outer.uninstall()
        >>> Network().loss(), outer
        ('its own', Installation(Network, compiled by inductor, 0 criteria made, uninstalled))
    """

    def __init__(self, kind: type, how: str | None, replacements: Callable[[], dict[str, Any]]) -> None:
        self.kind, self.how, self.criteria = kind, how, list[Any]()
        if kind not in _STACKS:
            members = replacements()
            _STACKS[kind] = _Stack({name: vars(kind).get(name) for name in members}, [])
            for name, member in members.items():
                setattr(kind, name, member)
        _STACKS[kind].installations.append(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.uninstall()

    def __repr__(self) -> str:
        how = "eager" if self.how is None else f"compiled by {self.how}"
        made = f"{len(self.criteria)} criteri{'on' if len(self.criteria) == 1 else 'a'} made"
        later = ", replaced by a later one" if self in installations(self.kind) else ", uninstalled"
        return f"Installation({self.kind.__name__}, {how}, {made}{'' if self.installed else later})"

    @property
    def installed(self) -> bool:
        """Whether this installation is active: not uninstalled, and the latest for the class."""
        return in_force(self.kind) is self

    def uninstall(self) -> None:
        """Restore the previous installation, or the class's own members; calling it again does nothing.

        If a later installation is active, it stays so.
        """
        if self not in installations(self.kind):
            return
        stack = _STACKS[self.kind]
        stack.installations.remove(self)
        if not stack.installations:
            for name, member in stack.own.items():
                if member is None:
                    delattr(self.kind, name)
                else:
                    setattr(self.kind, name, member)
            del _STACKS[self.kind]


def in_force(kind: type) -> Any:
    """The active installation for a class; None if there is none."""
    return (None, *installations(kind))[-1]


def installations(kind: type) -> tuple[Any, ...]:
    """All installations for a class that are not uninstalled, the latest last."""
    return tuple(_STACKS[kind].installations) if kind in _STACKS else ()
