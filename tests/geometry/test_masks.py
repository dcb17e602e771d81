"""Pixels of boxes, tiles and pages, and the overlap of masks, by hand and against plain loops."""

import pytest
import torch
from torch.nn import functional as F

from compiled_loss.geometry.masks import index_map_targets, mask_iou, resize_prototypes, stacked_targets
from compiled_loss.geometry.pixels import box_pixels, inside_pixels, list_tiles
from compiled_loss.geometry.products import product
from compiled_loss.pages import PAGE, pages_of, paginate

SIZE = (9, 13)


def boxes_of(n: int, seed: int = 0) -> torch.Tensor:
    """Boxes of all sizes, some of them outside, some with sides on pixels."""
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(n, 2, generator=generator) * 16 - 3
    boxes = torch.cat([low, low + torch.rand(n, 2, generator=generator) * 12], 1)
    boxes[::3] = boxes[::3].round()
    return boxes


def inside(box: torch.Tensor) -> torch.Tensor:
    """`[H, W]` bool by comparison."""
    row, column = torch.arange(SIZE[0])[:, None], torch.arange(SIZE[1])
    return (column >= box[0]) & (column < box[2]) & (row >= box[1]) & (row < box[3])


def test_a_box_holds_the_pixels_from_its_low_sides_up_to_but_without_its_high_ones():
    boxes = torch.tensor([[2.0, 1.0, 4.0, 3.0], [2.1, 0.9, 4.1, 3.0], [2.1, 1, 2.9, 9], [-5, -5, 1, 1]])
    expected = [[2, 1, 2, 2], [3, 1, 2, 2], [0, 1, 0, 8], [0, 0, 1, 1]]
    assert torch.stack(box_pixels(boxes, SIZE), 1).tolist() == expected


def test_broken_reversed_and_distant_boxes_hold_no_pixel():
    nan, inf = float("nan"), float("inf")
    boxes = torch.tensor([[nan, 0, 5, 5], [5.0, 5, 2, 2], [20, 20, 30, 30], [-9, -9, -2, -2], [0, 0, nan, nan]])
    pixels = box_pixels(boxes, SIZE)
    assert (pixels.width * pixels.height).tolist() == [0] * 5
    everything = box_pixels(torch.tensor([[-inf, -inf, inf, inf]]), SIZE)
    assert int(everything.width * everything.height) == 9 * 13


def test_listed_pixels_are_those_that_a_comparison_finds():
    boxes = boxes_of(60)
    tiles = list_tiles(box_pixels(boxes, SIZE), SIZE[1], 130)
    flat = inside_pixels(box_pixels(boxes, SIZE), torch.arange(9 * 13), SIZE[1])
    for n, box in enumerate(boxes):
        expected = inside(box).flatten()
        listed = tiles.pixel[tiles.page == n][tiles.inside[tiles.page == n]]
        assert listed.tolist() == expected.nonzero()[:, 0].tolist()
        assert torch.equal(flat[n], expected)


def test_tiles_beyond_the_capacity_are_left_out_and_the_first_pages_stay_whole():
    boxes = torch.tensor([[0.0, 0.0, 13.0, 9.0], [0, 0, 5, 5], [0, 0, 13, 9]])
    assert pages_of(box_pixels(boxes, SIZE).number).tolist() == [2, 1, 2]
    tiles = list_tiles(box_pixels(boxes, SIZE), SIZE[1], 4)
    assert tiles.page.tolist() == [0, 0, 1, 2]
    assert tiles.inside.sum(1).tolist() == [PAGE, 9 * 13 - PAGE, 25, PAGE]


@pytest.mark.parametrize("width", [1, 3, 10])
def test_every_valid_slot_has_a_place_of_its_own_on_a_page_of_its_group(width):
    group = torch.randint(0, 7, (50,))
    valid = torch.rand(50) < 0.8
    pages = paginate(group, valid, 7, width)
    places = list(zip(pages.page[valid].tolist(), pages.column[valid].tolist(), strict=True))
    assert len(set(places)) == len(places)
    assert torch.equal(pages.group[pages.page[valid]], group[valid])
    assert (pages.page[~valid] == len(pages.group)).all()
    values = torch.randn(50, 2)
    assert torch.equal(pages.read(pages.write(values)[..., 0]), torch.where(valid, values[:, 0], 0.0))


