"""Opens an ONNX file in a process of its own, within limits, before ours does: ``python -m facelab.model.onnx_trial``.

A file from anybody may hold a graph that takes all memory, never ends or ends the process that opens it. Here that
ends the trial alone. It reads the file from its input, runs it on two black images and writes JSON: what the file says
of itself, or what is wrong with it.
"""

import json
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError

from facelab.model.onnx_session import FAILURES, open_session
from facelab.outside.trial import limit_memory

IMAGES = 2
MOST_VALUES = IMAGES * 3 * (1 << 20)
TYPES = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8}


def examine(content: bytes, key: str) -> dict[str, Any]:
    """What a file says under ``key``, and the shape of what it puts out; or ``{"problem": why it cannot be used}``."""
    model = onnx.ModelProto.FromString(content)
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data for tensor in _tensors(model)):
        return {"problem": "its weights lie in other files"}
    records = [entry.value for entry in model.metadata_props if entry.key == key]
    if not records:
        return {"problem": "it has no record of facelab"}
    session = open_session(content, threads=1)
    feeds = {}
    for given in session.get_inputs():
        shape = [size if isinstance(size, int) else IMAGES for size in given.shape]
        if given.type not in TYPES or np.prod(shape, dtype=float) > MOST_VALUES:
            return {"problem": f"its input '{given.name:.40}' is {given.type:.40} {shape!s:.80}"}
        if not given.shape or isinstance(given.shape[0], int):
            return {"problem": f"its input '{given.name:.40}' does not take any number of images, but {shape!s:.80}"}
        feeds[given.name] = np.zeros(shape, TYPES[given.type])
    names = [output.name for output in session.get_outputs()]
    outputs = dict(zip(names, session.run(names, feeds), strict=True))
    return {
        "record": records[0],
        "inputs": {name: [str(feed.dtype), list(feed.shape)] for name, feed in feeds.items()},
        "outputs": {name: [str(value.dtype), list(value.shape)] for name, value in outputs.items()},
    }


def _tensors(model: Any) -> Iterator[Any]:
    """Every tensor of a file that may name another file: of graphs inside of nodes too."""
    waiting: list[Any] = [model.graph, *model.functions]
    for info in model.training_info:
        waiting += [info.initialization, info.algorithm]
    while waiting:
        graph = waiting.pop()
        if isinstance(graph, onnx.GraphProto):
            yield from graph.initializer
            for sparse in graph.sparse_initializer:
                yield from (sparse.values, sparse.indices)
        for node in graph.node:
            for attribute in node.attribute:
                yield from (attribute.t, *attribute.tensors)
                for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                    yield from (sparse.values, sparse.indices)
                waiting += [attribute.g, *attribute.graphs]


def main() -> None:
    """Examine what comes in; the key of the record is the argument."""
    content = sys.stdin.buffer.read()
    limit_memory(len(content))
    try:
        found = examine(content, sys.argv[1])
    except (DecodeError, *FAILURES) as error:
        found = {"problem": str(error).strip().partition("\n")[0][:200] or type(error).__name__}
    except MemoryError:
        found = {"problem": "it takes too much memory"}
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
