"""OpenVINO: for processors and graphics of Intel."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facelab.errors import ConfigError
from facelab.export.job import Format, Job
from facelab.export.onnx_format import OnnxFormat
from facelab.model.export_record import RECORD_KEY
from facelab.model.exported_network import EMBEDDING, NORM, Feed, Run


class OpenVinoFormat(Format):
    """An ``.xml`` file, with the record in its ``rt_info``, and a ``.bin`` file of weights beside it.

    It is converted from the ONNX file, whose int8 products OpenVINO takes as they are.
    """

    suffixes = (".xml", ".bin")

    def write(self, job: Job, path: Path) -> None:
        """See `Format`."""
        openvino = require_openvino()
        graph = path.with_suffix(".onnx")
        OnnxFormat().write(job, graph)
        model = openvino.convert_model(graph)
        model.set_rt_info(job.record.text(), [RECORD_KEY])
        # What the graph says counts: compressing would round weights of fp32 too.
        openvino.save_model(model, path, compress_to_fp16=False)
        graph.unlink()

    def open(self, path: Path) -> Run:
        """See `Format`."""
        openvino = require_openvino()
        compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

        def run(feed: Feed) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
            found = compiled(dict(feed))
            return np.array(found[EMBEDDING], np.float32), np.array(found[NORM], np.float32)

        return run


def require_openvino() -> Any:
    """The package openvino.

    Raises:
        ConfigError: If it is missing.
    """
    try:
        import openvino
    except ImportError:
        raise ConfigError("writing OpenVINO's files needs openvino: pip install 'facelab[openvino]'") from None
    return openvino
