"""Export the assignment, the loss, the loss with its gradients, or the decoding of any loss of this package."""

import copy
import os

from compiled_loss.checks import require, true_or_false
from compiled_loss.exporting.files import check_path, suffix_of, write
from compiled_loss.exporting.graphs import AssignmentGraph, DecodingGraph, Graph, LossGraph
from compiled_loss.exporting.interface import Loss, Setting, check_setting, check_unused
from compiled_loss.exporting.metadata import Metadata, describe
from compiled_loss.exporting.programs import JointGraph, export_program, joint_interface
from compiled_loss.losses.dense import DenseLoss
from compiled_loss.losses.end_to_end import EndToEndLoss

_OF_DECODING: dict[str, str] = dict.fromkeys(("k", "mask_size"), "it belongs to the decoding")
_OF_TARGETS: dict[str, str] = dict.fromkeys(("slots", "pages", "mask_tiles", "semantic"), "decoding reads no targets")


def export_assignment(loss: DenseLoss, path: str | os.PathLike[str], setting: Setting | None = None) -> Metadata:
    """Export a loss's target assignment, from predictions and targets to positives with weights and their dense view.

    Args:
        loss: a task's loss; for an end-to-end loss, pass one of its branches, `loss.many` or `loss.one`.
        path: a name that ends in .onnx, .pt2 (torch.export archive) or .aoti.pt2 (AOTInductor package).
        setting: image size, slots of the padded form, planned pages.

    Returns:
        The metadata written into the file: names, shapes and meanings of inputs and outputs, constants, versions.

    Raises:
        ValueError: if the setting does not fit the loss, or the path cannot be written.
        ImportError: for an ONNX file without the packages of `compiled-loss[export]`.

    Example:
        >>> from compiled_loss import DetectionLoss
        >>> export_assignment(DetectionLoss(2), "assignment.txt")
        Traceback (most recent call last):
        ValueError: path: expected a name that ends in .onnx, .aoti.pt2, .pt2, got assignment.txt
    """
    setting = Setting() if setting is None else setting
    is_one = isinstance(loss, DenseLoss)
    require(is_one, "loss", "the loss of one branch, such as loss.many or loss.one", type(loss).__name__)
    check_setting(loss, setting)
    check_unused(setting, _OF_DECODING)
    check_path(path)
    return _written(AssignmentGraph(copy.deepcopy(loss).cpu(), setting), "assignment", loss, setting, path)


def export_loss(
    loss: Loss, path: str | os.PathLike[str], setting: Setting | None = None, *, gradients: bool = False
) -> Metadata:
    """Export a loss, from predictions and targets to the loss and its terms, optionally with gradients.

    Args:
        loss: a task's loss or an end-to-end loss.
        path: a name that ends in .onnx, .pt2 (torch.export archive) or .aoti.pt2 (AOTInductor package).
        setting: image size, planned pages.
        gradients: also return the gradient of the loss with respect to every prediction. Experimental: it relies on an
            interface that torch calls unstable, and fails for a torch without it.

    Returns:
        The metadata written into the file: names, shapes and meanings of inputs and outputs, constants, versions.

    Raises:
        ValueError: if the setting does not fit the loss, the path cannot be written, or gradients are requested with a
            version of torch that cannot include them in the graph.
        ImportError: for an ONNX file without the packages of `compiled-loss[export]`.

    Example:
        >>> from compiled_loss import DetectionLoss
        >>> export_loss(DetectionLoss(2), "loss.onnx", Setting(image_size=(640, 100)))
        Traceback (most recent call last):
        ValueError: image_size: expected multiples of [8, 16, 32], got (640, 100)
    """
    setting = Setting() if setting is None else setting
    check_setting(loss, setting)
    check_unused(setting, {"slots": "slots are an output of the assignment", **_OF_DECODING})
    if true_or_false("gradients", gradients):
        joint_interface()
    check_path(path)
    graph: LossGraph | JointGraph = LossGraph(copy.deepcopy(loss).cpu().requires_grad_(False), setting)
    if gradients:
        graph = JointGraph(graph)
    return _written(graph, "gradients" if gradients else "loss", loss, setting, path)


def export_decoding(loss: Loss, path: str | os.PathLike[str], setting: Setting | None = None) -> Metadata:
    """Export the decoding, from predictions to boxes, keypoints and masks in pixels with their probabilities.

    Args:
        loss: a task's loss; for an end-to-end loss, its one-to-one branch is decoded.
        path: a name that ends in .onnx, .pt2 (torch.export archive) or .aoti.pt2 (AOTInductor package).
        setting: image size; k to return the k best detections of every image, without non-maximum suppression, instead
            of every anchor; and the size of their masks.

    Returns:
        The metadata written into the file: names, shapes and meanings of inputs and outputs, constants, versions.

    Raises:
        ValueError: if the setting does not fit the loss, or the path cannot be written.
        ImportError: for an ONNX file without the packages of `compiled-loss[export]`.

    Example:
        >>> from compiled_loss import DetectionLoss
        >>> export_decoding(DetectionLoss(2), "decode.onnx", Setting(k=300, mask_size=(160, 160)))
        Traceback (most recent call last):
        ValueError: mask_size: expected None, since there are no masks, got (160, 160)
    """
    setting = Setting() if setting is None else setting
    check_setting(loss, setting)
    loss = loss.one if isinstance(loss, EndToEndLoss) else loss
    check_unused(setting, _OF_TARGETS)
    if setting.k is None or all(x.name != "coefficients" for x in loss.maps):
        check_unused(setting, {"mask_size": "there are no masks"})
    check_path(path)
    graph = DecodingGraph(copy.deepcopy(loss).cpu().requires_grad_(False), setting)
    return _written(graph, "decoding", loss, setting, path)


def _written(
    graph: Graph | JointGraph, kind: str, loss: Loss, setting: Setting, path: str | os.PathLike[str]
) -> Metadata:
    """Write a graph with its metadata."""
    if setting.for_onnx_runtime:
        expected = "False, since it applies only to ONNX files"
        require(suffix_of(path) == ".onnx", "for_onnx_runtime", expected, True)
    return write(export_program(graph), describe(loss, setting, kind, graph.inputs, graph.outputs), path)
