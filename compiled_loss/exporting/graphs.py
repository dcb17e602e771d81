"""Assignment, loss and decoding as modules with only named tensors as inputs and outputs.

Letters: B images, N rows, A anchors, P positive slots, M slots per image, k detections per image.
"""

import torch
from torch import Tensor, nn

from compiled_loss.assign.dense import to_dense
from compiled_loss.data.targets import Targets
from compiled_loss.exporting.interface import (
    NAMES,
    Loss,
    Port,
    Setting,
    branches,
    examples,
    grids,
    prediction_ports,
    share_port,
    target_ports,
)
from compiled_loss.exporting.outputs import SLOTTED, assignment_outputs, decoding_outputs, loss_outputs
from compiled_loss.losses.dense import DenseLoss
from compiled_loss.losses.end_to_end import EndToEndLoss, main_loss
from compiled_loss.numerics import for_any_runtime
from compiled_loss.ragged import fill, positions
from compiled_loss.types import EndToEndOutput, LossOutput, Predictions

_FIELDS = {name: field for field, name in NAMES.items()}
_FILE_NAMES = {**NAMES, "anchors": "anchor"}


class Graph(nn.Module):
    """A function of named tensors; tables list its inputs and outputs.

    Args:
        loss: the loss.
        setting: what else the graph fixes.
    """

    predictions: list[Port]
    inputs: list[Port]
    outputs: list[Port]

    def __init__(self, loss: Loss, setting: Setting) -> None:
        super().__init__()
        self.loss = loss
        self.setting = setting
        self.predictions = prediction_ports(loss, setting)
        self.inputs = [*self.predictions, *target_ports(loss, setting)]

    def _predictions(self, tensors: dict[str, Tensor], branch: str) -> Predictions:
        names = [p.name for p in self.predictions if p.name.startswith(f"{branch}_")]
        given = {name.removeprefix(f"{branch}_"): tensors[name] for name in names}
        if self.setting.image_size is not None:
            cells = grids(self.loss, self.setting.image_size)
            return Predictions(grid_sizes=cells, **given)
        strides = main_loss(self.loss).strides
        maps = {name: x for name, x in given.items() if not name.endswith(tuple(f"_{s}" for s in strides))}
        cells = []
        for stride in strides:
            _, _, rows, columns = given[f"boxes_{stride}"].shape
            cells.append((rows, columns))
        for field in (name.removesuffix(f"_{strides[0]}") for name in given if name.endswith(f"_{strides[0]}")):
            maps[field] = torch.cat([given[f"{field}_{stride}"].flatten(2) for stride in strides], 2)
        return Predictions(grid_sizes=tuple(cells), **maps)

    def _targets(self, tensors: dict[str, Tensor], images: int) -> tuple[Targets, Tensor | int]:
        """The targets, and the number of rows in the images whose class does not exist.

        An exported graph cannot refuse such rows, and runtimes do not agree on what lies beyond the end of an array. So
        such a row stays in its place but gets a negative size, so that it matches nothing. An exported graph also adds
        a row of padding, because runtimes do not agree on sums of empty tensors.
        """
        unknown: Tensor | int = 0
        fields: dict[str, Tensor] = {}
        for port in target_ports(self.loss, self.setting):
            x = tensors[port.name]
            if for_any_runtime() and port.shape[0] == "N":
                x = torch.cat([x, x.new_full((1, *x.shape[1:]), -1 if port.name == "batch_idx" else 0)])
            fields[_FIELDS.get(port.name, port.name)] = x
        if for_any_runtime():
            labels, batch_idx = fields["labels"], fields["batch_idx"]
            strange = (labels < 0) | (labels >= main_loss(self.loss).num_classes)
            fields["labels"] = torch.where(strange, 0, labels)
            fields["boxes"] = torch.where(strange[:, None], -1.0, fields["boxes"])
            unknown = (strange & (batch_idx >= 0) & (batch_idx < images)).sum()
        room = {"pages": self.setting.pages, "mask_tiles": self.setting.mask_tiles}
        return Targets(**fields, **room), unknown  # type: ignore[arg-type]


