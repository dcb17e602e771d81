"""The fields of predictions and targets that parts declare to read: inputs are checked and files written by them.

Letters: B images, N rows, A anchors, H and W pixels.
"""

from typing import NamedTuple

from compiled_loss.checks import check_floating, check_shape, given
from compiled_loss.types import Predictions


class Map(NamedTuple):
    """A field of `Predictions` that a part reads.

    Args:
        name: name of the field.
        channels: number of channels; a letter if the loss leaves it open.
        meaning: what it holds, with its unit.
        pixels: 0 for one column per anchor `[B, channels, A]`; otherwise one value per pixel `[B, channels, H, W]`,
            each pixel being this many mask pixels wide.
        optional: whether a head may omit it.
        why: which arguments of the loss determine the channels, for error messages.
    """

    name: str
    channels: int | str
    meaning: str
    pixels: int = 0
    optional: bool = False
    why: str = ""

    def check(self, predictions: Predictions) -> None:
        """Check the field's rank, sizes and dtype.

        Raises:
            ValueError: naming the field, what was expected and what was given.
        """
        argument, x = f"predictions.{self.name}", getattr(predictions, self.name)
        if x is None and self.optional:
            return
        x = given(argument, x)
        batch, _, anchors = predictions.scores.shape
        check_shape(argument, x, [batch, self.channels, *(["H", "W"] if self.pixels else [anchors])], self.why)
        check_floating(argument, x)


class Field(NamedTuple):
    """A field of `Targets` that a part reads.

    Args:
        name: name of the field.
        shape: sizes after the N rows; with "H", "W", the sizes of a map for each image.
        dtype: as in torch.
        meaning: what it holds, with its unit.
        optional: whether targets may omit it.
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: str
    meaning: str
    optional: bool = False


# The fields of targets that every loss reads.
ROWS = (
    Field("batch_idx", (), "int64", "image of the row; outside [0, B) the row is padding"),
    Field("labels", (), "int64", "class of the row, in [0, C)"),
    Field("boxes", (4,), "float32", "centre x, centre y, width, height as fractions of the image"),
)
