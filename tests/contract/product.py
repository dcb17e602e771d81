"""Losses of every assigner, class term and overlap, made from the public names: one that is added joins by itself."""

import copy
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import compiled_loss
from compiled_loss import DenseLoss, DetectionLoss, OrientedLoss, TaskAligned, overlaps
from compiled_loss.assign.parts import Assigner
from compiled_loss.terms.classification import WeightedClasses
from tests.contract.rows import CLASSES, FEW, SIZE, STRIDES

# Arguments of parts that need some, or that are of more interest than the defaults; fewer anchors make smaller graphs.
ARGUMENTS: dict[str, Callable[[], dict[str, Any]]] = {
    **dict.fromkeys(("TaskAligned", "SimOTA", "DynamicSoftLabel", "ATSS"), lambda: {"top_k": FEW}),
    "Scheduled": lambda: {"first": compiled_loss.ATSS(2), "then": TaskAligned(FEW)},
    "BinaryCrossEntropy": lambda: {"label_smoothing": 0.1},
    "VarifocalLoss": lambda: {"class_weights": [0.5, 2.0]},
    "MPDIoU": lambda: {"image_size": SIZE},
    "InnerIoU": lambda: {"overlap": overlaps.ciou},
}
ORIENTED = {"probiou", "kfiou", "GWD", "KFIoU", "KullbackLeibler"}
UPRIGHT_ALONE = {"SimOTA", "DynamicSoftLabel", "ATSS", "Scheduled"}  # they look at centres of upright boxes


class Parts(NamedTuple):
    """Names of the parts of a loss; that of the box term is an overlap's or its own."""

    assigner: str
    classes: str
    box: str

    def __str__(self) -> str:
        return f"{self.box}, {self.assigner} and {self.classes}"


def is_oriented(box: str) -> bool:
    """Whether a box term is of oriented boxes."""
    return box in ORIENTED


def made(name: str) -> Any:
    """The part of a name."""
    part = getattr(overlaps, name) if name in overlaps.__all__ else getattr(compiled_loss, name)
    return part(**ARGUMENTS.get(name, dict)()) if isinstance(part, type) else part


def classes_of(kind: Callable[[type], bool]) -> list[str]:
    """Public classes of a kind."""
    return [x for x in compiled_loss.__all__ if isinstance(t := getattr(compiled_loss, x), type) and kind(t)]


def is_assigner(kind: type) -> bool:
    """Whether its objects can be called, and say how many slots a row has."""
    return hasattr(kind, "slots") and any("__call__" in vars(x) for x in kind.__mro__) and kind is not Assigner


ASSIGNERS = classes_of(is_assigner)
CLASS_TERMS = classes_of(lambda t: issubclass(t, WeightedClasses))
BOX_TERMS = [*overlaps.__all__, "KullbackLeibler", "KFIoU", "WIoU"]


def loss_of(parts: Parts) -> DenseLoss:
    """The loss that is made of them."""
    options: dict[str, Any] = {"assigner": made(parts.assigner), "classification": made(parts.classes)}
    if parts.box in overlaps.__all__:
        options["overlap"] = made(parts.box)
    else:
        options["box_term"] = copy.deepcopy(made(parts.box))
    kind = OrientedLoss if is_oriented(parts.box) else DetectionLoss
    return kind(CLASSES, STRIDES, **options).eval()  # a running mean would not be the same in calls that are compared


def makes_sense(parts: Parts) -> bool:
    """Whether they go together."""
    return not (is_oriented(parts.box) and parts.assigner in UPRIGHT_ALONE)


def product() -> Iterator[Parts]:
    """Every combination that makes sense."""
    for box in BOX_TERMS:
        for assigner in ASSIGNERS:
            yield from (p for name in CLASS_TERMS if makes_sense(p := Parts(assigner, name, box)))


def rotated() -> list[Parts]:
    """A few of them, with every assigner for upright boxes and every class term, each beside another box term."""
    found = []
    for i, box in enumerate(BOX_TERMS):
        fitting = [x for x in ASSIGNERS if makes_sense(Parts(x, CLASS_TERMS[0], box))]
        found.append(Parts(fitting[i % len(fitting)], CLASS_TERMS[(3 * i + i // 4) % len(CLASS_TERMS)], box))
    return found[2::3]
