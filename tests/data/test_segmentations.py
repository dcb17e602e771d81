"""Masks from COCO outlines and from YOLO batches."""

import sys
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compiled_loss.data.segmentations import check_segmentation, decode_runs, draw
from compiled_loss.data.sources import from_coco, from_yolo

SIZE = (8, 12)
RUNS = {"size": [2, 3], "counts": [1, 2, 3]}  # down the columns: one 0, two 1, three 0


def test_polygons_are_drawn_in_pixels_of_the_mask():
    mask = draw([[0, 0, 4, 0, 4, 8, 0, 8], [8, 0, 12, 0, 12, 2, 8, 2]], SIZE, (4, 6), "s")
    assert mask.dtype == torch.uint8
    assert mask.tolist() == [[1, 1, 0, 0, 1, 1], [1, 1, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0]]


def test_run_lengths_are_read_at_the_nearest_pixel():
    assert draw(RUNS, (2, 3), (2, 3), "s").tolist() == [[0, 1, 0], [1, 0, 0]]
    assert draw(RUNS, (2, 3), (4, 3), "s").tolist() == [[0, 1, 0], [0, 1, 0], [1, 0, 0], [1, 0, 0]]
    assert draw(RUNS, (2, 3), (1, 1), "s").tolist() == [[0]]


def test_compressed_run_lengths_are_those_of_the_list():
    from pycocotools import mask as coco  # noqa: PLC0415

    compressed = dict(coco.frPyObjects(RUNS, 2, 3))  # pyright: ignore[reportArgumentType,reportCallIssue]
    assert isinstance(compressed["counts"], bytes)
    text = {**compressed, "counts": compressed["counts"].decode()}
    for runs in (compressed, text):
        assert torch.equal(draw(runs, (2, 3), (2, 3), "s"), draw(RUNS, (2, 3), (2, 3), "s"))


@pytest.mark.parametrize("segmentation", [None, [], {}])
def test_what_has_no_outline_has_no_pixel(segmentation):
    assert not draw(segmentation, SIZE, SIZE, "s").any()


@pytest.mark.parametrize("segmentation", [[[0, 0, 1, 1]], [1.0, 2.0, 3.0], {"counts": "x"}, [[0, 0, 1, 1, 2, 2, 3]]])
def test_other_forms_are_refused_by_name(segmentation):
    with pytest.raises(ValueError, match=r"^a\['segmentation'\]: expected"):
        draw(segmentation, SIZE, SIZE, "a['segmentation']")


def test_the_lack_of_pycocotools_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(ImportError, match="needs pycocotools"):
        draw([[0, 0, 4, 0, 4, 8]], SIZE, SIZE, "s")
    assert draw(RUNS, (2, 3), (2, 3), "s").any()  # run lengths do without


def test_coco_annotations_get_a_mask_each_in_the_order_of_the_rows():
    square = {"bbox": [0, 0, 4, 4], "category_id": 0, "segmentation": [[0, 0, 4, 0, 4, 4, 0, 4]]}
    crowd = {**square, "iscrowd": 1, "segmentation": RUNS}
    bare = {"bbox": [2, 2, 4, 4], "category_id": 1}
    t = from_coco([[square, crowd], [], [bare, square]], SIZE, mask_size=(4, 6))
    assert t.masks is not None
    assert t.masks.shape == (3, 4, 6)
    assert t.masks.sum((1, 2)).tolist() == [4, 0, 4]
    assert from_coco([[square]], SIZE).masks is None
    empty = from_coco([[], []], SIZE, mask_size=(4, 6)).masks
    assert empty is not None
    assert empty.shape == (0, 4, 6)


def test_yolo_batches_bring_index_maps_or_stacked_masks_and_the_class_of_every_pixel():
    rows = {"batch_idx": torch.zeros(2), "cls": torch.ones(2), "bboxes": torch.full((2, 4), 0.5)}
    maps = torch.tensor([[[0.0, 1.0], [2.0, 2.0]]])
    t = from_yolo(rows | {"masks": maps, "sem_masks": maps.int()})
    assert t.index_map is not None
    assert t.class_map is not None
    assert t.index_map.tolist() == t.class_map.tolist() == [[[0, 1], [2, 2]]]
    t = from_yolo(rows | {"masks": torch.full((2, 3, 3), 0.5)}, index_maps=False)
    assert t.index_map is None
    assert t.masks is not None
    with pytest.raises(ValueError, match=r"batch\['masks'\]: expected whole numbers, got 0.5 in place \[0, 0, 0\]"):
        from_yolo(rows | {"masks": torch.full((1, 3, 3), 0.5)})
    with pytest.raises(ValueError, match="masks"):
        from_yolo(rows | {"masks": torch.zeros(3, 3, 3)}, index_maps=False)
    with pytest.raises(ValueError, match=r"batch\['masks'\]\[0\]: expected numbers up to the image's 2 rows, got 255"):
        from_yolo(rows | {"masks": (maps > 0) * 255})
    with pytest.raises(ValueError, match="batch_idx"):
        from_yolo(rows | {"masks": maps, "batch_idx": torch.ones(2)})