class AssignmentGraph(Graph):
    """The positives and their dense view; in the padded form also the filled slots."""

    loss: DenseLoss

    def __init__(self, loss: DenseLoss, setting: Setting) -> None:
        super().__init__(loss, setting)
        self.outputs = assignment_outputs(loss, setting)

    def forward(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """The outputs by name."""
        predictions, batch_idx = self._predictions(tensors, "pred"), tensors["batch_idx"]
        batch, classes, anchors = predictions.scores.shape
        slot, filled = None, {}
        if self.setting.slots is not None:
            slot, filled = self._fill(tensors, batch)
            # A row without a slot is left out, but keeps its place among the rows.
            batch_idx = torch.where(slot < self.setting.slots, batch_idx, -1)
        loss, (targets, unknown) = self.loss, self._targets({**tensors, "batch_idx": batch_idx}, batch)
        scene = loss.place(predictions, targets)
        positives = loss.positives(loss.view(predictions, scene), loss.assigner)
        dense = to_dense(positives, targets.labels, scene.boxes, batch, anchors, classes)
        names = ("image", "anchor", "row", "valid", "weight", "overflow")
        flat: dict[str, Tensor] = dict(zip(names, positives[:6], strict=True))
        flat["overflow"] = flat["overflow"] + unknown
        if for_any_runtime():  # leave out the slots of the added row of padding
            rows, padded = batch_idx.shape[0], targets.labels.shape[0]
            for name in names[:-1]:
                flat[name] = flat[name].view(padded, -1)[:rows].flatten()
        found = {**flat, **{f"dense_{name}": x for name, x in dense._asdict().items()}, **filled}
        if slot is not None:
            found["slot"] = torch.where(flat["valid"], slot[flat["row"]], 0)
            # An extra row, so that background can read something even if there are no rows.
            background = slot.new_full((1,), -1)
            row = torch.where(dense.row >= 0, dense.row, slot.shape[0])
            found["dense_slot"] = torch.cat([slot, background])[row]
        return {port.name: found[port.name] for port in self.outputs}

    def _fill(self, tensors: dict[str, Tensor], batch: int) -> tuple[Tensor, dict[str, Tensor]]:
        """`[N]` slot of every row, and the filled slots by name."""
        assert self.setting.slots is not None
        batch_idx, slots = tensors["batch_idx"], self.setting.slots
        filled = {name: fill(tensors[name], batch_idx, batch, slots) for name in SLOTTED if name in tensors}
        found = {f"slot_{name}": x.values for name, x in filled.items()}
        found |= {"slot_mask": filled["boxes"].mask, "dropped": filled["boxes"].dropped}
        return positions(batch_idx, batch)[0], found


class LossGraph(Graph):
    """The loss, its terms and its counts; an end-to-end loss takes its share as an input."""

    def __init__(self, loss: Loss, setting: Setting) -> None:
        super().__init__(loss, setting)
        if isinstance(loss, EndToEndLoss) and not loss.plain_sum:
            self.inputs = [*self.inputs, share_port()]
        with torch.no_grad():
            self.outputs = loss_outputs(tuple(self._loss(examples(self.inputs))[0].terms))

    def forward(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """The outputs by name; only the loss itself has a gradient."""
        out, unknown = self._loss(tensors)
        found = [out.total, *(x.detach() for x in out.terms.values()), out.num_positives, out.overflow + unknown]
        return {port.name: x for port, x in zip(self.outputs, found, strict=True)}

    def _loss(self, tensors: dict[str, Tensor]) -> tuple[LossOutput | EndToEndOutput, Tensor | int]:
        """The output of the loss, and the number of rows whose class does not exist."""
        heads = [self._predictions(tensors, branch) for branch in branches(self.loss)]
        buffers = {name: tensors[name] for name in ("share",) if name in tensors}
        targets, unknown = self._targets(tensors, heads[0].scores.shape[0])
        return torch.func.functional_call(self.loss, buffers, (*heads, targets)), unknown


class DecodingGraph(Graph):
    """What needs no targets: every anchor decoded, or the k best detections."""

    loss: DenseLoss

    def __init__(self, loss: DenseLoss, setting: Setting) -> None:
        super().__init__(loss, setting)
        unread = [x.name for x in loss.maps if x.optional or (x.pixels and setting.k is None)]
        self.inputs = self.predictions = [
            p for p in self.predictions if not p.name.startswith(tuple(f"pred_{name}" for name in unread))
        ]
        self.outputs = decoding_outputs(loss, setting, self.predictions)

    def forward(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """The outputs by name."""
        predictions, setting = self._predictions(tensors, "pred"), self.setting
        if setting.k is None:
            found = self.loss.decode(predictions)
        else:
            found = self.loss.detect(predictions, setting.k, mask_size=setting.mask_size)
        fields = {_FILE_NAMES.get(name, name): x for name, x in found._asdict().items()}
        return {port.name: fields[port.name] for port in self.outputs}
