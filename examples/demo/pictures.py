"""A picture from its file, as people see it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from demo.labels import DataError

ORIENTATION = 0x0112
_Turn = Image.Transpose
# What shows a picture that was stored with this EXIF orientation; 1 needs nothing.
TURNS = {
    2: _Turn.FLIP_LEFT_RIGHT,
    3: _Turn.ROTATE_180,
    4: _Turn.FLIP_TOP_BOTTOM,
    5: _Turn.TRANSPOSE,
    6: _Turn.ROTATE_270,
    7: _Turn.TRANSVERSE,
    8: _Turn.ROTATE_90,
}


# Of files that are taken for pictures where a folder is all that says which there are.
SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class File:
    """A picture in a file of its own."""

    path: Path

    def check(self, size: tuple[int, int]) -> None:
        check(self.path, size)

    def read(self, size: tuple[int, int]) -> Image.Image:
        return read(self.path, size)


def read(path: Path, size: tuple[int, int]) -> Image.Image:
    """The picture in RGB, turned as its EXIF orientation says, which is how it was labelled.

    Args:
        path: of the file.
        size: width and height in pixels, as the labels say.

    Raises:
        DataError: for what is no picture, has more than 8 bits a channel, or another size.
    """
    picture, orientation = _open(path, size, load=True)
    _compare(path, picture, orientation, size)
    picture = in_colour(picture)
    return picture.transpose(TURNS[orientation]) if orientation in TURNS else picture


def check(path: Path, size: tuple[int, int]) -> None:
    """What `read` refuses, as far as the beginning of the file tells."""
    _compare(path, *_open(path, size, load=False), size)


def size_of(path: Path) -> tuple[int, int]:
    """Width and height of the picture as it is shown."""
    picture, orientation = _open(path, None, load=False)
    return _shown(picture, orientation)


def in_colour(picture: Image.Image) -> Image.Image:
    """RGB; by way of RGBA, since a palette with transparency is not converted without a warning."""
    return picture.convert("RGBA").convert("RGB") if "transparency" in picture.info else picture.convert("RGB")


def _open(path: Path, size: tuple[int, int] | None, load: bool) -> tuple[Image.Image, int]:
    """The picture as stored, and its orientation."""
    try:
        with Image.open(path) as picture:
            if load:
                picture.load()
            # A TIFF tells its size and its pixels as turned already. What a PNG says behind its pixels takes reading
            # them, which only a size that does not fit, or is not known, is reason for.
            early = picture.format != "PNG" or "exif" in picture.info or picture.size != size
            told = load or (early and picture.format != "TIFF")
            orientation = picture.getexif().get(ORIENTATION, 1) if told else 1
    except FileNotFoundError:
        raise DataError(f"{path}: no such picture, though the labels list it") from None
    except Exception as error:  # a damaged file fails in many ways, inside the decoders
        raise DataError(f"{path}: not a readable picture ({error})") from error
    if too_deep(picture):
        raise DataError(
            f"{path}: has more than 8 bits a channel (mode {picture.mode}); how bright its values are to be is not "
            "known here: scale all pictures alike to 8 bits first"
        )
    return picture, orientation


def too_deep(picture: Image.Image) -> bool:
    """Whether its channels have more than 8 bits."""
    return picture.mode[0] in "IF"


def _shown(picture: Image.Image, orientation: int) -> tuple[int, int]:
    width, height = picture.size
    return (height, width) if orientation in (5, 6, 7, 8) else (width, height)


def _compare(path: Path, picture: Image.Image, orientation: int, size: tuple[int, int]) -> None:
    shown = _shown(picture, orientation)
    if shown != size:
        turned = f" (as turned by its EXIF orientation {orientation}; are the labels of the picture as stored?)"
        hint = turned if orientation in TURNS else ""
        raise DataError(f"{path}: is {shown[0]}x{shown[1]}{hint}, the labels say {size[0]}x{size[1]}")
