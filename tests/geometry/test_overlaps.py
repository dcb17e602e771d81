"""Further overlaps and box terms: against float64 code from the papers, by hand, and by their properties."""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from compiled_loss import KFIoU, KullbackLeibler, OneMinus, WIoU, overlaps
from compiled_loss.geometry.gaussians import wasserstein
from tests.reference import overlaps as reference

SIZE = (480, 640)
Overlap = Callable[[Tensor, Tensor], Tensor]
UPRIGHT: dict[str, tuple[Overlap, Overlap]] = {
    "EIoU": (overlaps.eiou, reference.eiou),
    "SIoU": (overlaps.siou, reference.siou),
    "Inner-IoU": (overlaps.InnerIoU(1.25), partial(reference.inner_iou, ratio=1.25)),
    "Inner-EIoU": (
        overlaps.InnerIoU(0.75, overlaps.eiou),
        lambda a, b: reference.eiou(a, b) - reference.iou(a, b) + reference.inner_iou(a, b, 0.75),
    ),
    "MPDIoU": (overlaps.MPDIoU(SIZE), partial(reference.mpdiou, height=480, width=640)),
    "NWD": (overlaps.NWD(20.0), partial(reference.nwd, constant=20.0)),
}
ORIENTED: dict[str, tuple[Overlap, Overlap]] = {
    "KFIoU": (overlaps.kfiou, reference.kfiou),
    "GWD": (overlaps.GWD(2.0), partial(reference.gwd, tau=2.0)),
}
TERMS: dict[str, tuple[Callable[[Tensor, Tensor, Tensor], Tensor], Overlap]] = {
    "WIoU v1": (WIoU(version=1), partial(reference.wiou, mean=None)),
    "WIoU v3": (WIoU(mean=0.6, momentum=0.0), partial(reference.wiou, mean=0.6)),
    "KFIoU loss": (KFIoU(), reference.kfiou_loss),
    "KLD": (KullbackLeibler(), partial(reference.kld_loss, tau=1.0)),
    "KLD, tau 2": (KullbackLeibler(2.0), partial(reference.kld_loss, tau=2.0)),
}
OVERLAPS = UPRIGHT | ORIENTED


def in_cells(boxes: Tensor, stride: Tensor | float) -> Tensor:
    """Boxes in units of so many pixels; angles stay."""
    return torch.cat([boxes[:, :4] / stride, boxes[:, 4:]], 1)


def is_oriented(name: str) -> bool:
    return name in ORIENTED or name.startswith(("KFIoU", "KLD"))


def pairs(oriented: bool, n: int = 200, spread: float = 40.0) -> tuple[Tensor, Tensor]:
    """Float64 boxes of 2 to 90 pixels, some of which overlap."""
    found = []
    for seed in (0, 1):
        generator = torch.Generator().manual_seed(seed)
        centre = torch.rand(n, 2, dtype=torch.float64, generator=generator) * spread + 100
        size = 2 + torch.rand(n, 2, dtype=torch.float64, generator=generator) * 88
        angle = torch.rand(n, 1, dtype=torch.float64, generator=generator) * 6
        corners = torch.cat([centre - size / 2, centre + size / 2], 1)
        found.append(torch.cat([centre, size, angle], 1) if oriented else corners)
    return found[0], found[1]


def function(name: str) -> Overlap:
    return OVERLAPS[name][0] if name in OVERLAPS else lambda a, b: TERMS[name][0](a, b, a.new_ones(len(a)))


