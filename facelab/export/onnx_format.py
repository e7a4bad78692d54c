"""ONNX: for onnxruntime and whatever else reads it."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facelab.export.job import Feed, Format, Job, Run
from facelab.export.onnx_graph import embedding_model, finished, with_preprocessing
from facelab.export.quantisation import quantised
from facelab.model.export_record import RECORD_KEY
from facelab.model.onnx_network import EMBEDDING


class OnnxFormat(Format):
    """One ``.onnx`` file; the record is in its ``metadata_props``."""

    suffixes = (".onnx",)

    def write(self, job: Job, path: Path) -> None:
        """See `Format`."""
        model: Any = embedding_model(job.after, job.inputs_after(job.faces.part(slice(2))))
        if job.record.precision == "int8":
            model = quantised(model, job.calibration())
        if job.before is not None:
            model = with_preprocessing(model, job.before, job.pixels())
        path.write_bytes(finished(model, {RECORD_KEY: job.record.text()}))

    def open(self, path: Path) -> Run:
        """See `Format`."""
        from facelab.model.onnx_session import open_session

        session = open_session(path.read_bytes(), threads=1)

        def run(feed: Feed) -> NDArray[np.float32]:
            (embedding,) = session.run([EMBEDDING], dict(feed))
            return np.asarray(embedding, np.float32)

        return run
