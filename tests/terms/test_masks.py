"""The mask terms, by hand and against plain loops in float64."""

import math

import pytest
import torch
from torch.nn import functional as F

from compiled_loss.geometry.masks import MaskTargets, index_map_targets, stacked_targets
from compiled_loss.terms.masks import mask_cross_entropy, mask_overflow, semantic_error
from compiled_loss.types import Assignment

SIZE = (11, 14)
FORMS = pytest.mark.parametrize("tiles", [None, 40, torch.zeros(40), "traced"], indirect=True)


@pytest.fixture
def tiles(request, monkeypatch):
    """Tiles as planned, as needed, and as in a traced graph without a plan, which must not ask what is needed."""
    if request.param == "traced":
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
        return None
    return request.param


def assignment_of(image: torch.Tensor, row: torch.Tensor, valid: torch.Tensor) -> Assignment:
    return Assignment(image, torch.arange(len(row)), row, valid, valid.float(), torch.tensor(0))


class Scene:
    """Rows of two images and slots that hold some of them, one row far more often than the others."""

    def __init__(self) -> None:
        self.batch_idx = torch.tensor([0, 0, 1, 1])
        self.boxes = torch.tensor(
            [[1.0, 2, 9.5, 9], [0, 0, 14, 11], [3.2, 3.2, 3.8, 3.8], [-4, 5, 5.5, 20]], dtype=torch.float64
        )
        row = torch.tensor([1] * 25 + [0, 3, 2, 0, 3])
        valid = torch.ones(30).bool()
        valid[[4, 28]] = False
        self.assignment = assignment_of(self.batch_idx[row], row, valid)
        self.coefficients = torch.randn(30, 3, dtype=torch.float64, requires_grad=True)
        self.prototypes = torch.randn(2, 3, *SIZE, dtype=torch.float64, requires_grad=True)
        self.masks = torch.rand(4, *SIZE, dtype=torch.float64)
        self.index_map = torch.randint(0, 4, (2, *SIZE))

    @property
    def inputs(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self.coefficients, self.prototypes

    def by_loop(self, masks: torch.Tensor) -> torch.Tensor:
        values = []
        for p, row in enumerate(self.assignment.row.tolist()):
            value = torch.zeros((), dtype=torch.float64)
            x1, y1, x2, y2 = self.boxes[row].tolist()
            for y in range(SIZE[0]):
                for x in range(SIZE[1]):
                    if self.assignment.valid[p] and x1 <= x < x2 and y1 <= y < y2:
                        logit = (self.coefficients[p] * self.prototypes[self.batch_idx[row], :, y, x]).sum()
                        value = value + F.binary_cross_entropy_with_logits(logit, masks[row, y, x])
            values.append(value / (SIZE[0] * SIZE[1]) / ((x2 - x1) * (y2 - y1) / (SIZE[0] * SIZE[1])))
        return torch.stack(values)


def test_logits_of_zero_cost_ln_2_for_every_pixel_in_the_box_over_its_area():
    one = assignment_of(torch.tensor([0]), torch.tensor([0]), torch.tensor([True]))
    truth = stacked_targets(torch.tensor([[[0.0, 1.0, 0.3]] * 3]))
    # columns 1 and 2, rows 0 and 1: four pixels in a box of area 1.75 * 2
    box = torch.tensor([[0.5, 0.0, 2.25, 2.0]])
    value = mask_cross_entropy(torch.zeros(1, 1), torch.ones(1, 1, 3, 3), one, box, truth)
    assert value.item() == pytest.approx(4 * math.log(2) / 3.5)


@FORMS
@pytest.mark.parametrize("slots_per_row", [1, 4, 10])
def test_the_mask_term_and_its_gradients_equal_a_loop(tiles, slots_per_row):
    scene = Scene()
    indexed = torch.stack([scene.index_map[i] == n for i, n in ((0, 1), (0, 2), (1, 1), (1, 2))]).double()
    for masks, truth in (
        (scene.masks, stacked_targets(scene.masks)),
        (indexed, index_map_targets(scene.index_map, scene.batch_idx)),
    ):
        pages = -(-10 // slots_per_row)
        room = tiles.repeat(pages) if isinstance(tiles, torch.Tensor) else tiles and tiles * pages
        got = mask_cross_entropy(
            *scene.inputs, scene.assignment, scene.boxes, truth, slots_per_row=slots_per_row, tiles=room
        )
        expected = scene.by_loop(masks)
        torch.testing.assert_close(got, expected)
        weight = torch.linspace(1, 2, 30, dtype=torch.float64)
        gradients = [torch.autograd.grad((x * weight).sum(), scene.inputs) for x in (got, expected)]
        torch.testing.assert_close(*gradients)


@FORMS
def test_a_box_without_a_pixel_costs_nothing(tiles):
    scene = Scene()
    row = scene.assignment.row == 2
    got = mask_cross_entropy(*scene.inputs, scene.assignment, scene.boxes, stacked_targets(scene.masks), tiles=tiles)
    assert (got[row] == 0).all()
    flat = scene.boxes.clone()
    flat[1, 2:] = flat[1, :2]
    got = mask_cross_entropy(*scene.inputs, scene.assignment, flat, stacked_targets(scene.masks), tiles=tiles)
    assert got.isfinite().all()


@FORMS
def test_batches_without_rows_or_slots_cost_nothing_and_have_gradients(tiles):
    none = torch.zeros(0).long()
    coefficients = torch.zeros(0, 3, requires_grad=True)
    prototypes = torch.randn(2, 3, *SIZE, requires_grad=True)
    for truth in (stacked_targets(torch.zeros(0, *SIZE)), index_map_targets(torch.zeros(2, *SIZE).long(), none)):
        empty = assignment_of(none, none, none.bool())
        value = mask_cross_entropy(coefficients, prototypes, empty, torch.zeros(0, 4), truth, tiles=tiles)
        assert value.shape == (0,)
        gradients = torch.autograd.grad(value.sum(), (coefficients, prototypes))
        assert not any(x.any() for x in gradients)


@FORMS
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_broken_prototypes_of_one_image_leave_the_other_image_alone(tiles, value):
    scene, broken = Scene(), Scene()
    broken.coefficients = scene.coefficients
    broken.prototypes = scene.prototypes.detach().clone()
    broken.prototypes[0] = value
    broken.prototypes.requires_grad_()
    other = (scene.assignment.image == 1) & scene.assignment.valid
    results = []
    for s in (scene, broken):
        got = mask_cross_entropy(*s.inputs, scene.assignment, s.boxes, stacked_targets(scene.masks), tiles=tiles)
        gradients = torch.autograd.grad(got[other].sum(), s.inputs)
        results.append((got[other], gradients[0][other], gradients[1][1]))
    torch.testing.assert_close(*results)


def test_what_does_not_fit_into_the_planned_tiles_is_counted():
    scene = Scene()
    # pages of 10: three of row 1, one each of rows 0 and 3; 154 pixels are 3 tiles, the others one; row 2 has none
    needed = 3 * 3 + 1 + 1
    for tiles, expected in ((needed, 0), (needed - 1, 1), (needed - 4, 2), (1, 4), (None, 0)):
        cut = mask_overflow(scene.assignment, scene.boxes, SIZE, tiles=tiles)
        assert cut.item() == expected
    truth = stacked_targets(scene.masks)
    whole = mask_cross_entropy(*scene.inputs, scene.assignment, scene.boxes, truth)
    cut = mask_cross_entropy(*scene.inputs, scene.assignment, scene.boxes, truth, tiles=5)
    kept = torch.arange(30) < 11  # row 1's first ten valid slots have their pixels, and so have rows 0 and 3
    torch.testing.assert_close(cut[kept | (scene.assignment.row != 1)], whole[kept | (scene.assignment.row != 1)])
    assert (cut <= whole + 1e-9).all()


def test_extreme_logits_have_finite_terms_and_gradients():
    scene = Scene()
    for extreme in (-1e4, 1e4):
        coefficients = torch.full((30, 3), extreme, requires_grad=True)
        prototypes = torch.ones(2, 3, *SIZE, requires_grad=True)
        truth = stacked_targets(scene.masks.float())
        value = mask_cross_entropy(coefficients, prototypes, scene.assignment, scene.boxes.float(), truth).sum()
        assert value.isfinite()
        assert all(x.isfinite().all() for x in torch.autograd.grad(value, (coefficients, prototypes)))


def test_the_semantic_term_by_hand():
    logits = torch.zeros(1, 2, 1, 2)
    value = semantic_error(logits, torch.tensor([[[1, 0]]]), torch.tensor([[[True, False]]])).mean()
    # class 0 has no pixel, class 1 one of two: p = (0.5, 0.5)
    dice = ((1 - 1 / 2) + (1 - 2 / 3)) / 2
    assert value.item() == pytest.approx(math.log(2) / 2 + dice / 2)


@pytest.mark.parametrize("size", [(4, 5), (8, 10), (2, 3)])
def test_the_semantic_term_equals_a_loop_for_class_maps_of_any_size(size):
    logits = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    class_map, covered = torch.randint(-1, 5, (2, *size)), torch.rand(2, *size) < 0.6
    true = torch.zeros(2, 3, 4, 5, dtype=torch.float64)
    for b in range(2):
        for y in range(4):
            for x in range(5):
                place = (b, y * size[0] // 4, x * size[1] // 5)
                if covered[place] and 0 <= class_map[place] < 3:
                    true[b, class_map[place], y, x] = 1
    p = logits.sigmoid()
    dice = 1 - (2 * (p * true).sum((2, 3)) + 1) / (p.sum((2, 3)) + true.sum((2, 3)) + 1)
    expected = F.binary_cross_entropy_with_logits(logits, true) / 2 + dice.mean() / 2
    got = semantic_error(logits, class_map, covered).mean()
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(torch.autograd.grad(got, logits), torch.autograd.grad(expected, logits))


def test_maps_of_bytes_have_no_class_where_nothing_covers_them():
    logits, covered = torch.randn(1, 300, 2, 2), torch.tensor([[[True, False], [False, True]]])
    class_map = torch.tensor([[[255, 0], [3, 7]]])
    wanted = semantic_error(logits, class_map, covered)
    torch.testing.assert_close(semantic_error(logits, class_map.to(torch.uint8), covered), wanted, rtol=0, atol=0)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_gradient_of_prototypes_has_their_layout(layout):
    one = assignment_of(torch.tensor([1]), torch.tensor([0]), torch.tensor([True]))
    truth, box = MaskTargets(torch.ones(2, 4, 4), torch.tensor([0, 1]), None), torch.tensor([[0.0, 1.0, 2.0, 4.0]])
    prototypes = torch.randn(2, 3, 4, 4).contiguous(memory_format=layout).requires_grad_()
    total = mask_cross_entropy(torch.ones(1, 3), prototypes, one, box, truth, tiles=2).sum()
    (gradient,) = torch.autograd.grad(total, prototypes)
    assert gradient.abs().sum() > 0
    assert gradient.stride() == prototypes.stride()
