"""Random damage to the labels of a folder of pictures, as `examples/train.py --data` reads it."""

import json
import random
import sys
import tempfile
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

from demo.labels import DataError
from demo.splits import training_and_held_out

from tests.examples.editing import make_folder
from tests.examples.test_damaged_folders import FORMATS, as_format
from tests.mutations import damage


@cache
def _place() -> tuple[tempfile.TemporaryDirectory[str], Path, str]:
    """One folder for a whole run, removed at its end, and its sound labels."""
    kept = tempfile.TemporaryDirectory()
    folder = make_folder(Path(kept.name))
    return kept, folder, (folder / "labels.json").read_text()


def one(seed: int) -> tuple[str, str]:
    """A damaged folder: in words, and what else it ended in than samples or an error that names the file."""
    _, folder, sound = _place()
    rng = random.Random(seed)
    name = rng.choice(list(FORMATS))
    document = damage(as_format(json.loads(sound), name), rng, rng.choice((1, 1, 1, 2, 5)))
    (folder / "labels.json").write_text(json.dumps(document))
    wrong = ""
    try:
        for data in training_and_held_out(folder, 64, FORMATS[name], 0, 0.0, ""):
            for i in range(len(data)):
                _, labels = data.sample(i, epoch=1 if data.augmented else None)
                labels.targets(64).validate(1, len(data.info.classes))
    except DataError as error:
        wrong = "" if str(error).startswith(str(folder)) else f"an error that names no file: {error}"
    except Exception as error:
        wrong = f"{type(error).__name__}: {error}"
    return name, wrong