NAN, HUGE = float("nan"), 10**400
SQUARE = [0, 0, 4, 0, 4, 4, 0, 4]


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([[*SQUARE[:-1], NAN]], "pixels, at most 4 image sizes outside the image of 12x8, got nan"),
        ([[*SQUARE[:-1], float("inf")]], "pixels, at most 4 image sizes outside"),
        ([[*SQUARE[:-1], HUGE]], "pixels, at most 4 image sizes outside"),
        ([[*SQUARE[:-1], 41]], "pixels, at most 4 image sizes outside the image of 12x8, got 41"),
        ([SQUARE, [*SQUARE[:-2], -49, 0]], "pixels, at most 4 image sizes outside the image of 12x8, got -49"),
        ([[*SQUARE[:-1], "4"]], "polygons, each one list of x, y"),
        ([[*SQUARE[:-1], None]], "polygons, each one list of x, y"),
        ([[*SQUARE[:-1], True]], "polygons, each one list of x, y"),
        ([[[0, 0], [4, 0], [4, 4], [0, 4], [0, 2], [0, 1]]], "polygons, each one list of x, y"),
        ([SQUARE, []], "polygons, each one list of x, y"),
        ([[0] * 12] * 8, "rows of pixels"),
        (torch.zeros(8, 12), "polygons, each one list of x, y"),
        ("outline", "polygons, each one list of x, y"),
        ({"counts": [96]}, "run lengths with counts and size"),
        ({"size": [8, 12], "counts": None}, "counts of 0 or more, a list or compressed, got None"),
        ({"size": [8, 12], "counts": [95]}, "run lengths of 8 x 12 = 96 pixels together, got 95"),
        ({"size": [8, 12], "counts": [0, 99999]}, "pixels together, got 99999"),
        ({"size": [8, 12], "counts": [98, -2]}, "counts of 0 or more"),
        ({"size": [8, 12], "counts": [95.5, 0.5]}, "counts of 0 or more"),
        ({"size": [8, 12], "counts": [95, True]}, "counts of 0 or more"),
        ({"size": [8, 12], "counts": "~"}, "counts of 0 or more"),
        ({"size": [8, 12], "counts": ""}, "pixels together, got 0"),
        ({"size": [8, 12], "counts": "T" * 40}, "counts of 0 or more"),
        ({"size": [8, 12], "counts": "é"}, "counts of 0 or more"),
        ({"size": [12, 8], "counts": [96]}, r"run lengths of the image's size \[8, 12\], got size \[12, 8\]"),
        ({"size": 96, "counts": [96]}, "run lengths of the image's size"),
        ({"size": ["8", "12"], "counts": [96]}, "run lengths of the image's size"),
    ],
)
def test_every_number_is_looked_at_before_it_is_drawn(segmentation, message):
    for look in (lambda: draw(segmentation, SIZE, SIZE, "s"), lambda: check_segmentation(segmentation, SIZE, "s")):
        with pytest.raises(ValueError, match=f"^s: expected .*{message}"):
            look()


def test_arrays_are_as_good_as_lists():
    numpy = pytest.importorskip("numpy")
    drawn = draw([SQUARE], SIZE, SIZE, "s")
    for kind in (numpy.array, torch.tensor, tuple):
        assert torch.equal(draw([kind(SQUARE)], SIZE, SIZE, "s"), drawn)
        runs = {"size": kind([2, 3]), "counts": kind([1, 2, 3])}
        assert torch.equal(draw(runs, (2, 3), (2, 3), "s"), draw(RUNS, (2, 3), (2, 3), "s"))
    assert torch.equal(
        draw(RUNS | {"counts": [numpy.int64(1), 2, 3]}, (2, 3), (2, 3), "s"), draw(RUNS, (2, 3), (2, 3), "s")
    )


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1), st.sampled_from([0.02, 0.5, 0.98]))
def test_compressed_masks_of_pycocotools_are_decoded_as_it_decodes_them(height, width, seed, share):
    from pycocotools import mask as coco  # noqa: PLC0415

    mask = torch.rand(height, width, generator=torch.Generator().manual_seed(seed)) < share
    compressed: Any = dict(coco.encode(mask.numpy().astype("uint8", order="F")))
    assert torch.equal(decode_runs(compressed, (height, width), "s"), mask.byte())


def test_long_runs_are_decoded():
    runs = {"size": [3000, 2000], "counts": [1, 40, 2_999_959, 2_500_000, 500_000]}
    from pycocotools import mask as coco  # noqa: PLC0415

    compressed: Any = coco.frPyObjects(runs, 3000, 2000)  # pyright: ignore[reportArgumentType,reportCallIssue]
    assert torch.equal(decode_runs(compressed, (3000, 2000), "s"), decode_runs(runs, (3000, 2000), "s"))
