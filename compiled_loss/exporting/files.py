"""Exported graphs as files: ONNX (.onnx), torch.export archives (.pt2) and AOTInductor packages (.aoti.pt2)."""

import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import GraphModule

from compiled_loss.checks import require
from compiled_loss.exporting.interface import Port, check_inputs
from compiled_loss.exporting.metadata import Metadata
from compiled_loss.exporting.narrow import narrow
from compiled_loss.exporting.plain import needs_of, plain_forms
from compiled_loss.exporting.simplify import simplify
from compiled_loss.exporting.translations import translations
from compiled_loss.torch_private import quiet

OPSET = 20
SUFFIXES = (".onnx", ".aoti.pt2", ".pt2")
_EXTRA = "compiled_loss.json"


class ExportedFile(NamedTuple):
    """A file of an exported graph, ready to run.

    Args:
        path: path of the file.
        metadata: the file's metadata.
        run: from named inputs to named outputs; a ValueError names an input with another dtype or shape than declared.

    Example:
        >>> file = ExportedFile(Path("loss.onnx"), None, lambda inputs: {"loss": inputs["boxes"].sum()})
        >>> file.run({"boxes": torch.ones(2, 4)})["loss"]
        tensor(8.)
    """

    path: Path
    metadata: Metadata
    run: Callable[[dict[str, Tensor]], dict[str, Tensor]]


def suffix_of(path: str | os.PathLike[str]) -> str:
    """The kind of a file, from its name.

    Raises:
        ValueError: for an unknown suffix.
    """
    found = next((suffix for suffix in SUFFIXES if str(path).endswith(suffix)), None)
    require(found is not None, "path", f"a name that ends in {', '.join(SUFFIXES)}", str(path))
    assert found is not None
    return found


def check_path(path: str | os.PathLike[str]) -> None:
    """Check, before any work is done, that a file of that name can be written.

    Raises:
        ValueError: for an unknown suffix, a folder that is missing or not writable, a name that is a folder's or too
            long, or an AOTInductor package without a C++ compiler.
        ImportError: for an ONNX file without the packages needed to write it.
    """
    suffix, file = suffix_of(path), Path(path).absolute()
    try:
        require(file.parent.is_dir(), "path", "a file in a folder that exists", str(path))
        existed = file.exists()
        file.open("ab").close()
        if not existed:
            file.unlink()
    except OSError as error:
        raise _unwritable(path, error) from None
    if suffix == ".aoti.pt2":
        require(cpp_compiler() is not None, "path", ".pt2 or .onnx, as no C++ compiler was found (CXX, g++)", str(path))
    if suffix == ".onnx":
        _onnx_packages()


def cpp_compiler() -> str | None:
    """Path of the compiler that AOTInductor would call, or None."""
    return shutil.which(os.environ.get("CXX", "g++"))


def write(program: ExportedProgram, metadata: Metadata, path: str | os.PathLike[str]) -> Metadata:
    """Write a program as the kind of file given by the name's suffix.

    Returns:
        The metadata as written, including the needs of an ONNX file.

    Raises:
        ValueError: if the file cannot be written.
    """
    text = metadata.to_text()
    try:
        with quiet():
            if suffix_of(path) == ".onnx":
                return _write_onnx(program, metadata, path)
            if suffix_of(path) == ".aoti.pt2":
                options = {"aot_inductor.metadata": text}
                torch._inductor.aoti_compile_and_package(program, package_path=str(path), inductor_configs=options)
            else:
                _forget_source(program)
                torch.export.save(program, path, extra_files={_EXTRA: json.dumps(text)})
    except OSError as error:
        raise _unwritable(path, error) from error
    return metadata


def load(path: str | os.PathLike[str]) -> ExportedFile:
    """Load an exported graph, to run it on the CPU.

    Args:
        path: path of an .onnx, .pt2 or .aoti.pt2 file.

    Returns:
        `ExportedFile(path, metadata, run)`.

    Raises:
        ValueError: for an unknown suffix, a missing file, or one that this package did not write.
        ImportError: for an ONNX file without onnxruntime.

    Example:
        >>> load("nothing.onnx")
        Traceback (most recent call last):
        ValueError: path: expected a file, got nothing.onnx
    """
    suffix = suffix_of(path)
    require(Path(path).is_file(), "path", "a file", str(path))
    try:
        with quiet():
            text, run = {".onnx": _load_onnx, ".aoti.pt2": _load_package, ".pt2": _load_archive}[suffix](str(path))
    except ImportError:
        raise
    except Exception as error:
        first = str(error).strip().splitlines()[:1]
        raise ValueError(f"path: expected a readable {suffix} file, got {path}: {''.join(first)}") from error
    try:
        metadata = Metadata.from_text(text)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return ExportedFile(Path(path), metadata, lambda inputs: run(check_inputs(metadata.inputs, inputs)))


