"""A loss's own settings: numbers that are none, misspelt names and a loss in place of its class are refused by name."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from compiled_loss import (
    BinaryCrossEntropy,
    DetectionLoss,
    EndToEndLoss,
    OrientedLoss,
    PoseLoss,
    Predictions,
    ResidualPoseLoss,
    SegmentationLoss,
    TargetPlan,
    Targets,
    TaskAligned,
    pad_rows,
)
from compiled_loss.checks import shown
from compiled_loss.integrations.ultralytics import compiled_criterion
from tests.integrations.stand_ins import example, stand_in
from tests.losses.tasks import CLASSES, OPTIONS, make_loss

NAN, INF = float("nan"), float("inf")
NUMBERS = {
    "detection": ("alpha", "beta", "box_gain", "cls_gain", "dfl_gain"),
    "pose": ("pose_gain", "kobj_gain", "box_gain"),
    "residual pose": ("rle_gain", "pose_gain", "alpha"),
    "oriented": ("angle_gain", "cls_gain"),
    "segmentation": ("mask_gain", "semantic_gain", "dfl_gain"),
}
SWITCHES = [
    ("detection", "distributed"),
    ("detection", "check_values"),
    ("pose", "per_image"),
    ("segmentation", "mask_overlap"),
]
FOR_EACH = [
    ("detection", "class_weights", CLASSES),
    ("pose", "sigmas", 5),
    ("residual pose", "keypoint_weights", 5),
    ("residual pose", "sigmas", 5),
]


@pytest.mark.parametrize("value", [NAN, INF, -INF, -1.0, "1", None, True, 1j, [1.0], torch.tensor(1.0), 10**400])
@pytest.mark.parametrize(("task", "name"), [(task, name) for task, names in NUMBERS.items() for name in names])
def test_a_gain_or_power_that_is_no_number_of_0_or_more_is_refused(task, name, value):
    if value is None and name in ("mask_gain", "semantic_gain"):
        assert make_loss(task, **{name: None}).gains["seg" if name == "mask_gain" else "sem"] == 7.5
        return
    with pytest.raises(ValueError, match=rf"^{name}: expected a finite number of 0 or more, got "):
        make_loss(task, **{name: value})


def test_numbers_of_any_kind_are_taken():
    loss = DetectionLoss(3, box_gain=np.float32(0.5), cls_gain=0, dfl_gain=np.int64(2))  # type: ignore[arg-type]
    assert loss.gains == {"box": 0.5, "cls": 0.0, "dfl": 2.0}


@pytest.mark.parametrize("bad", [NAN, INF, -0.1])
@pytest.mark.parametrize("form", [torch.tensor, list, np.array])
@pytest.mark.parametrize(("task", "name", "size"), FOR_EACH)
def test_weights_and_sigmas_are_finite_and_not_negative(task, name, size, form, bad):
    values = [1.0] * size
    buffers = make_loss(task, **{name: form(values)}).named_buffers()
    assert torch.equal(next(x for full, x in buffers if full.endswith(name)), torch.ones(size))
    values[1] = bad
    with pytest.raises(ValueError, match=rf"^{name}: expected finite numbers (of 0 or more|above 0), got \[1.0, "):
        make_loss(task, **{name: form(values)})
    with pytest.raises(ValueError, match=rf"^{name}: expected shape \[{size}\], got \({size + 1},\)"):
        make_loss(task, **{name: [1.0] * (size + 1)})
    for nonsense in ("abc", torch.ones(size).bool(), torch.ones(size) + 0j, [None] * size):
        with pytest.raises(ValueError, match=rf"^{name}: expected (\d )?numbers, got "):
            make_loss(task, **{name: nonsense})


def test_a_weight_may_be_0_and_a_sigma_may_not():
    assert len(list(make_loss("detection", class_weights=[0.0, 1.0, 1.0]).buffers())) == 1
    for tiny in (0.0, 1e-60):  # which no float32 holds
        with pytest.raises(ValueError, match=r"^sigmas: expected finite numbers above 0"):
            make_loss("pose", sigmas=torch.tensor([1.0, 1.0, tiny, 1.0, 1.0], dtype=torch.float64))


def test_a_loss_is_made_on_the_device_without_values_too():
    with torch.device("meta"):
        assert make_loss("residual pose").get_buffer("extra0.sigmas").is_meta


@pytest.mark.parametrize("value", ["no", 1, None])
@pytest.mark.parametrize(("task", "name"), SWITCHES)
def test_a_switch_is_true_or_false(task, name, value):
    with pytest.raises(ValueError, match=f"^{name}: expected True or False, got {shown(value)}"):
        make_loss(task, **{name: value})


@pytest.mark.parametrize("make", [list, tuple, torch.tensor, lambda x: torch.tensor(x).int()])
def test_strides_may_be_a_tensor_as_models_hold_them(make):
    strides = make([8.0, 16.0, 32.0])
    for task in OPTIONS:
        assert make_loss(task, strides=strides).strides == (8, 16, 32)
    assert EndToEndLoss(DetectionLoss(3, strides=strides)).one.strides == (8, 16, 32)
    assert TargetPlan((64, 64), strides).strides == (8, 16, 32)  # type: ignore[arg-type]


@pytest.mark.parametrize("make", [torch.nn.Parameter, lambda x: x.requires_grad_()])
def test_numbers_to_be_learnt_are_refused_where_they_are_copied(make):
    message = "expected numbers without a gradient, got a tensor that requires a gradient"
    with pytest.raises(ValueError, match=f"^class_weights: {message}"):
        BinaryCrossEntropy(make(torch.ones(3)))
    with pytest.raises(ValueError, match=f"^sigmas: {message}"):
        PoseLoss(1, 5, sigmas=make(torch.ones(5)))


def test_strides_may_be_an_array():
    assert DetectionLoss(3, np.array([8, 16])).strides == (8, 16)  # type: ignore[arg-type]


@pytest.mark.parametrize("strides", [[8.5, 16.0], [[8.0, 16.0]], 8.0, [NAN, 8.0], [16.0, 8.0], []])
def test_strides_in_a_tensor_are_checked_as_others_are(strides):
    with pytest.raises(ValueError, match=r"^strides: expected different positive whole numbers, finest level first"):
        DetectionLoss(3, torch.tensor(strides))


def test_a_class_in_place_of_its_loss_is_told_what_to_write():
    given: Any = DetectionLoss
    with pytest.raises(ValueError, match=r"^loss: expected a loss, .*, got the class DetectionLoss"):
        EndToEndLoss(given)
    with pytest.raises(ValueError, match=r"^loss: expected a loss, .*, got Linear"):
        EndToEndLoss(nn.Linear(1, 1))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^plain_sum: expected True or False, got 1"):
        EndToEndLoss(DetectionLoss(3), plain_sum=1)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [DetectionLoss, PoseLoss, ResidualPoseLoss, OrientedLoss, SegmentationLoss])
def test_a_misspelt_keyword_is_named_with_the_class_that_was_called(kind):
    with pytest.raises(TypeError, match=rf"{kind.__name__}.__init__\(\) got an unexpected keyword argument 'box_gian'"):
        kind(3, box_gian=1)


def test_a_flow_is_a_function():
    with pytest.raises(ValueError, match=r"^flow: expected a function of the errors, or None, got int"):
        ResidualPoseLoss(3, 5, flow=3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"top_k": 0}, "top_k: expected an integer of at least 1, got 0"),
        ({"keep": 1.5}, "keep: expected an integer of at least 1, got 1.5"),
        ({"alpha": NAN}, "alpha: expected a finite number of 0 or more, got nan"),
        ({"beta": -1}, "beta: expected a finite number of 0 or more, got -1"),
    ],
)
def test_the_assigner_names_what_does_not_fit(changes, message):
    with pytest.raises(ValueError, match=message):
        TaskAligned(**changes)


def test_an_overlap_of_another_shape_than_the_candidates_is_named():
    criterion = DetectionLoss(3, (8, 16), overlap=lambda predicted, true: predicted[:, :1, 0])
    predictions = Predictions(torch.ones(1, 64, 20), torch.zeros(1, 3, 20), ((4, 4), (2, 2)))
    row = Targets(torch.tensor([0]), torch.tensor([0]), torch.full((1, 4), 0.5), pages=4)
    with pytest.raises(ValueError, match=r"overlap\(...\): expected shape \[4, 64\], got \(4, 1\)"):
        criterion(predictions, row)


def test_plans_and_padding_name_what_does_not_fit():
    rows: Any = Targets(torch.tensor([0]), torch.tensor([0]), torch.full((1, 4), 0.5))
    wrong: Any = "x"
    for call, message in (
        (lambda: TargetPlan((64, 64), power_of_two=wrong), "power_of_two: expected True or False, got 'x'"),
        (
            lambda: TargetPlan.from_dataset([rows], batch_size=1, image_size=(64, 64), margin=wrong),
            "margin: expected a",
        ),
        (lambda: TargetPlan((64, 64)).apply(rows, 0), "batch_size: expected an integer of at least 1, got 0"),
        (lambda: rows.validate(2.5), "batch_size: expected an integer of at least 1, got 2.5"),
        (lambda: rows.validate(1, wrong), "num_classes: expected an integer of at least 1, got 'x'"),
        (lambda: pad_rows(rows, wrong), "rows: expected an integer of at least 1, got 'x'"),
        (lambda: pad_rows(rows, multiple_of=2.5), "multiple_of: expected an integer of at least 1, got 2.5"),  # type: ignore[arg-type]
    ):
        with pytest.raises(ValueError, match=f"^{message}"):
            call()


def test_a_model_with_settings_that_are_no_numbers_is_refused_by_their_names():
    for name, value in (("box", NAN), ("cls", -1), ("dfl", "1.5"), ("epochs", INF)):
        model = stand_in()
        setattr(model.args, name, value)
        with pytest.raises(
            ValueError, match=rf"^model.args.{name}: expected a finite number of 0 or more, got {shown(value)}"
        ):
            compiled_criterion(model)
    for name, value in (("nc", 2.5), ("reg_max", 0)):
        model = stand_in()
        setattr(model.model[-1], name, value)
        with pytest.raises(ValueError, match=rf"^model.model\[-1\].{name}: expected an integer of at least 1, got"):
            compiled_criterion(model)
    model = stand_in()
    model.class_weights = torch.tensor([1.0, NAN, 1.0])
    with pytest.raises(ValueError, match=r"^class_weights: expected finite numbers of 0 or more, got \[1.0, nan"):
        compiled_criterion(model)
    wrong: Any = 1
    given: dict[str, Any] = {"compile": True}
    for name in ("compile", "check_values", "dynamic"):
        with pytest.raises(ValueError, match=rf"^{name}: expected True.* got 1"):
            compiled_criterion(stand_in(), **(given | {name: wrong}))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("batch_idx", 3.0, "Targets.batch_idx: .*below the batch size 3"),
        ("batch_idx", 0.5, r"batch\['batch_idx'\]: expected whole numbers, got 0.5"),
        ("cls", 3.0, r"Targets.labels: expected a class id in \[0, 3\), got 3"),
        ("cls", NAN, r"batch\['cls'\]: expected whole numbers, got nan"),
        ("bboxes", 90.0, "Targets.boxes: .*are these pixels"),
        ("bboxes", NAN, "Targets.boxes: expected finite"),
    ],
)
def test_a_criterion_looks_at_the_rows_of_a_batch_unless_it_is_told_not_to(key, value, message):
    preds, batch = example()
    bad = batch[key].clone()
    bad[0] = value
    forms: list[dict[str, Any]] = [{}, {"compile": True, "backend": "aot_eager"}]
    for options in forms:
        with pytest.raises(ValueError, match=message):
            compiled_criterion(stand_in(), **options)(preds, batch | {key: bad})
    criterion = compiled_criterion(stand_in(), check_values=False)
    assert criterion.loss.check_values is False
    if key != "cls":
        assert criterion(preds, batch | {key: bad})[0].isfinite().all()
    criterion.loss.check_values = True
    with pytest.raises(ValueError, match=message):
        criterion(preds, batch | {key: bad})
