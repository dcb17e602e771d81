"""Random labels through every source: sound ones give the right values, damaged ones Targets or a named error."""

import random
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from compiled_loss import Targets
from compiled_loss.data.sources import from_coco, from_torchvision, from_yolo
from tests.data.test_damaged_labels import LABELS, NAMED
from tests.mutations import damage

DAMAGED = 8  # copies of every sound document


class Thing(NamedTuple):
    """An object in whole pixels of its image."""

    image: int
    label: int
    box: tuple[int, int, int, int]  # x, y, width, height
    angle: float
    points: list[list[int]]  # x, y, flag
    crowd: bool


class Sound(NamedTuple):
    """A source with arguments that it takes, and what it must give."""

    source: Callable[..., Targets]
    arguments: dict[str, Any]
    boxes: list[list[float]]  # normalised, with an angle where the format has one
    things: list[Thing]
    masks: Tensor | None  # [N, H, W]


def one(seed: int) -> tuple[str, str]:
    """Sound labels and damaged copies of them: in words, and what was wrong."""
    rng = random.Random(seed)
    name = rng.choice(list(FORMATS))
    sizes = [(rng.randrange(16, 64), rng.randrange(16, 64)) for _ in range(rng.randrange(1, 4))]
    sound = FORMATS[name](rng, sizes, [_thing(rng, i, size) for i, size in enumerate(sizes) for _ in _few(rng)])
    wrong = _compare(sound)
    for copy in range(0 if wrong else DAMAGED):
        mine = random.Random(f"{seed} {copy}")
        labels = {key: sound.arguments[key] for key in LABELS if key in sound.arguments}
        damaged = damage(labels, mine, mine.choice((1, 1, 2, 5)))
        wrong = wrong or _ends_well(sound.source, sound.arguments | damaged)
    return f"{name}, {len(sizes)} images, {len(sound.things)} objects", wrong


def _few(rng: random.Random) -> range:
    return range(rng.choice((0, 1, 1, 2, 5)))


def _thing(rng: random.Random, image: int, size: tuple[int, int]) -> Thing:
    height, width = size
    x, y = rng.randrange(width - 2), rng.randrange(height - 2)
    box = x, y, rng.randrange(1, width - x), rng.randrange(1, height - y)
    points = [[rng.randrange(width), rng.randrange(height), rng.randrange(3)] for _ in "ab"]
    return Thing(image, rng.randrange(3), box, rng.uniform(-1.5, 1.5), points, rng.random() < 0.2)


def _boxes(things: list[Thing], sizes: list[tuple[int, int]], oriented: bool = False) -> list[list[float]]:
    rows = []
    for thing in things:
        (x, y, w, h), (height, width) = thing.box, sizes[thing.image]
        row = [(x + w / 2) / width, (y + h / 2) / height, w / width, h / height]
        rows.append([*row, thing.angle] if oriented else row)
    return rows


def _drawn(thing: Thing, size: tuple[int, int]) -> Tensor:
    mask, (x, y, w, h) = torch.zeros(size, dtype=torch.uint8), thing.box
    mask[y : y + h, x : x + w] = 1
    return mask


def _runs(mask: Tensor) -> list[int]:
    """Run lengths down the columns, those outside first."""
    counts, value = [0], 0
    for pixel in mask.T.flatten().tolist():
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    return counts


def _coco(rng: random.Random, sizes: list[tuple[int, int]], things: list[Thing]) -> Sound:
    oriented, outlined = rng.random() < 0.3, rng.random() < 0.5
    ids, images = rng.sample(range(90), 3), [[] for _ in sizes]
    if outlined:
        sizes = sizes[:1] * len(sizes)
        things = [t._replace(box=_inside(t.box, sizes[0])) for t in things]
    for t in things:
        (x, y, w, h), size = t.box, sizes[t.image]
        note: dict[str, Any] = {"bbox": [x, y, w, h], "category_id": ids[t.label], "iscrowd": int(t.crowd)}
        note |= {"rbox": [x + w / 2, y + h / 2, w, h, t.angle], "keypoints": [v for p in t.points for v in p]}
        if outlined:
            note["segmentation"] = {"size": list(size), "counts": _runs(_drawn(t, size))}
        images[t.image].append(note)
    kept = [t for t in things if not t.crowd]
    masks = [_drawn(t, sizes[0]) for t in kept]
    arguments = {"annotations": images, "image_sizes": [list(s) for s in sizes], "category_ids": ids}
    arguments |= {"oriented": oriented, "num_keypoints": 2, "mask_size": sizes[0] if outlined else None}
    return Sound(
        from_coco,
        arguments,
        _boxes(kept, sizes, oriented),
        kept,
        torch.stack(masks) if outlined and masks else None,
    )


