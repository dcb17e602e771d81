"""How many positives of two assigners are the same."""

from collections import Counter
from collections.abc import Iterable

Positive = tuple[int, int, int]  # image, anchor, row
IMAGES = 4  # of a scene


def agreement(scenes: Iterable[tuple[set[Positive], set[Positive]]]) -> Counter[str]:
    """Images and positives of the other, and how many of them are alike, over scenes of `(mine, other)`."""
    seen: Counter[str] = Counter()
    for mine, other in scenes:
        seen["positives"] += len(other)
        seen["alike"] += len(mine & other)
        seen["images"] += IMAGES
        seen["same"] += sum(not any(x[0] == b for x in mine ^ other) for b in range(IMAGES))
    return seen
