"""Export assignment, losses, their gradients and decoding as ONNX, torch.export archives or AOTInductor packages."""

from compiled_loss.exporting.export import export_assignment, export_decoding, export_loss
from compiled_loss.exporting.files import ExportedFile, load
from compiled_loss.exporting.interface import Setting
from compiled_loss.exporting.metadata import INTERFACE_VERSION, Metadata, rebuild
from compiled_loss.exporting.reference import eager

__all__ = [
    "INTERFACE_VERSION",
    "ExportedFile",
    "Metadata",
    "Setting",
    "eager",
    "export_assignment",
    "export_decoding",
    "export_loss",
    "load",
    "rebuild",
]
