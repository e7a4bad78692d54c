"""PyTorch modules as ONNX graphs."""

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from facelab.errors import ConfigError, first_line
from facelab.model.exported_network import EMBEDDING, IMAGE, NORM, QUALITY
from facelab.model.onnx_file import INSTALL, MAX_BYTES

BATCH = "batch"
NORMALISED, BEFORE = "normalised", "preprocessing/"
EXPORT_FAILURES = (RuntimeError, NotImplementedError, TypeError, ValueError, LookupError, AttributeError)
"""What PyTorch's exporter raises for a graph that it cannot write; all its own errors are of these."""


def embedding_model(graph: nn.Module, inputs: Mapping[str, Tensor]) -> Any:
    """The part from normalised images, and scores, to embeddings, as ``onnx.ModelProto``.

    Raises:
        ConfigError: If it cannot be written as ONNX.
    """
    return _exported(graph, inputs, (EMBEDDING, NORM))


def with_preprocessing(model: Any, before: nn.Module, pixels: Tensor) -> Any:
    """The same from stored pixels.

    Args:
        model: Of `embedding_model`.
        before: A `facelab.export.graphs.PreprocessingGraph`.
        pixels: An example of its input.

    Raises:
        ConfigError: If it cannot be written as ONNX.
    """
    from onnx import compose

    scores = getattr(before, "scorer", None) is not None
    names = (NORMALISED, QUALITY) if scores else (NORMALISED,)
    first = _exported(before, {IMAGE: pixels}, names)
    # A second exporter run counts its nodes from zero too.
    first = compose.add_prefix(first, BEFORE, rename_inputs=False, rename_outputs=False)
    second = compose.add_prefix(model, "", inplace=True)
    _rename_input(second, IMAGE, NORMALISED)
    joints = [(name, name) for name in names]
    for part in (first, second):
        part.ir_version = max(first.ir_version, second.ir_version)
    return compose.merge_models(first, second, io_map=joints)


def finished(model: Any, metadata: Mapping[str, str]) -> bytes:
    """A model as the bytes of a file.

    Args:
        model: ``onnx.ModelProto``.
        metadata: What the file says of itself.

    Raises:
        ConfigError: If it is too large for one file.
    """
    import onnx

    onnx.helper.set_model_props(model, dict(metadata))
    if model.ByteSize() > MAX_BYTES:
        raise ConfigError(f"the model has {model.ByteSize():,} bytes, and an ONNX file holds {MAX_BYTES:,}.")
    return bytes(model.SerializeToString())


def _exported(module: nn.Module, inputs: Mapping[str, Tensor], outputs: tuple[str, ...]) -> Any:
    """Write a module by PyTorch's exporter, with any number of images."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"exporting to ONNX needs {error.name}: {INSTALL}") from None
    shapes = {name: {0: torch.export.Dim.DYNAMIC} for name in inputs}
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module,
                kwargs=dict(inputs),
                dynamo=True,
                input_names=list(inputs),
                output_names=list(outputs),
                dynamic_shapes=shapes,
                verbose=False,
            )
    except EXPORT_FAILURES as error:
        raise ConfigError(f"the network cannot be written as ONNX: {first_line(error):.300}.") from None
    assert program is not None
    model = program.model_proto
    _clean(model)
    return model


def _clean(model: Any) -> None:
    """Name the batch axis, and leave out what PyTorch notes of its own source, with paths of this machine."""
    del model.graph.value_info[:]
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = BATCH
        del value.metadata_props[:]
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for part in (model, model.graph):
        del part.metadata_props[:]
        part.doc_string = ""


def _rename_input(model: Any, old: str, new: str) -> None:
    for value in model.graph.input:
        if value.name == old:
            value.name = new
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            if name == old:
                node.input[place] = new
