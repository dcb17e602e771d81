"""Wrong arguments are refused before any work, and files say what they are."""

import pytest
import torch

from compiled_loss import (
    BinaryCrossEntropy,
    DenseLoss,
    DetectionLoss,
    EndToEndLoss,
    OrientedLoss,
    PoseLoss,
    ResidualPoseLoss,
    SegmentationLoss,
    TaskAligned,
)
from compiled_loss.exporting import (
    Metadata,
    Setting,
    export_assignment,
    export_decoding,
    export_loss,
    files,
    load,
    rebuild,
)
from compiled_loss.exporting.graphs import AssignmentGraph, DecodingGraph, LossGraph
from compiled_loss.exporting.interface import examples
from compiled_loss.exporting.metadata import describe

SMALL = Setting(image_size=(64, 96))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (Setting(image_size=(64, 100)), r"image_size: expected multiples of \[8, 16, 32\], got \(64, 100\)"),
        (Setting(image_size=(64,)), r"image_size: expected \(height, width\) in pixels, or None"),  # type: ignore[arg-type]
        (Setting(pages=0), "pages: expected a positive integer, or None, got 0"),
        (Setting(pages=200_000), "pages: expected at most 87381, got 200000"),
        (Setting(slots=3), "slots: expected None, since slots are an output of the assignment, got 3"),
        (Setting(k=300), "k: expected None, since it belongs to the decoding, got 300"),
    ],
)
def test_a_setting_that_does_not_fit_is_refused(setting, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        export_loss(DetectionLoss(2), tmp_path / "loss.onnx", setting)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (Setting(k=0), "k: expected a positive integer, or None, got 0"),
        (
            Setting(k=5, mask_size=(0, 9)),
            r"mask_size: expected \(height, width\) in mask pixels, or None, got",
        ),
        (Setting(mask_size=(9, 9)), r"mask_size: expected None, since there are no masks, got \(9, 9\)"),
        (Setting(pages=3), "pages: expected None, since decoding reads no targets, got 3"),
        (Setting(semantic=True), "semantic: expected False, since decoding reads no targets, got True"),
    ],
)
def test_a_setting_that_does_not_fit_the_decoding_is_refused(setting, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        export_decoding(SegmentationLoss(2), tmp_path / "decode.onnx", setting)
    with pytest.raises(ValueError, match="mask_size: expected None, since there are no masks"):
        export_decoding(DetectionLoss(2), tmp_path / "decode.onnx", Setting(k=5, mask_size=(9, 9)))
    assert not list(tmp_path.iterdir())


def test_strides_that_do_not_divide_the_coarsest_need_an_image_size(tmp_path):
    with pytest.raises(ValueError, match=r"image_size: expected \(height, width\), as \[8, 12\] do not all divide 12"):
        export_loss(DetectionLoss(2, (8, 12)), tmp_path / "loss.onnx", Setting(image_size=None))


def test_a_path_that_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"path: expected a name that ends in .onnx, .aoti.pt2, .pt2, got loss.txt"):
        export_loss(DetectionLoss(2), "loss.txt", SMALL)
    with pytest.raises(ValueError, match="path: expected a file in a folder that exists"):
        export_loss(DetectionLoss(2), tmp_path / "no" / "loss.onnx", SMALL)
    (tmp_path / "loss.onnx").mkdir()
    for name in ("loss.onnx", "x" * 300 + ".onnx", "x" * 300 + "/loss.onnx"):
        with pytest.raises(ValueError, match=r"path: expected a file that can be written, got .*: "):
            export_loss(DetectionLoss(2), tmp_path / name, SMALL)


def test_the_check_of_a_path_leaves_files_as_they_are(tmp_path):
    (tmp_path / "old.onnx").write_bytes(b"old")
    for name in ("old.onnx", "new.onnx"):
        files.check_path(tmp_path / name)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("old.onnx", b"old")]


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "_write_onnx", full)
    metadata = describe(DetectionLoss(2), SMALL, "loss", [], [])
    with pytest.raises(ValueError, match=r"can be written, got .*loss\.onnx: No space left on device"):
        files.write(None, metadata, tmp_path / "loss.onnx")  # type: ignore[arg-type]


def test_a_setting_of_another_type_is_refused(tmp_path):
    with pytest.raises(ValueError, match="setting: expected a Setting, got dict"):
        export_loss(DetectionLoss(2), tmp_path / "loss.onnx", {"image_size": (64, 96)})  # type: ignore[arg-type]


def test_a_package_without_a_compiler_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "cpp_compiler", lambda: None)
    with pytest.raises(ValueError, match=r"path: expected .pt2 or .onnx, as no C\+\+ compiler was found"):
        export_loss(DetectionLoss(2), tmp_path / "loss.aoti.pt2", SMALL)


