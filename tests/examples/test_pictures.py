"""Pictures as people see them: turned by their EXIF orientation, refused where their brightness is not known."""

import numpy as np
import pytest
from demo import pictures
from demo.labels import DataError
from PIL import Image

UPRIGHT = np.zeros((48, 64, 3), np.uint8)
UPRIGHT[:12, :16] = 255  # a white corner at the top left
# How a picture is stored that each orientation shows upright.
STORED = {
    1: UPRIGHT,
    2: UPRIGHT[:, ::-1],
    3: UPRIGHT[::-1, ::-1],
    4: UPRIGHT[::-1],
    5: UPRIGHT.transpose(1, 0, 2),
    6: np.rot90(UPRIGHT, 1),
    7: np.rot90(UPRIGHT[::-1], 1),
    8: np.rot90(UPRIGHT, -1),
}


def save(path, orientation):
    exif = Image.Exif()
    exif[pictures.ORIENTATION] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED.get(orientation, UPRIGHT)))
    stored.save(path, exif=exif if path.suffix == ".tiff" else exif.tobytes())
    return path


@pytest.mark.parametrize("kind", ["png", "tiff", "webp", "jpg"])
@pytest.mark.parametrize("orientation", [*STORED, 0, 9])
def test_a_turned_picture_is_shown_upright(tmp_path, kind, orientation):
    path = save(tmp_path / f"a.{kind}", orientation)
    pictures.check(path, (64, 48))
    shown = np.asarray(pictures.read(path, (64, 48))).astype(int)
    assert np.abs(shown - UPRIGHT).mean() < 3


def test_an_orientation_behind_the_pixels_of_a_png_is_found(tmp_path):
    path = save(tmp_path / "a.png", 6)
    data = path.read_bytes()
    at = data.index(b"eXIf") - 4
    chunk = data[at : at + 12 + int.from_bytes(data[at : at + 4], "big")]
    path.write_bytes(data.replace(chunk, b"")[:-12] + chunk + data[-12:])  # before IEND
    pictures.check(path, (64, 48))
    assert np.array_equal(np.asarray(pictures.read(path, (64, 48))), UPRIGHT)


def test_labels_of_the_picture_as_stored_are_refused_with_the_reason(tmp_path):
    path = save(tmp_path / "a.jpg", 6)
    for look in (pictures.check, pictures.read):
        with pytest.raises(DataError, match=r"a\.jpg: is 64x48 \(as turned by its EXIF orientation 6.*say 48x64"):
            look(path, (48, 64))


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_more_than_8_bits_are_refused(tmp_path, dtype):
    path = tmp_path / "a.tiff"
    Image.fromarray(np.full((48, 64), 1000, dtype)).save(path)
    for look in (pictures.check, pictures.read):
        with pytest.raises(DataError, match=r"a\.tiff: has more than 8 bits a channel"):
            look(path, (64, 48))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_pictures_of_8_bits_and_less_keep_their_brightness(tmp_path, mode):
    path = tmp_path / ("a.tiff" if mode == "CMYK" else "a.png")
    Image.fromarray(UPRIGHT).convert(mode).save(path)
    pictures.check(path, (64, 48))
    assert np.abs(np.asarray(pictures.read(path, (64, 48))).astype(int) - UPRIGHT).max() == 0


def test_a_palette_with_transparency_is_read_without_a_warning(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(UPRIGHT).convert("P").save(path, transparency=bytes([0, 128]))
    assert np.array_equal(np.asarray(pictures.read(path, (64, 48))), UPRIGHT)


@pytest.mark.parametrize("name", ["nothing.png", "a\0b.png", "x" * 300 + ".png", ".", "\ud800.png"])
def test_names_that_are_no_files_are_refused(tmp_path, name):
    for look in (pictures.check, pictures.read):
        with pytest.raises(DataError, match=r"no such picture|not a readable picture"):
            look(tmp_path / name, (64, 48))