def _unwritable(path: str | os.PathLike[str], error: OSError) -> ValueError:
    return ValueError(f"path: expected a file that can be written, got {path}: {error.strerror or error}")


def _write_onnx(program: ExportedProgram, metadata: Metadata, path: str | os.PathLike[str]) -> Metadata:
    import onnx  # noqa: PLC0415  (an optional dependency)

    # The exporter warns about operators of packages that are not installed.
    silenced = logging.root.manager.disable
    logging.disable(logging.WARNING)
    names = [[port.name for port in ports] for ports in (metadata.inputs, metadata.outputs)]
    try:
        converted = torch.onnx.export(
            program,
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=names[0],
            output_names=names[1],
            custom_translation_table=translations(),
            optimize=False,
        )
        assert converted is not None
        simplify(converted.model)
    finally:
        logging.disable(silenced)
    model = converted.model_proto
    # Traces of the source make up most of the file, and contain paths of this machine.
    for node in model.graph.node:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        value.ClearField("metadata_props")
    del model.graph.value_info[:]
    for_onnx_runtime = metadata.constants["setting"]["for_onnx_runtime"]
    if not for_onnx_runtime:
        narrow(model)
    plain_forms(model, for_onnx_runtime=for_onnx_runtime)
    for values, ports in ((model.graph.input, metadata.inputs), (model.graph.output, metadata.outputs)):
        for value, port in zip(values, ports, strict=True):
            _name_axes(value, port)
    foreign = {x.domain for x in (*model.graph.node, *model.opset_import)} - {"", "ai.onnx"}
    require(not foreign and not model.functions, "loss", "only operators of ONNX in its graph", sorted(foreign))
    racing = [node.name for node in model.graph.node if node.op_type == "ScatterND" and _reduces(node)]
    require(not racing, "loss", "integer tensors as the indices of sums", racing)
    metadata = metadata._replace(needs=needs_of(model))
    onnx.helper.set_model_props(model, metadata.to_text())
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, os.fspath(path))
    return metadata


def _forget_source(program: ExportedProgram) -> None:
    """Drop traces of the source, which make up most of an archive and contain paths of this machine."""
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, GraphModule) else ():
            for name in ("stack_trace", "nn_module_stack", "source_fn_stack", "from_node"):
                node.meta.pop(name, None)


def _reduces(node: Any) -> bool:
    return any(x.name == "reduction" and x.s != b"none" for x in node.attribute)


def _name_axes(value: Any, port: Port) -> None:
    """Use the axis names of the table instead of those that torch invents."""
    value.doc_string = port.meaning
    for dim, size in zip(value.type.tensor_type.shape.dim, port.shape, strict=True):
        if isinstance(size, str):
            dim.dim_param = size


def _load_onnx(path: str) -> tuple[dict[str, str], Callable]:
    import onnxruntime  # noqa: PLC0415  (an optional dependency)

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [x.name for x in session.get_outputs()]

    def run(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        results = session.run(None, {name: x.numpy() for name, x in inputs.items()})
        return {name: torch.as_tensor(x) for name, x in zip(names, results, strict=True)}

    return dict(session.get_modelmeta().custom_metadata_map), run


def _load_archive(path: str) -> tuple[dict[str, str], Callable]:
    extra = {_EXTRA: ""}
    module = torch.export.load(path, extra_files=extra).module()
    return json.loads(extra[_EXTRA] or "{}"), module


def _load_package(path: str) -> tuple[dict[str, str], Callable]:
    module = torch._inductor.aoti_load_package(path)
    return module.get_metadata(), module


def _onnx_packages() -> None:
    try:
        import onnx  # noqa: F401, PLC0415
        import onnxscript  # noqa: F401, PLC0415
    except ImportError as error:
        raise ImportError(f"{error}; pip install 'compiled-loss[export]'") from error
