"""The criterion for models of every kind, on stand-ins that have the attributes it reads."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from compiled_loss import DetectionLoss, EndToEndLoss, PoseLoss, Predictions, Targets
from compiled_loss.exporting.corpus.golden import FAMILIES
from compiled_loss.integrations.ultralytics import compiled_criterion
from tests.golden.cases import Case, load_cases
from tests.integrations.stand_ins import arguments, example, stand_in, stand_in_of
from tests.reference.batches import make_batch, make_predictions
from tests.reference.flow import LearntDensity
from tests.reference.mask_batches import add_mask_predictions, add_masks
from tests.reference.masks import row_masks

# Of anchors with the same alignment the model's own criterion takes others; where terms are means over positives, as of
# keypoints, the criterion takes those that have none at all as the model's own does.
CASES = [case for family in FAMILIES for case in load_cases(family) if not case.ties or case.num_keypoints]


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_it_returns_what_the_models_own_criterion_returned(case: Case):
    criterion = compiled_criterion(stand_in_of(case))
    for _ in range(40 if case.name.endswith("late") else 0):
        criterion.update()

    vector, items = criterion(*arguments(case.batch, case.raw))

    torch.testing.assert_close(vector, case.vector, rtol=1e-5, atol=1e-6)
    assert list(items) == list(case.items)
    assert {name: x.item() for name, x in items.items()} == pytest.approx(case.items, rel=1e-5, abs=1e-6)
    assert all(x.shape == () and not x.requires_grad for x in items.values())


def test_the_forms_of_predictions_and_rows_that_trainers_pass_are_accepted():
    preds, rows = example()
    criterion = compiled_criterion(stand_in())
    expected = criterion(preds, rows)[0]
    variants = [
        ((torch.zeros(3, 7, 126), preds), rows),
        (preds, rows | {"batch_idx": rows["batch_idx"][:, None]}),
        (preds, rows | {"batch_idx": rows["batch_idx"].int(), "cls": rows["cls"].flatten().long()}),
        (preds, rows | {"bboxes": rows["bboxes"].double()}),
        (preds, rows | {"img": torch.zeros(3, 3, 64, 96), "im_file": ["a", "b", "c"]}),
        (preds, {key: x.flip(0) for key, x in rows.items()}),
    ]
    for variant in variants:
        torch.testing.assert_close(criterion(*variant)[0], expected)


def test_maps_of_classes_come_as_floats_too_and_may_be_missing_where_no_head_reads_them():
    case = next(case for case in CASES if case.mask_overlap and case.batch.class_map is not None)
    criterion = compiled_criterion(stand_in_of(case))
    preds, rows = arguments(case.batch, case.raw)
    as_floats = rows | {key: rows[key].float() for key in ("masks", "sem_masks")}
    torch.testing.assert_close(criterion(preds, as_floats)[0], criterion(preds, rows)[0], rtol=0, atol=0)
    case = next(case for case in CASES if case.raw[0] is not None and "segment" in case.name and not case.mask_overlap)
    criterion = compiled_criterion(stand_in_of(case))
    preds, rows = arguments(case.batch, case.raw)
    expected = criterion(preds, rows)[0]
    for other in (rows["sem_masks"].float(), None):
        torch.testing.assert_close(criterion(preds, rows | {"sem_masks": other})[0], expected, rtol=0, atol=0)


def test_gains_come_from_the_models_args_and_default_where_missing():
    model = stand_in(kpt_shape=[5, 2])
    loss = compiled_criterion(model).loss
    assert isinstance(loss, PoseLoss)
    assert loss.gains == {"box": 7.5, "pose": 12.0, "kobj": 1.0, "cls": 0.5, "dfl": 1.5}
    for args in (SimpleNamespace(box=2.0, kobj=3.0), {"box": 2.0, "kobj": 3.0, "name": "run"}):
        model.args = args
        loss = compiled_criterion(model).loss
        assert isinstance(loss, PoseLoss)
        assert (loss.gains["box"], loss.gains["cls"], loss.gains["kobj"]) == (2.0, 0.5, 3.0)
    del model.args
    assert compiled_criterion(model).task.main.gains["box"] == 7.5


def test_wrappers_of_a_network_are_taken_off():
    model = stand_in()
    preds, rows = example()
    expected = compiled_criterion(model)(preds, rows)[0]
    for wrapped in (SimpleNamespace(module=model), SimpleNamespace(module=SimpleNamespace(_orig_mod=model))):
        assert torch.equal(compiled_criterion(wrapped)(preds, rows)[0], expected)


def test_spreads_of_keypoints_come_from_the_model():
    batch = make_batch(1, counts=(3, 2), size=(64, 96), num_keypoints=5)
    preds, rows = arguments(batch, make_predictions(2, batch, num_keypoints=5))
    model = stand_in(kpt_shape=[5, 3])
    plain = compiled_criterion(model)(preds, rows)[1]["pose_loss"]
    spreads = [0.2, 0.05, 0.2, 0.4, 0.1]
    for given in (spreads, torch.tensor(spreads)):
        model.kpt_oks_sigmas = given
        loss = PoseLoss(3, 5, sigmas=spreads)
        ours = compiled_criterion(model)
        assert torch.equal(ours.loss.extras[0].sigmas, loss.extras[0].sigmas)  # type: ignore[union-attr]
        assert ours(preds, rows)[1]["pose_loss"] != plain
    model.kpt_oks_sigmas = [0.1] * 4
    with pytest.raises(ValueError, match=r"sigmas: expected shape \[5\], got \(4,\)"):
        compiled_criterion(model)


def test_updates_can_be_given_set_and_made_one_by_one():
    model = stand_in(one2one_cv2=1)
    model.args.epochs = 5
    shares = []
    for criterion in (compiled_criterion(model, updates=3), compiled_criterion(model), compiled_criterion(model)):
        shares.append(criterion.loss.share)  # type: ignore[union-attr]
    criterion.updates = 3
    assert [round(x.item(), 4) for x in shares] == [0.275, 0.8, 0.275]
    criterion.update()
    assert (criterion.updates, round(shares[2].item(), 4)) == (4, 0.1)
    with pytest.raises(ValueError, match="updates: expected an integer of at least 0, got -1"):
        compiled_criterion(model, updates=-1)


def test_a_criterion_kept_on_a_model_leaves_its_state_dict_alone():
    model: Any = nn.Linear(2, 2)
    model.criterion = compiled_criterion(stand_in())
    assert set(model.state_dict()) == {"weight", "bias"}


def test_the_share_of_an_end_to_end_head_falls_with_the_epochs():
    model = stand_in(one2one_cv2=1)
    model.args.epochs = 11
    criterion = compiled_criterion(model)
    shares = []
    for _ in range(12):
        assert isinstance(criterion.loss, EndToEndLoss)
        shares.append(criterion.loss.share.item())
        criterion.update()
    assert shares == pytest.approx([0.8 - 0.07 * i for i in range(10)] + [0.1, 0.1], abs=1e-6)


def test_an_update_changes_nothing_without_a_second_branch():
    preds, rows = example()
    criterion = compiled_criterion(stand_in())
    before = criterion(preds, rows)[0]
    criterion.update()
    assert torch.equal(criterion(preds, rows)[0], before)


def test_predictions_in_evaluation_lack_what_training_alone_needs():
    batch = make_batch(1, counts=(3, 2), size=(64, 96), num_keypoints=5)
    raw = make_predictions(2, batch, num_keypoints=5, keypoint_sigmas=True, reg_max=1)
    criterion = compiled_criterion(stand_in(3, 1, kpt_shape=[5, 3], flow_model=LearntDensity()))
    preds, rows = arguments(batch, raw)
    training, items = criterion(preds, rows)
    preds.pop("kpts_sigma")
    evaluation, _ = criterion((torch.zeros(1), preds), rows)
    assert items["rle_loss"] > 0
    torch.testing.assert_close(evaluation, torch.cat([training[:5], torch.zeros(1)]))


def test_index_maps_of_any_type_give_the_same_loss_as_stacked_masks_without_overlaps():
    batch = add_masks(1, make_batch(1, layout="tiny", counts=(2, 0, 3), size=(64, 96)))
    raw = add_mask_predictions(2, batch, make_predictions(2, batch), nm=4)
    model = stand_in(nm=4)
    preds, rows = arguments(batch, raw)
    expected = compiled_criterion(model)(preds, rows)[0]
    assert batch.masks is not None
    for dtype in (torch.uint8, torch.int32, torch.float32):
        given = rows | {"masks": batch.masks.to(dtype)}
        torch.testing.assert_close(compiled_criterion(model)(preds, given)[0], expected)
    model.args.overlap_mask = False
    stacked = row_masks(batch.masks, batch.batch_idx.tolist())
    for masks in (stacked.float(), stacked.bool()):
        torch.testing.assert_close(compiled_criterion(model)(preds, rows | {"masks": masks})[0], expected)


def test_a_model_without_a_detection_head_raises():
    with pytest.raises(ValueError, match=r"nc, reg_max and stride.*Linear without"):
        compiled_criterion(SimpleNamespace(model=nn.Sequential(nn.Linear(2, 2))))
    with pytest.raises(ValueError, match=r"model\.model\[-1\].*got Linear"):
        compiled_criterion(nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"train\(\) builds another network.*install\(model, compile=True\)"):
        compiled_criterion(SimpleNamespace(model=stand_in()))
    with pytest.raises(ValueError, match=r"got SemanticHead without reg_max, stride"):
        compiled_criterion(SimpleNamespace(model=[type("SemanticHead", (), {"nc": 19})()]))
    model = stand_in()
    model.model[-1].stride = torch.zeros(3)
    with pytest.raises(ValueError, match="strides are set"):
        compiled_criterion(model)


def test_missing_parts_of_predictions_and_batch_raise():
    preds, rows = example()
    criterion = compiled_criterion(stand_in())
    with pytest.raises(ValueError, match=r"preds: expected a dict with boxes, scores, feats, got list"):
        criterion(preds["feats"], rows)
    with pytest.raises(ValueError, match=r"preds.*got \['one2many', 'one2one'\]"):
        criterion({"one2many": preds, "one2one": preds}, rows)
    with pytest.raises(ValueError, match=r"batch: expected a dict with batch_idx, cls, bboxes"):
        criterion(preds, {"cls": rows["cls"]})
    with pytest.raises(ValueError, match=r"kpts"):
        compiled_criterion(stand_in(kpt_shape=[5, 3]))(preds, rows)
    with pytest.raises(ValueError, match=r"preds: expected a dict with one2many, one2one, got \['boxes'"):
        compiled_criterion(stand_in(one2one_cv2=1))(preds, rows)
    with pytest.raises(ValueError, match=r"batch\['bboxes'\]: expected shape \[N, 5\], got \(7, 4\)"):
        compiled_criterion(stand_in(ne=1))(preds | {"angle": torch.zeros(3, 1, 126)}, rows)
    maps = {"mask_coefficient": torch.zeros(3, 4, 126), "proto": torch.zeros(3, 4, 16, 24)}
    with pytest.raises(ValueError, match=r"batch: expected a dict with .*masks"):
        compiled_criterion(stand_in(nm=4))(preds | maps, rows)


def test_it_is_the_loss_of_the_package_on_the_same_rows():
    preds, rows = example()
    vector, _ = compiled_criterion(stand_in())(preds, rows)
    grid_sizes = tuple((x.shape[2], x.shape[3]) for x in preds["feats"])
    targets = Targets(rows["batch_idx"].long(), rows["cls"][:, 0].long(), rows["bboxes"])
    out = DetectionLoss(3)(Predictions(preds["boxes"], preds["scores"], grid_sizes), targets)
    torch.testing.assert_close(vector.sum(), out.total)
