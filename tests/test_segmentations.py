"""Masks from COCO outlines and from YOLO batches."""

import sys

import pytest
import torch

from compiled_loss.segmentations import draw
from compiled_loss.sources import from_coco, from_yolo

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
        draw(RUNS, SIZE, SIZE, "s")


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
