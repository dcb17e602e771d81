"""The criterion for YOLOv8 and YOLO11 models, on stand-ins that have the attributes it reads."""

import copy
import pickle
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

from compiled_loss import DetectionLoss, PoseLoss, Predictions, Targets
from compiled_loss.integrations.ultralytics import Criterion, compiled_criterion
from tests.golden.cases import Case, load_cases
from tests.reference.batches import Batch, Raw, make_batch, make_predictions

CASES = [case for family in ("detect", "pose") for case in load_cases(family) if not case.ties]


def stand_in(num_classes: int = 3, reg_max: int = 16, kpt_shape: Any = None, **attributes: Any) -> Any:
    head = SimpleNamespace(nc=num_classes, reg_max=reg_max, stride=torch.tensor([8.0, 16.0, 32.0]), **attributes)
    if kpt_shape is not None:
        head.kpt_shape = kpt_shape
    return SimpleNamespace(model=[nn.Identity(), head], args=SimpleNamespace(box=7.5, cls=0.5, dfl=1.5, pose=12.0))


def arguments(batch: Batch, raw: Raw) -> tuple[dict[str, Any], dict[str, Tensor]]:
    preds: dict[str, Any] = {"boxes": raw.boxes, "scores": raw.scores}
    preds["feats"] = [torch.zeros(batch.batch_size, 1, *size) for size in raw.grid_sizes]
    rows = {"batch_idx": batch.batch_idx.float(), "cls": batch.labels[:, None].float(), "bboxes": batch.boxes}
    if raw.keypoints is not None and batch.keypoints is not None:
        preds["kpts"], rows["keypoints"] = raw.keypoints, batch.keypoints
    return preds, rows


def example(seed: int = 1, counts: tuple[int, ...] = (4, 0, 3)) -> tuple[dict[str, Any], dict[str, Tensor]]:
    batch = make_batch(seed, counts=counts, size=(64, 96))
    return arguments(batch, make_predictions(seed, batch))


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_it_returns_what_the_models_own_criterion_returned(case: Case):
    kpt_shape = [case.num_keypoints, case.keypoint_dims] if case.num_keypoints else None
    model = stand_in(case.num_classes, case.reg_max, kpt_shape)
    if case.class_weights is not None:
        model.class_weights = torch.tensor(case.class_weights).reshape(1, 1, -1)
    batch = Batch(case.size, case.batch_size, case.batch_idx, case.labels, case.target_boxes, case.target_keypoints)
    raw = Raw(case.boxes, case.scores, case.grid_sizes, case.keypoints)

    vector, items = compiled_criterion(model)(*arguments(batch, raw))

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


def test_gains_come_from_the_models_args_and_default_where_missing():
    model = stand_in(kpt_shape=[5, 2])
    loss = compiled_criterion(model).loss
    assert isinstance(loss, PoseLoss)
    assert (loss.box_gain, loss.cls_gain, loss.dfl_gain, loss.pose_gain, loss.kobj_gain) == (7.5, 0.5, 1.5, 12.0, 1.0)
    for args in (SimpleNamespace(box=2.0, kobj=3.0), {"box": 2.0, "kobj": 3.0, "name": "run"}):
        model.args = args
        loss = compiled_criterion(model).loss
        assert isinstance(loss, PoseLoss)
        assert (loss.box_gain, loss.cls_gain, loss.kobj_gain) == (2.0, 0.5, 3.0)
    del model.args
    assert compiled_criterion(model).loss.box_gain == 7.5


def test_compiled_it_gives_the_same_numbers_and_one_graph_serves_every_number_of_rows():
    eager = compiled_criterion(stand_in())
    compiled = compiled_criterion(stand_in(), compile=True)
    counter = CompileCounterWithBackend("aot_eager")
    torch._dynamo.reset()
    compiled.loss.compile(fullgraph=True, backend=counter)
    for seed, counts in enumerate([(4, 0, 3), (0, 0, 0), (1, 0, 0), (0, 17, 0), (30, 1, 40)]):
        preds, rows = example(seed, counts)
        leaves = [preds["boxes"].requires_grad_(), preds["scores"].requires_grad_()]
        vector, items = compiled(preds, rows)
        expected, expected_items = eager(preds, rows)
        torch.testing.assert_close(vector, expected)
        torch.testing.assert_close(items, expected_items)
        for ours, right in zip(*(torch.autograd.grad(v.sum(), leaves) for v in (vector, expected)), strict=True):
            torch.testing.assert_close(ours, right)
    assert counter.frame_count == 1


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))], ids=["copy", "pickle"])
def test_a_copied_or_pickled_criterion_is_still_compiled_and_equal(duplicate):
    preds, rows = example()
    criterion = compiled_criterion(stand_in(), compile=True)
    other = duplicate(criterion)
    assert isinstance(other, Criterion)
    assert other.loss is not criterion.loss
    assert other.loss._compiled_call_impl is not None
    other.loss.compile(backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(other(preds, rows)[0], compiled_criterion(stand_in())(preds, rows)[0])


def test_a_criterion_kept_on_a_model_leaves_its_state_dict_alone():
    model: Any = nn.Linear(2, 2)
    model.criterion = compiled_criterion(stand_in())
    assert set(model.state_dict()) == {"weight", "bias"}


@pytest.mark.parametrize(
    ("attribute", "expected"),
    [
        ("one2one_cv2", "end-to-end"),
        ("ne", "oriented-box"),
        ("nm", "instance-mask"),
        ("flow_model", "normalising flow"),
    ],
)
def test_a_head_of_another_kind_raises_and_says_what_is_missing(attribute: str, expected: str):
    with pytest.raises(ValueError, match=expected):
        compiled_criterion(stand_in(**{attribute: 1}))


def test_a_model_without_a_detection_head_raises():
    with pytest.raises(ValueError, match=r"nc, reg_max and stride.*Linear without"):
        compiled_criterion(SimpleNamespace(model=nn.Sequential(nn.Linear(2, 2))))
    with pytest.raises(ValueError, match=r"model\.model\[-1\].*got Linear"):
        compiled_criterion(nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"wrapper\.model"):
        compiled_criterion(SimpleNamespace(model=stand_in()))
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


def test_it_is_the_loss_of_the_package_on_the_same_rows():
    preds, rows = example()
    vector, _ = compiled_criterion(stand_in())(preds, rows)
    grid_sizes = tuple((x.shape[2], x.shape[3]) for x in preds["feats"])
    targets = Targets(rows["batch_idx"].long(), rows["cls"][:, 0].long(), rows["bboxes"])
    out = DetectionLoss(3)(Predictions(preds["boxes"], preds["scores"], grid_sizes), targets)
    torch.testing.assert_close(vector.sum(), out.total)
