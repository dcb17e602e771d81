"""Random damage to labels: what other tools, hands and disks do to a file."""

import copy
import math
import random
from typing import Any

# What stands in the place of a value: other kinds, other sizes, nothing.
STRANGE: tuple[Any, ...] = (
    *(None, True, False, "", "7", "a", [], {}, [[]], [1], {"id": 1}, [None], ["1", 2]),
    *(0, 1, -1, 2, 7, 0.5, -0.0, 1e-9, 255, 65535, 1e6, 2**31, 2**63, 10**400, 1e308),
    *(math.nan, math.inf, -math.inf),
)


def damage(document: Any, rng: random.Random, times: int) -> Any:
    """A copy in which so many values, chosen at random, are replaced, removed, repeated or moved."""
    damaged = copy.deepcopy(document)
    for _ in range(times):
        places = _places(damaged)
        if places:
            _strike(*rng.choice(places), rng)
    return damaged


def _places(node: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) below a node."""
    keys = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else []
    return [place for key in keys for place in ((node, key), *_places(node[key]))]


def _strike(container: Any, key: Any, rng: random.Random) -> None:
    value = container[key]
    kind = rng.choice(("replace", "replace", "remove", "repeat", "scale", "text", "nest"))
    if kind == "remove":
        del container[key]
    elif kind == "repeat" and isinstance(container, list):
        container.insert(rng.randrange(len(container) + 1), copy.deepcopy(value))
    elif kind == "scale" and type(value) in (int, float) and abs(value) < 1e9:
        container[key] = value * rng.choice((-1, 0, 1e-3, 0.5, 3, 1000))
    elif kind == "text":
        container[key] = str(value)[:20]
    elif kind == "nest":
        container[key] = [copy.deepcopy(value)]
    else:
        container[key] = copy.deepcopy(rng.choice(STRANGE))