def with_gradients(f: Overlap, *boxes: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    leaves = [x.detach().clone().requires_grad_() for x in boxes]
    value = f(*leaves)
    return value.detach(), torch.autograd.grad(value.sum(), leaves)


def assert_agrees(got: Overlap, wanted: Overlap, oriented: bool) -> None:
    boxes = pairs(oriented)
    value, gradients = with_gradients(got, *(x.float() for x in boxes))
    expected, slopes = with_gradients(wanted, *boxes)
    torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=2e-6)
    for x, y in zip(gradients, slopes, strict=True):
        torch.testing.assert_close(x.double(), y, rtol=1e-4, atol=1e-5 * y.abs().max().item())
    double, slopes64 = with_gradients(got, *boxes)
    torch.testing.assert_close(double, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(slopes64[0], slopes[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", OVERLAPS)
def test_values_and_gradients_of_overlaps_are_the_papers(name):
    assert_agrees(*OVERLAPS[name], is_oriented(name))


@pytest.mark.parametrize("name", TERMS)
def test_values_and_gradients_of_terms_are_the_papers(name):
    term, wanted = TERMS[name]
    assert_agrees(lambda a, b: term(a, b, a.new_ones(len(a))), wanted, is_oriented(name))


def test_siou_by_hand():
    # Unit boxes whose centres are (3, 4) apart: sin a = 0.8, the angle cost sin 2a = 0.96, the hull 4 by 5.
    a, b = torch.tensor([0.0, 0, 1, 1]), torch.tensor([3.0, 4, 4, 5])
    distance = 2 - math.exp(-1.04 * 9 / 16) - math.exp(-1.04 * 16 / 25)
    assert overlaps.siou(a, b).item() == pytest.approx(-distance / 2, rel=1e-5)
    # One centre, twice as wide: only the shape costs.
    wide = torch.tensor([-0.5, 0, 1.5, 1])
    assert overlaps.siou(a, wide).item() == pytest.approx(0.5 - (1 - math.exp(-0.5)) ** 4 / 2, rel=1e-5)


def test_eiou_by_hand():
    # Sides 2 and 4 in a hull of 4 by 4, centres sqrt(2) apart: 1/4 - 2/32 - 4/16 - 4/16
    a, b = torch.tensor([0.0, 0, 2, 2]), torch.tensor([0.0, 0, 4, 4])
    assert overlaps.eiou(a, b).item() == pytest.approx(0.25 - 2 / 32 - 0.5, rel=1e-5)


def test_inner_iou_tells_boxes_apart_that_do_not_touch():
    a, b = torch.tensor([0.0, 0, 2, 2]), torch.tensor([3.0, 0, 5, 2])
    assert overlaps.InnerIoU(1.0)(a, b) == 0
    # Scaled to 4 by 4 they share 1 by 4 of 32 - 4.
    assert overlaps.InnerIoU(2.0)(a, b).item() == pytest.approx(4 / 28, rel=1e-5)


def test_wasserstein_of_circles_and_of_a_quarter_turn():
    # Circles: the centres' distance and twice the squared difference of the deviations, 5^2 + 2 (3 - 1)^2.
    a, b = torch.tensor([0.0, 0, 6, 6, 0.3]), torch.tensor([3.0, 4, 2, 2, 1.1])
    assert wasserstein(a, b).item() == pytest.approx(33, rel=1e-4)
    # A quarter turn swaps the sides, and so is the box with its sides swapped.
    long, turned = torch.tensor([0.0, 0, 8, 2, 0.2]), torch.tensor([0.0, 0, 2, 8, 0.2 + math.pi / 2])
    assert wasserstein(long, turned).item() == pytest.approx(0, abs=1e-5)


def test_equal_boxes_of_hundreds_of_pixels_keep_their_distance_of_0_in_float32():
    box = torch.tensor([301.7, 299.3, 613.1, 207.7, 0.777])
    assert wasserstein(box, box).item() == pytest.approx(0, abs=1e-6)
    near = box + torch.tensor([0.0, 0, 0.5, 0, 0])
    assert wasserstein(near, box).item() == pytest.approx(0.0625, rel=1e-3)


@pytest.mark.parametrize("name", OVERLAPS)
def test_overlaps_are_symmetric_and_at_most_that_of_equal_boxes(name):
    overlap = OVERLAPS[name][0]
    a, b = (x.float() for x in pairs(is_oriented(name)))
    torch.testing.assert_close(overlap(a, b), overlap(b, a), rtol=1e-5, atol=1e-6)
    most = {"KFIoU": 1 / 3, "GWD": 1 / 2}.get(name, 1.0)
    torch.testing.assert_close(overlap(a, a), torch.full((len(a),), most), rtol=1e-5, atol=0)
    assert (overlap(a, b) <= most + 1e-6).all()
    least = {"EIoU": -3, "SIoU": -1.03, "MPDIoU": -2, "Inner-EIoU": -4}.get(name, 0)
    apart = b + b.new_tensor([5e4, 3e4, 0, 0, 0] if is_oriented(name) else [500.0, 400, 500, 400])
    assert (overlap(a, apart) >= least).all()


@pytest.mark.parametrize("name", OVERLAPS)
def test_scale_makes_no_difference_but_where_the_paper_measures_in_pixels(name):
    overlap = OVERLAPS[name][0]
    a, b = pairs(is_oriented(name), spread=20)
    scaled = overlap(in_cells(a, 0.125), in_cells(b, 0.125))
    same = torch.allclose(overlap(a, b), scaled, rtol=1e-4, atol=1e-5)
    assert same is not getattr(overlap, "in_pixels", False)
    assert getattr(overlap, "in_pixels", False) is (name in ("MPDIoU", "NWD", "GWD"))


def test_terms_of_one_minus_an_overlap_in_pixels_do_not_depend_on_the_level():
    for name in ("MPDIoU", "NWD", "GWD"):
        overlap = OVERLAPS[name][0]
        a, b = (x.float() for x in pairs(name == "GWD"))
        strides = torch.tensor([8.0, 16, 32, 64]).repeat(50)
        got = OneMinus(overlap)(in_cells(a, strides[:, None]), in_cells(b, strides[:, None]), strides)
        torch.testing.assert_close(got, 1 - overlap(a, b), rtol=1e-5, atol=1e-6)


def test_the_divergence_does_not_depend_on_the_scale_and_is_not_symmetric():
    a, b = pairs(oriented=True, spread=20)
    ones, term = torch.ones(len(a)), KullbackLeibler(floor=1e-9)
    scaled = term(in_cells(a, 0.125), in_cells(b, 0.125), ones)
    torch.testing.assert_close(scaled, term(a, b, ones), rtol=1e-5, atol=1e-6)
    assert (term(a, b, ones) - term(b, a, ones)).abs().max() > 0.1
    torch.testing.assert_close(term(a, a, ones), torch.zeros(len(a)).double(), rtol=0, atol=1e-6)


def degenerate(oriented: bool) -> list[tuple[list[float], list[float]]]:
    if oriented:
        box, point, line = [5.0, 5, 4, 2, 0.3], [5.0, 5, 0, 0, 0], [5.0, 5, 4, 0, 1.0]
        others = [
            ([9e3, 9e3, 4, 2, 0.3], box),
            (point, [0.0] * 5),
            ([80.0, 80, 0, 0, 0], [0.0] * 5),
            ([5.0, 5, -3, -1, 0.3], box),
            ([5.0, 5, 4, 4, 0.3], [5.0, 5, 4, 4, 1.2]),
        ]
    else:
        box, point, line = [3.0, 3, 7, 8], [5.0, 5, 5, 5], [3.0, 5, 7, 5]
        others = [
            ([9e3, 9e3, 9e3 + 4, 9e3 + 2], box),
            (point, [0.0] * 4),
            ([80.0, 80, 80, 80], [0.0] * 4),
            ([6.0, 6, 4, 5], box),
            ([3.0, 3, 7, 4], [3.0, 6, 7, 8]),
        ]
    return [(box, box), (point, point), (box, point), (point, box), (line, box), (box, line), *others]


@pytest.mark.parametrize("name", [*OVERLAPS, *TERMS])
def test_boxes_without_size_equal_ones_and_far_ones_have_finite_values_and_gradients(name):
    first, second = (torch.tensor(x) for x in zip(*degenerate(is_oriented(name)), strict=True))
    value, gradients = with_gradients(function(name), first, second)
    assert value.isfinite().all()
    assert all(x.isfinite().all() for x in gradients)


@pytest.mark.parametrize("name", [*OVERLAPS, *TERMS])
def test_a_broken_box_breaks_its_own_pair_alone(name):
    a, b = (x.float() for x in pairs(is_oriented(name), n=6))
    f, broken = function(name), a.clone()
    broken[2, 2] = math.nan  # of an upright box a side, of an oriented one the width: `kfiou` does not read the centre
    value, gradients = with_gradients(f, broken, b)
    wanted, slopes = with_gradients(f, a, b)
    others = torch.arange(6) != 2
    assert value[2].isnan()
    torch.testing.assert_close(value[others], wanted[others])
    torch.testing.assert_close(gradients[0][others], slopes[0][others])


@pytest.mark.parametrize("name", OVERLAPS)
def test_overlaps_broadcast_and_compile_to_one_graph(name):
    overlap = OVERLAPS[name][0]
    a, b = (x.float() for x in pairs(is_oriented(name), n=5))
    compiled = torch.compile(overlap, fullgraph=True, backend="aot_eager")
    table = compiled(a[:, None], b)
    assert table.shape == (5, 5)
    torch.testing.assert_close(table.diagonal(), overlap(a, b))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: overlaps.InnerIoU(0.0), "ratio: expected a finite number above 0, got 0.0"),
        (lambda: overlaps.NWD(math.inf), "constant: expected a finite number above 0, got inf"),
        (lambda: overlaps.MPDIoU((640,)), r"image_size: expected \(height, width\) in pixels, got \(640,\)"),
        (lambda: overlaps.MPDIoU((640, 0)), "image_size: expected an integer of at least 1, got 0"),
        (lambda: overlaps.GWD(-1.0), "tau: expected a finite number of 0 or more, got -1.0"),
        (lambda: overlaps.GWD(0.5), "tau: expected a finite number of 1 or more, got 0.5"),
        (lambda: KullbackLeibler(tau=0), "tau: expected a finite number above 0, got 0"),
        (lambda: KullbackLeibler(tau=0.5), "tau: expected a finite number of 1 or more, got 0.5"),
        (lambda: KFIoU(floor=math.nan), "floor: expected a finite number above 0, got nan"),
    ],
)
def test_settings_that_are_no_numbers_are_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()
