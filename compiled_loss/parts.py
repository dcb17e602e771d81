"""The interfaces of a loss's parts, for writing your own, and the types that parts receive.

- `BoxOverlap`, `BoxTerm`, `ClassTerm` (or `WeightedClassTerm`): functions, passed to any loss as `overlap=`,
  `box_term=` and `classification=`.
- `Assigner`: passed as `assigner=`. It receives `Pairs` of rows and `Candidates`, which lie in its `Region`, and
  returns an `Assignment`; `select` does most of the work.
- `Extra`: further terms, passed as `extras=[...]`. It declares which `Map` of the predictions and which `Field` of the
  targets it reads, receives the `Positives` (of a `View` of the predictions in a `Scene` of the targets), and returns
  terms that are reduced as `Weighted`, `Mean`, `MeanWhere` or `OfImages`.

A part becomes part of the loss's one graph, so it must not use `if` on a tensor's value, `.item()`, or a boolean mask
as an index; use `torch.where` instead. `compiled_loss.audit` and the pytest fixture `graph_audit` check this.
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
