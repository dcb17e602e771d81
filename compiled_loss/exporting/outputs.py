"""Names, axes and meanings of the outputs of exported graphs.

Letters: B images, N rows, A anchors, C classes, P positive slots (N*k), M slots per image.
"""

from collections.abc import Sequence

from compiled_loss.exporting.interface import Port, Setting, grids, target_ports
from compiled_loss.losses.dense import DenseLoss
from compiled_loss.losses.pose import KeypointTerms

GRADIENT = "grad_"
# Target fields that the padded form puts into slots.
SLOTTED = ("cls", "boxes", "keypoints", "angles")
_OVERFLOW = "rows cut short by the planned pages or tiles, plus rows with a class outside [0, C), which match nothing"


def assignment_outputs(loss: DenseLoss, setting: Setting) -> list[Port]:
    """The positives, their dense view, and in the padded form the filled slots."""
    anchors, values, corners = _anchors(loss, setting), loss.boxes.values, _corners(loss)
    ports = [
        Port("image", ("P",), "int64", "image of the positive"),
        Port("anchor", ("P",), "int64", "its anchor, levels finest first, row by row within a level"),
        Port("row", ("P",), "int64", "target row that the anchor was given to"),
        Port("valid", ("P",), "bool", "whether the slot holds a positive; the indices in other slots are valid too"),
        Port("weight", ("P",), "float32", "target score of the positive; 0 in empty slots"),
        Port("overflow", (), "int64", _OVERFLOW),
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
        Port("slot_mask", ("B", slots), "bool", "whether the slot holds a row"),
        Port("dropped", ("B",), "int64", "rows of the image beyond its slots, which are left out"),
        Port("slot", ("P",), "int64", "slot, within its image, of the row of the positive; 0 where not valid"),
        Port("dense_slot", ("B", anchors), "int64", "slot of the anchor's row; -1 on background"),
    ]


def decoding_outputs(loss: DenseLoss, setting: Setting, predictions: Sequence[Port]) -> list[Port]:
    """The outputs for the k best detections, or for every anchor."""
    maps = {p.name: p.shape for p in predictions}
    each = ("B", _anchors(loss, setting) if setting.k is None else setting.k)
    ports = [Port("boxes", (*each, loss.boxes.values), "float32", f"{_corners(loss)}, pixels; 0 if there is none")]
    if setting.k is None:
        meaning = "probability of each class; 0 for an anchor with a NaN or infinite prediction"
        ports.append(Port("scores", (*each, loss.num_classes), "float32", meaning))
    else:
        ports += [
            Port("scores", each, "float32", "probability of the class, best first; 0 if there are fewer"),
            Port("cls", each, "int64", "class"),
            Port("anchor", each, "int64", "anchor that it comes from, levels finest first"),
        ]
    for x in loss.extras:
        if isinstance(x, KeypointTerms):
            visible = ", probability that it is visible" if x.keypoint_dims == 3 else ""
            shape = (*each, x.num_keypoints, x.keypoint_dims)
            ports.append(Port("keypoints", shape, "float32", f"x and y in pixels{visible}"))
    if any(x.name == "coefficients" for x in loss.maps):
        if setting.k is None:
            ports.append(Port("coefficients", (*each, setting.prototypes), "float32", "one for each prototype"))
        else:
            size = setting.mask_size or maps["pred_prototypes"][2:]
            ports.append(Port("masks", (*each, *size), "float32", "probability of every pixel; 0 outside the box"))
    return ports


def loss_outputs(terms: Sequence[str]) -> list[Port]:
    """The loss and its terms, each times its gain and times B."""
    return [
        Port("loss", (), "float32", "sum of the terms, each times its gain, times B"),
        *(Port(f"loss_{name}", (), "float32", f"the {name} term, times its gain, times B") for name in terms),
        Port("num_positives", (), "int64", "number of positive anchors"),
        Port("overflow", (), "int64", _OVERFLOW),
    ]


def gradient_outputs(predictions: Sequence[Port]) -> list[Port]:
    """The gradient of the loss with respect to every prediction."""
    return [
        Port(GRADIENT + p.name, p.shape, p.dtype, f"gradient of loss with respect to {p.name}") for p in predictions
    ]


def _anchors(loss: DenseLoss, setting: Setting) -> int | str:
    if setting.image_size is None:
        return "A"
    return sum(rows * columns for rows, columns in grids(loss, setting.image_size))


def _corners(loss: DenseLoss) -> str:
    return "centre x, centre y, width, height, angle" if loss.boxes.values == 5 else "x1, y1, x2, y2"
