"""A picture from its file, as people see it."""

from __future__ import annotations

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


def read(path: Path, size: tuple[int, int]) -> Image.Image:
    """The picture in RGB, turned as its EXIF orientation says, which is how it was labelled.

    Args:
        path: of the file.
        size: width and height in pixels, as the labels say.

    Raises:
        DataError: for what is no picture, has more than 8 bits a channel, or another size.
    """
    picture, orientation = _open(path, size, load=True)
    # By way of RGBA, since a palette with transparency is not converted without a warning.
    picture = picture.convert("RGBA").convert("RGB") if "transparency" in picture.info else picture.convert("RGB")
    return picture.transpose(TURNS[orientation]) if orientation in TURNS else picture


def check(path: Path, size: tuple[int, int]) -> None:
    """What `read` refuses, as far as the beginning of the file tells."""
    _open(path, size, load=False)


def _open(path: Path, size: tuple[int, int], load: bool) -> tuple[Image.Image, int]:
    """The picture as stored, and its orientation."""
    try:
        with Image.open(path) as picture:
            if load:
                picture.load()
            # A TIFF tells its size and its pixels as turned already. What a PNG says behind its pixels takes reading
            # them, which only a size that does not fit is reason for.
            early = picture.format != "PNG" or "exif" in picture.info or picture.size != size
            told = load or (early and picture.format != "TIFF")
            orientation = picture.getexif().get(ORIENTATION, 1) if told else 1
    except FileNotFoundError:
        raise DataError(f"{path}: no such picture, though the labels list it") from None
    except Exception as error:  # a damaged file fails in many ways, inside the decoders
        raise DataError(f"{path}: not a readable picture ({error})") from error
    if picture.mode[0] in "IF":
        raise DataError(
            f"{path}: has more than 8 bits a channel (mode {picture.mode}); how bright its values are to be is not "
            "known here: scale all pictures alike to 8 bits first"
        )
    shown = picture.size[::-1] if orientation in (5, 6, 7, 8) else picture.size
    if shown != size:
        turned = f" (as turned by its EXIF orientation {orientation}; are the labels of the picture as stored?)"
        hint = turned if orientation in TURNS else ""
        raise DataError(f"{path}: is {shown[0]}x{shown[1]}{hint}, the labels say {size[0]}x{size[1]}")
    return picture, orientation
