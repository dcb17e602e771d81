"""What the parts of a loss must be, to write one of your own, and what they are given.

- `BoxOverlap`, `BoxTerm`, `ClassTerm` (or `WeightedClassTerm`): functions, given as `overlap=`, `box_term=` and
  `classification=` of any loss.
- `Assigner`: given as `assigner=`. It gets `Pairs` of rows and `Candidates`, which lie in its `Region`, and returns an
  `Assignment`; `select` does most of that.
- `Extra`: further terms, given as `extras=[...]`. It says which `Map` of the predictions and which `Field` of the
  targets it reads, gets the `Positives` (of a `View` of the predictions in a `Scene` of the targets), and returns terms
  that are reduced as `Weighted`, `Mean`, `MeanWhere` or `OfImages`.

What a part computes becomes one graph with the rest, so it holds no `if` on a tensor's value, no `.item()`, and no
boolean mask as an index: `torch.where` instead. `compiled_loss.audit` and the pytest fixture `graph_audit` tell.
"""

from compiled_loss.assign.candidates import Candidates
from compiled_loss.assign.parts import Assigner, Pairs
from compiled_loss.assign.regions import Region
from compiled_loss.assign.select import Held, select
from compiled_loss.losses.fields import Field, Map
from compiled_loss.losses.parts import (
    BoxOverlap,
    BoxTerm,
    ClassTerm,
    Extra,
    Mean,
    MeanWhere,
    OfImages,
    Weighted,
    WeightedClassTerm,
)
from compiled_loss.losses.scene import Positives, Scene, View
from compiled_loss.types import Assignment

__all__ = [
    "Assigner",
    "Assignment",
    "BoxOverlap",
    "BoxTerm",
    "Candidates",
    "ClassTerm",
    "Extra",
    "Field",
    "Held",
    "Map",
    "Mean",
    "MeanWhere",
    "OfImages",
    "Pairs",
    "Positives",
    "Region",
    "Scene",
    "View",
    "Weighted",
    "WeightedClassTerm",
    "select",
]