def test_the_assignment_of_two_branches_and_a_loss_over_processes_are_refused(tmp_path):
    path = tmp_path / "a.onnx"
    with pytest.raises(ValueError, match="loss: expected the loss of one branch"):
        export_assignment(EndToEndLoss(DetectionLoss(2)), path, SMALL)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"loss\.distributed: expected False"):
        export_loss(DetectionLoss(2, distributed=True), path, SMALL)


def test_gradients_are_refused_where_torch_has_no_joint_graph(tmp_path, monkeypatch):
    monkeypatch.delattr("torch.export.experimental._export_forward_backward")
    here = f"torch {torch.__version__} has no torch.export.experimental._export"
    told = f"gradients: expected a version of torch that can .* {here}"
    with pytest.raises(ValueError, match=told.replace("+", r"\+")):
        export_loss(DetectionLoss(2), tmp_path / "loss.onnx", SMALL, gradients=True)


def test_gradients_are_refused_where_the_joint_graph_is_of_another_kind(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.export.experimental._export_forward_backward", lambda program: program)
    with pytest.raises(ValueError, match=r"gradients: expected a torch whose joint graph .*'USER_OUTPUT'"):
        export_loss(DetectionLoss(2, (32,), reg_max=1), tmp_path / "loss.onnx", SMALL, gradients=True)


def test_files_that_are_not_graphs_of_this_package_are_refused(tmp_path):
    for name in ("a.onnx", "a.pt2", "a.aoti.pt2"):
        (tmp_path / name).write_bytes(b"nothing")
        with pytest.raises(ValueError, match=r"path: expected a readable"):
            load(tmp_path / name)
    with pytest.raises(
        ValueError, match="file: expected metadata of a graph of compiled_loss, got no interface_version"
    ):
        Metadata.from_text({"author": "somebody"})
    text = describe(DetectionLoss(2), SMALL, "loss", [], []).to_text()
    with pytest.raises(ValueError, match="interface_version: expected 1, got 2"):
        Metadata.from_text({**text, "interface_version": "2"})


LOSSES = {
    "detect": DetectionLoss(
        3, reg_max=1, assigner=TaskAligned(4, 2), classification=BinaryCrossEntropy([0.1, 0.7, 3.3])
    ),
    "pose": PoseLoss(2, 5, keypoint_dims=2, sigmas=torch.rand(5) + 0.1, pose_gain=3.0),
    "residual pose": ResidualPoseLoss(2, 17, flow=None, rle_gain=0.5),
    "obb": OrientedLoss(2, (8, 16), angle_gain=0.3),
    "segment": SegmentationLoss(2, mask_gain=2.0, mask_overlap=True),
    "end to end": EndToEndLoss(PoseLoss(2, 5), plain_sum=True),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_made_anew_from_metadata_with_every_number(name):
    loss, setting = LOSSES[name], Setting((64, 96), prototypes=4, semantic=name == "segment")
    graph = LossGraph(loss, setting)
    written = describe(loss, setting, "loss", graph.inputs, graph.outputs)
    read = Metadata.from_text(written.to_text())
    assert read == Metadata.from_text(read.to_text())
    again, same = rebuild(read)
    assert (type(again), same) == (type(loss), setting)
    assert describe(again, same, "loss", graph.inputs, graph.outputs) == written
    torch.manual_seed(0)
    inputs = {k: torch.rand_like(x) if x.is_floating_point() else x for k, x in examples(graph.inputs).items()}
    expected = graph(inputs)
    for key, value in LossGraph(again, same)(inputs).items():
        assert torch.equal(value, expected[key])


def test_a_flow_cannot_be_made_anew():
    loss = ResidualPoseLoss(2, 5, flow=lambda error: -error.square().sum(-1))
    with pytest.raises(
        ValueError, match=r"constants\.arguments\.flow: expected a part of compiled_loss, .* got <function"
    ):
        rebuild(describe(loss, SMALL, "loss", [], []))


def test_every_tensor_of_the_tables_has_the_shape_and_dtype_that_they_tell():
    for loss in LOSSES.values():
        for size in ((64, 96), None):
            setting = Setting(size, prototypes=4, semantic=True)
            graphs: list = [LossGraph(loss, setting)]
            if isinstance(loss, DenseLoss):
                graphs.append(AssignmentGraph(loss, setting._replace(slots=3)))
                graphs += [DecodingGraph(loss, setting._replace(k=k)) for k in (None, 200)]
            for graph in graphs:
                outputs = graph(examples(graph.inputs))
                for port in graph.outputs:
                    x = outputs[port.name]
                    assert str(x.dtype) == f"torch.{port.dtype}"
                    assert x.dim() == len(port.shape)
                    told = [(n, m) for n, m in zip(x.shape, port.shape, strict=True) if isinstance(m, int)]
                    assert all(n == m for n, m in told), port
