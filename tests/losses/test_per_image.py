"""What each image adds to a loss."""

from typing import Any

import pytest
import torch

from compiled_loss import DetectionLoss, EndToEndLoss, PoseLoss, Predictions, Targets
from compiled_loss.data.rows import map_rows
from compiled_loss.losses.parts import Term
from tests.losses.scenes import Scene
from tests.losses.tasks import OPTIONS, make_loss, make_task

SCORED = ("box", "cls", "dfl", "l1", "angle")


def alone(scene: Scene, image: int) -> Scene:
    """The batch of one image."""
    of_image = (scene.targets.batch_idx == image).nonzero().flatten()
    maps: dict[str, Any] = {
        name: x[image : image + 1] if isinstance(x, torch.Tensor) else x
        for name, x in scene.predictions._asdict().items()
    }
    rows = map_rows(scene.targets, lambda x: x[of_image])
    whole = {n: x[image : image + 1] for n in ("index_map", "class_map") if (x := getattr(rows, n)) is not None}
    return Scene(Predictions(**maps), rows._replace(batch_idx=torch.zeros_like(rows.batch_idx), **whole))


@pytest.mark.parametrize("task", OPTIONS)
def test_an_images_share_is_its_own_loss_times_its_part_of_what_is_divided_by(task):
    criterion, scene = make_loss(task, per_image=True), make_task(task)
    out, found = criterion(*scene), criterion.assign(*scene)
    assert out.per_image is not None
    assert list(out.per_image) == list(out.terms)
    for name, shares in out.per_image.items():
        assert shares.shape == (3,)
        torch.testing.assert_close(shares.sum(), out.terms[name], rtol=2e-6, atol=1e-9)
    for image in range(3):
        own = alone(scene, image)
        terms, positives = criterion(*own).terms, criterion.assign(*own)
        scores = positives.score.sum().clamp(min=1) / found.score.sum().clamp(min=1)
        number = positives.valid.sum() / found.valid.sum()
        for name, shares in out.per_image.items():
            part = {"sem": 1 / 3, "rle": None}.get(name, scores if name in SCORED else number)
            if part is not None:
                torch.testing.assert_close(shares[image], terms[name] * part * 3, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("flow", "clamped"), [(lambda err: 100 - err.sum(-1), True), (lambda err: -100 - err.sum(-1), False)]
)
def test_the_likelihood_is_clamped_as_a_whole(flow, clamped):
    out = make_loss("residual pose", per_image=True, flow=flow)(*make_task("residual pose"))
    assert out.per_image is not None
    assert (out.terms["rle"] == 0) == clamped
    assert out.per_image["rle"].eq(0).all() == clamped
    torch.testing.assert_close(out.per_image["rle"].sum(), out.terms["rle"], rtol=1e-6, atol=0)


def test_shares_are_differentiable_and_reach_no_other_image():
    criterion, scene = DetectionLoss(3, per_image=True), make_task("detection")
    out = criterion(*scene)
    assert out.per_image is not None
    for name in ("cls", "box"):
        for gradient in torch.autograd.grad(out.per_image[name][1], scene.leaves, retain_graph=True, allow_unused=True):
            if gradient is not None:
                assert gradient[1].abs().sum() > 0
                assert gradient[[0, 2]].eq(0).all()


def test_weights_and_ignore_rows_reach_the_shares_of_their_image_alone():
    criterion, scene = DetectionLoss(3, per_image=True), make_task("detection")
    first = scene.targets.batch_idx == 0
    plain = criterion(*scene).per_image
    weighted = scene.targets._replace(weights=torch.where(first, 3.0, 1.0))
    out = criterion(scene.predictions, weighted).per_image
    assert plain is not None
    assert out is not None
    torch.testing.assert_close(out["box"], plain["box"] * torch.tensor([3.0, 1, 1]), rtol=1e-6, atol=0)
    assert torch.equal(out["cls"][1:], plain["cls"][1:])
    assert out["cls"][0] != plain["cls"][0]


@pytest.mark.parametrize("plain_sum", [False, True])
def test_an_end_to_end_loss_adds_up_its_branches(plain_sum):
    loss = DetectionLoss(3, reg_max=1, per_image=True)
    criterion = EndToEndLoss(loss, plain_sum=plain_sum)
    (many, targets), (one, _) = make_task("detection without bins"), make_task("detection without bins", 2)
    out = criterion(many, one, targets)
    assert out.per_image is not None
    assert out.per_image.keys() == out.terms.keys()
    shares = (1.0, 1.0) if plain_sum else (0.8, 0.2)
    first, second = criterion.many(many, targets).per_image, criterion.one(one, targets).per_image
    assert first is not None
    assert second is not None
    for name, x in out.per_image.items():
        torch.testing.assert_close(x, shares[0] * first[name] + shares[1] * second[name])
        torch.testing.assert_close(x.sum(), out.terms[name], rtol=2e-6, atol=1e-9)
    assert EndToEndLoss(DetectionLoss(3, reg_max=1))(many, one, targets).per_image is None


class Nothing:
    """A term that tells no images."""

    maps = fields = ()

    def check(self, predictions: Predictions, targets: Targets) -> None: ...

    def overflow(self, *arguments: Any) -> int:
        return 0

    def __call__(self, positives: Any) -> dict[str, Term]:
        return {"kobj": positives.boxes.sum()}


def test_a_scalar_term_is_refused_by_name_where_images_are_asked_for():
    scene = make_task("pose")
    for per_image in (False, True):
        criterion: Any = PoseLoss(3, 5, per_image=per_image)
        criterion.extras = (*criterion.extras, Nothing())
        if per_image:
            with pytest.raises(ValueError, match=r"^per_image: expected terms .* got a scalar for 'kobj'"):
                criterion(*scene)
        else:
            assert criterion(*scene).terms["kobj"].isfinite()
            assert criterion(*scene).per_image is None
