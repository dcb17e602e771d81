"""Write the corpus as a folder: a table in JSON, a file of tensors for each batch, and a page that explains both."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from compiled_loss.checks import require
from compiled_loss.exporting.constants import plain, plain_loss
from compiled_loss.exporting.corpus.answers import answers
from compiled_loss.exporting.corpus.golden import FOLDER, Case, cases
from compiled_loss.exporting.verifying import child
from compiled_loss.exporting.verifying.compare import TOLERANCE
from compiled_loss.losses.end_to_end import EndToEndLoss, main_loss

VERSION = 1  # increases with every change of the format


def write_corpus(folder: str | os.PathLike[str]) -> list[str]:
    """Write the corpus.

    Args:
        folder: created if it does not exist; must be empty otherwise.

    Returns:
        The names of the cases.

    Raises:
        ValueError: if the folder is not empty or cannot be written.
        ImportError: without numpy.

    Example:
        >>> write_corpus(__file__)
        Traceback (most recent call last):
        ValueError: folder: expected an empty folder or a new one, got ...
    """
    out = Path(folder)
    fresh = not out.exists() or (out.is_dir() and not any(out.iterdir()))
    require(fresh, "folder", "an empty folder or a new one", str(folder))
    table = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        for case in cases():
            path = out / f"{case.name}.safetensors"
            path.parent.mkdir(exist_ok=True)
            groups = {"input": case.inputs, "expected": answers(case), "reference": case.reference}
            tensors = {f"{group}/{name}": x.numpy() for group, named in groups.items() for name, x in named.items()}
            child.write(str(path), tensors)
            table.append(_described(case))
        facts = {"version": VERSION, "tolerance": TOLERANCE, "cases": table}
        (out / "corpus.json").write_text(json.dumps(facts, indent=1) + "\n")
        shutil.copyfile(FOLDER / "README.md", out / "README.md")
    except OSError as error:
        raise ValueError(f"folder: expected one that can be written, got {folder}: {error.strerror}") from error
    return [x["name"] for x in table]


def _described(case: Case) -> dict[str, Any]:
    loss = main_loss(case.loss)
    constants = plain_loss(loss)
    constants["arguments"]["assigner"] = plain(loss.assigner)  # the one in use, if the argument is None
    if "flow" in constants["arguments"]:
        constants["arguments"]["flow"] = "the formula in README.md"
    shares = None
    if isinstance(case.loss, EndToEndLoss):
        share = case.loss.share.item()
        shares = [share, 1 - share]
    return {
        "name": case.name,
        "file": f"{case.name}.safetensors",
        "task": loss.task,
        **constants,
        "shares": shares,
        "image_size": case.image_size,
        "images": len(next(iter(case.inputs.values()))),
        "rows": len(case.inputs["cls"]),
        "inputs": list(case.inputs),
        "ties": case.ties,
    }
