"""Decoding of a head's predictions, without targets: boxes and keypoints in pixels, probabilities, masks.

Letters: B images, A anchors, C classes, K keypoints, D values of a keypoint, R distance bins, k detections of an image.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from compiled_loss.checks import (
    check_floating,
    check_same_device,
    check_shape,
    given,
    require,
    whole_number,
    whole_pair,
)
from compiled_loss.exact import ExactModule
from compiled_loss.geometry.masks import decode_masks
from compiled_loss.grid import Sides, decode_sides
from compiled_loss.losses.fields import Map
from compiled_loss.losses.inputs import check_predictions
from compiled_loss.losses.parts import BoxKind, Extra
from compiled_loss.losses.ranking import LOWEST, MOST, NOTHING, first_of_largest, places_of_largest
from compiled_loss.losses.scene import anchors_of, image_size_of, sums_are_finite
from compiled_loss.numerics import at_least_float32, masked
from compiled_loss.types import Decoded, Detections, Predictions


class Decoder(ExactModule):
    """The half of a loss that needs no targets."""

    num_classes: int
    strides: tuple[int, ...]
    reg_max: int
    boxes: BoxKind
    extras: tuple[Extra, ...]

    @property
    def maps(self) -> list[Map]:
        """The fields of `Predictions` that the loss reads."""
        bins = "logits of the distances to left, top, right, bottom, channel side*R + bin"
        plain = "distances to left, top, right, bottom in cells of the level"
        return [
            Map("boxes", 4 * self.reg_max, bins if self.reg_max > 1 else plain, why=self._channels()),
            Map("scores", self.num_classes, "class logits", why=self._channels()),
            *self.boxes.maps,
            *(x for extra in self.extras for x in extra.maps),
        ]

    def _channels(self) -> str:
        bins, classes = self.reg_max, self.num_classes
        return f"boxes have {4 * bins} = 4 * reg_max channels (reg_max={bins}), scores {classes} = num_classes"

    def sides(self, predictions: Predictions) -> Sides:
        """`[B, 4, A]` distances of every anchor, decoded, grid units."""
        # In the layout that the head writes, [B, 4, R, A]: the anchors are the contiguous dimension.
        logits = at_least_float32(predictions.boxes).unflatten(1, (4, self.reg_max))
        return decode_sides(logits, dim=2)

    def decode(self, predictions: Predictions) -> Decoded:
        """Decode the head's predictions at every anchor.

        Args:
            predictions: the head's raw output; maps that only the loss reads may be missing.

        Returns:
            `Decoded(boxes, scores, keypoints, coefficients)`.

        Raises:
            ValueError: for a wrong rank, size, dtype or device.
        """
        fields, logits = self._read(predictions)
        return Decoded(scores=logits.sigmoid(), **fields)

    def detect(self, predictions: Predictions, k: int = 300, *, mask_size: tuple[int, int] | None = None) -> Detections:
        """The k best detections of every image, without non-maximum suppression, which end-to-end heads do not need.

        Detections are pairs of an anchor and a class, as in end-to-end YOLO heads, ordered by the class logit, ties by
        anchor, then by class. An anchor may therefore appear several times, and no score that is left out is higher
        than the last one.

        Args:
            predictions: the head's raw output; maps that only the loss reads may be missing.
            k: detections per image; if there are fewer, the rest is padding with score 0.
            mask_size: (H, W) of the masks, which cover the whole image; None means the prototypes' size.

        Returns:
            `Detections(boxes, scores, labels, anchors, keypoints, masks)`, of the same sizes whatever is found.

        Raises:
            ValueError: for a wrong rank, size, dtype or device, a k below 1, or a mask size that is not two positive
                integers or is given without masks.

        Source: YOLOv10, arXiv 2405.14458.
        """
        k = whole_number("k", k)
        pairs = k * self.num_classes
        require(pairs <= MOST, "k", f"at most {MOST} pairs of a detection and a class", f"{k}, {pairs} pairs")
        if mask_size is not None:
            mask_size = whole_pair("mask_size", mask_size, "(height, width) in mask pixels, or None")
        fields, logits = self._read(predictions)
        scores, labels, anchors, found = _best(logits, k)
        image = torch.arange(anchors.shape[0], device=anchors.device)[:, None]
        best = {name: masked(x[image, anchors], found) for name, x in fields.items()}
        coefficients, masks = best.pop("coefficients", None), None
        masks_or_none = coefficients is not None or mask_size is None
        require(masks_or_none, "mask_size", "None, since there are no masks", mask_size)
        if coefficients is not None:
            prototypes = given("predictions.prototypes", predictions.prototypes)
            check_shape("predictions.prototypes", prototypes, [anchors.shape[0], coefficients.shape[2], "H", "W"])
            check_floating("predictions.prototypes", prototypes)
            check_same_device(coefficients=coefficients, prototypes=prototypes)
            size = image_size_of(predictions, self.strides)
            masks = decode_masks(coefficients, prototypes, best["boxes"], size, mask_size)
        return Detections(scores=scores, labels=labels, anchors=anchors, masks=masks, **best)

    def _read(self, predictions: Predictions) -> tuple[dict[str, Any], Tensor]:
        """Fields of `Decoded` except scores, and finite `[B, A, C]` logits, `NOTHING` at non-finite anchors."""
        read = [x for x in self.maps if not x.pixels and not x.optional]
        check_predictions(predictions, read, self.strides)
        anchors = anchors_of(predictions, self.strides)
        fields = {"boxes": self.boxes.predicted(predictions, self.sides(predictions), anchors)}
        for extra in self.extras:
            fields |= extra.decoded(predictions, anchors)
        sound = fields["boxes"].isfinite().all(2) & (predictions.scores < torch.inf).all(1)
        for x in read[2:]:
            sound = sound & sums_are_finite(getattr(predictions, x.name), 1)
        logits = torch.where(sound[:, None], predictions.scores.float().clamp(min=LOWEST), NOTHING)
        return {name: masked(x, sound) for name, x in fields.items()}, logits.transpose(1, 2)


def _best(logits: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Scores, labels, anchors and whether there is a detection, all `[B, k]`, for the k best of logits `[B, A, C]`.

    In two steps: the k best pairs belong to the k anchors whose best class scores highest. Padded, because an exported
    graph cannot check whether it has k anchors.
    """
    classes = logits.shape[2]
    logits = F.pad(logits, (0, 0, 0, k), value=NOTHING)
    # Back in anchor order, so that a pair's position tells which anchor and class comes first.
    some = places_of_largest(logits.amax(2), k)
    image = torch.arange(logits.shape[0], device=logits.device)[:, None]
    pairs = logits[image, some].flatten(1)
    place = first_of_largest(pairs, k)
    logit, slot = pairs.gather(1, place), place // classes
    found = logit > NOTHING
    anchors, labels = some.gather(1, slot), place - slot * classes
    return logit.sigmoid(), torch.where(found, labels, 0), torch.where(found, anchors, 0), found
