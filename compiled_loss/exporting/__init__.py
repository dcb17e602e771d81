"""Target assignment, losses and losses with gradients as files: ONNX, torch.export archives, AOTInductor packages."""

from compiled_loss.exporting.export import export_assignment, export_loss
from compiled_loss.exporting.files import ExportedFile, load
from compiled_loss.exporting.interface import Setting
from compiled_loss.exporting.metadata import INTERFACE_VERSION, Metadata, rebuild

__all__ = [
    "INTERFACE_VERSION",
    "ExportedFile",
    "Metadata",
    "Setting",
    "export_assignment",
    "export_loss",
    "load",
    "rebuild",
]
