"""Static int8: weights per channel, activations by their ranges on faces, as pairs of Quantize and DequantizeLinear."""

import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

Feed = Mapping[str, NDArray[Any]]
QUANTISED = ("Conv", "Gemm", "MatMul")
"""Where the work is. What lies between them takes little time and keeps its precision."""


class _Faces:
    """What onnxruntime asks for the next batch."""

    def __init__(self, feeds: Sequence[Feed]) -> None:
        self._feeds: Iterator[Feed] = iter(feeds)

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        """A batch, or None behind the last."""
        feed = next(self._feeds, None)
        return None if feed is None else dict(feed)


def quantised(model: Any, feeds: Sequence[Feed]) -> Any:
    """A model with int8 products.

    Weights are symmetric int8 with one scale for each output channel, activations int8 with one scale for each tensor,
    from the lowest and highest values that batches of ``feeds`` give, on average. Depthwise convolutions and products
    of two activations (attention) keep their precision: they are little work, and lose the most.

    Args:
        model: ``onnx.ModelProto`` in float32.
        feeds: Batches of inputs.

    Returns:
        ``onnx.ModelProto``.
    """
    import onnx
    from onnxruntime import quantization as q

    root = logging.getLogger()
    level = root.level
    with tempfile.TemporaryDirectory(prefix="facelab-") as folder:
        first, prepared, done = (str(Path(folder) / name) for name in ("float.onnx", "prepared.onnx", "int8.onnx"))
        onnx.save(model, first)
        try:
            root.setLevel(logging.ERROR)  # it recommends what was just done
            q.shape_inference.quant_pre_process(first, prepared, skip_symbolic_shape=True)
            q.quantize_static(
                prepared,
                done,
                _Faces(feeds),
                quant_format=q.QuantFormat.QDQ,
                op_types_to_quantize=list(QUANTISED),
                nodes_to_exclude=_left_out(onnx.load(prepared)),
                per_channel=True,
                activation_type=q.QuantType.QInt8,
                weight_type=q.QuantType.QInt8,
                # One outlier would widen the range for all faces.
                extra_options={"CalibMovingAverage": True},
            )
        finally:
            root.setLevel(level)
        return onnx.load(done)


def _left_out(model: Any) -> list[str]:
    """Names of the nodes that keep their precision."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [
        node.name
        for node in model.graph.node
        if (node.op_type == "MatMul" and weights.isdisjoint(node.input))
        or any(attribute.name == "group" and attribute.i > 1 for attribute in node.attribute)
    ]