def _inside(box: tuple[int, int, int, int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    x, y, w, h = box
    x, y = min(x, size[1] - 1), min(y, size[0] - 1)
    return x, y, min(w, size[1] - x), min(h, size[0] - y)


def _torchvision(rng: random.Random, sizes: list[tuple[int, int]], things: list[Thing]) -> Sound:
    dicts: list[dict[str, list[Any]]] = [{"boxes": [], "labels": [], "keypoints": [], "iscrowd": []} for _ in sizes]
    for t in things:
        x, y, w, h = t.box
        values = {"boxes": [x, y, x + w, y + h], "labels": t.label, "keypoints": t.points, "iscrowd": int(t.crowd)}
        for key, value in values.items():
            dicts[t.image][key].append(value)
    given = [d if d["boxes"] else {"boxes": [], "labels": []} for d in dicts]
    arguments = {"targets": given, "image_sizes": [list(s) for s in sizes], "num_keypoints": 2}
    kept = [t for t in things if not t.crowd]
    return Sound(from_torchvision, arguments, _boxes(kept, sizes), kept, None)


def _yolo(rng: random.Random, sizes: list[tuple[int, int]], things: list[Thing]) -> Sound:
    oriented = rng.random() < 0.3
    rng.shuffle(things)
    boxes = _boxes(things, sizes, oriented)
    points = [[[p[0] / sizes[t.image][1], p[1] / sizes[t.image][0], p[2]] for p in t.points] for t in things]
    batch = {"batch_idx": [t.image for t in things], "cls": [[t.label] for t in things], "bboxes": boxes}
    if things:
        batch["keypoints"] = points
    return Sound(from_yolo, {"batch": batch}, boxes, things, None)


FORMATS = {"coco": _coco, "torchvision": _torchvision, "yolo": _yolo}


def _compare(sound: Sound) -> str:
    """What the source says of sound labels that is not so."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            targets = sound.source(**sound.arguments)
    except Exception as error:
        return f"sound labels end in {type(error).__name__}: {error}"
    boxes = targets.boxes if targets.angles is None else torch.cat([targets.boxes, targets.angles[:, None]], 1)
    expected = torch.tensor(sound.boxes, dtype=torch.float64).reshape(len(sound.boxes), boxes.shape[1])
    if len(boxes) != len(expected):
        return f"{len(boxes)} rows of {len(expected)} objects"
    if len(expected) == 0:
        return ""
    # One rounding to float32 of numbers made in float64.
    if boxes.shape != expected.shape or not ((boxes - expected).abs() <= expected.abs() * 2.0**-24 + 1e-12).all():
        return f"boxes {boxes.tolist()}, expected {expected.tolist()}"
    for name, values in (("batch_idx", [t.image for t in sound.things]), ("labels", [t.label for t in sound.things])):
        if getattr(targets, name).tolist() != values:
            return f"{name} {getattr(targets, name).tolist()}, expected {values}"
    if targets.keypoints is None or targets.keypoints[..., 2].tolist() != [
        [p[2] for p in t.points] for t in sound.things
    ]:
        return "keypoints have other flags"
    if sound.masks is not None and not torch.equal(targets.masks, sound.masks):  # type: ignore[arg-type]
        return "masks have other pixels"
    return ""


def _ends_well(source: Callable[..., Targets], arguments: dict[str, Any]) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            targets = source(**arguments)
        targets.validate()
    except ValueError as error:
        return "" if NAMED.match(str(error)) else f"an error that names nothing: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error} of {arguments!r:.2000}"
    return ""
