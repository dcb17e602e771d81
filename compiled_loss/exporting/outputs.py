"""Names, axes and meaning of what the exported graphs return.

Letters: B images, N rows, A anchors, C classes, P positive slots (N*k), M slots per image.
"""

from collections.abc import Sequence

from compiled_loss.exporting.interface import Port, Setting, grids, target_ports
from compiled_loss.losses.dense import DenseLoss

GRADIENT = "grad_"
# Target fields that the padded form has slots of, with what empty slots hold.
SLOTTED = ("cls", "boxes", "keypoints", "angles")


def assignment_outputs(loss: DenseLoss, setting: Setting) -> list[Port]:
    """The positives, their dense view, and of the padded form the filled slots."""
    anchors: int | str = "A"
    if setting.image_size is not None:
        anchors = sum(rows * columns for rows, columns in grids(loss, setting.image_size))
    values = loss.boxes.values
    corners = "centre x, centre y, width, height, angle" if values == 5 else "x1, y1, x2, y2"
    ports = [
        Port("image", ("P",), "int64", "image of the positive"),
        Port("anchor", ("P",), "int64", "its anchor, levels finest first, row by row within a level"),
        Port("row", ("P",), "int64", "target row that the anchor was given to"),
        Port("valid", ("P",), "bool", "whether the slot holds a positive; the others are safe to gather with"),
        Port("weight", ("P",), "float32", "target score of the positive; 0 in empty slots"),
        Port("overflow", (), "int64", "rows with more candidates than the planned pages, or the planned tiles, hold"),
        Port("dense_labels", ("B", anchors), "int64", "class of the anchor; C on background"),
        Port("dense_boxes", ("B", anchors, values), "float32", f"target box, {corners}, pixels; 0 on background"),
        Port("dense_scores", ("B", anchors, loss.num_classes), "float32", "class targets: one-hot times the weight"),
        Port("dense_foreground", ("B", anchors), "bool", "whether the anchor is positive"),
        Port("dense_row", ("B", anchors), "int64", "target row of the anchor; -1 on background"),
    ]
    if setting.slots is None:
        return ports
    slots = setting.slots
    for port in target_ports(loss, setting):
        if port.name in SLOTTED:
            shape = ("B", slots, *port.shape[1:])
            ports.append(Port(f"slot_{port.name}", shape, port.dtype, f"{port.meaning}; 0 in empty slots"))
    return [
        *ports,
        Port("slot_mask", ("B", slots), "bool", "whether a row stands in the slot"),
        Port("dropped", ("B",), "int64", "rows beyond the slots of their image, which take no part"),
        Port("slot", ("P",), "int64", "slot, within its image, of the row of the positive; 0 where not valid"),
        Port("dense_slot", ("B", anchors), "int64", "slot of the anchor's row; -1 on background"),
    ]


def loss_outputs(terms: Sequence[str]) -> list[Port]:
    """The loss and its terms, each times its gain and times B."""
    return [
        Port("loss", (), "float32", "the sum of the terms: times their gains, times B"),
        *(Port(f"loss_{name}", (), "float32", f"the {name} term, times its gain, times B") for name in terms),
        Port("num_positives", (), "int64", "anchors given to a target"),
        Port("overflow", (), "int64", "rows with more candidates than the planned pages, or the planned tiles, hold"),
    ]


def gradient_outputs(predictions: Sequence[Port]) -> list[Port]:
    """The gradient of the loss by every prediction."""
    return [Port(GRADIENT + p.name, p.shape, p.dtype, f"gradient of loss by {p.name}") for p in predictions]