def test_there_are_pages_enough_even_when_one_group_has_every_slot():
    pages = paginate(torch.full((40,), 4), torch.ones(40).bool(), 5, 3)
    assert pages.page.max() < len(pages.group)
    assert len(paginate(torch.zeros(0).long(), torch.zeros(0).bool(), 0, 3).group) == 1


def test_both_forms_of_masks_read_alike():
    batch_idx = torch.tensor([1, 0, 1, -1])
    index_map = torch.randint(0, 4, (2, *SIZE))
    stack = torch.stack([index_map[1] == 1, index_map[0] == 1, index_map[1] == 2, torch.zeros(SIZE).bool()])
    row, pixel = torch.tensor([[0], [1], [2]]), torch.randint(0, 9 * 13, (3, 20))
    image, everything = torch.tensor([1, 0]), torch.arange(9 * 13)
    rows = torch.tensor([[0, 2], [1, 1]])
    expected = stack.flatten(1)[row, pixel].float()
    for truth in (index_map_targets(index_map, batch_idx), stacked_targets(stack)):
        assert torch.equal(truth.at(row, pixel, torch.float32), expected)
        assert torch.equal(truth.on_pages(rows, image, everything, torch.float32), stack[rows].flatten(2).float())


def test_prototypes_of_the_right_size_stay_and_others_are_interpolated():
    prototypes = torch.randn(2, 3, 4, 5)
    assert resize_prototypes(prototypes, (4, 5)) is prototypes
    prototypes.requires_grad_()
    for size in ((8, 10), (7, 3), (1, 1), (4, 11)):
        expected = F.interpolate(prototypes, size, mode="bilinear", align_corners=False)
        got = resize_prototypes(prototypes, size)
        assert torch.equal(got, expected)
        weights = torch.randn_like(expected)
        gradients = [torch.autograd.grad((x * weights).sum(), prototypes)[0] for x in (got, expected)]
        torch.testing.assert_close(*gradients, rtol=0, atol=1e-5)


def test_the_overlap_of_masks_equals_a_loop_for_true_masks_of_any_size():
    slots, images = 40, 2
    for size in (SIZE, (18, 26), (5, 4)):
        coefficients, prototypes = torch.randn(slots, 4), torch.randn(images, 4, *SIZE)
        batch_idx = torch.tensor([0, 1, 1])
        masks = (torch.rand(3, *size) < 0.4).float()
        row, valid = torch.randint(0, 3, (slots,)), torch.rand(slots) < 0.9
        boxes = boxes_of(slots)
        got = mask_iou(coefficients, prototypes, boxes, batch_idx[row], row, valid, stacked_targets(masks))
        down = [i * size[0] // SIZE[0] for i in range(SIZE[0])]
        right = [i * size[1] // SIZE[1] for i in range(SIZE[1])]
        for p in range(slots):
            logits = (coefficients[p, :, None, None] * prototypes[batch_idx[row[p]]]).sum(0)
            predicted, true = (logits > 0) & inside(boxes[p]), masks[row[p]][down][:, right] > 0.5
            union = (predicted | true).sum().item()
            expected = (predicted & true).sum().item() / union if union and valid[p] else 0
            assert got[p].item() == pytest.approx(expected, abs=1e-6)


def test_masks_of_broken_predictions_and_empty_masks_do_not_overlap():
    zero = torch.tensor([0])
    box = torch.tensor([[0.0, 0.0, 13.0, 9.0]])
    for prototype, mask in ((float("nan"), 1.0), (-1.0, 1.0), (1.0, 0.0), (-1.0, 0.0)):
        truth = stacked_targets(torch.full((1, *SIZE), mask))
        iou = mask_iou(torch.ones(1, 1), torch.full((1, 1, *SIZE), prototype), box, zero, zero, zero == 0, truth)
        assert iou.item() == 0


def test_products_keep_their_precision_under_autocast():
    a, b = torch.randn(2, 3, 4), torch.randn(2, 4, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(product(a, b), (a.double() @ b.double()).float())
