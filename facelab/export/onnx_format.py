"""ONNX: for onnxruntime and whatever else reads it."""

from pathlib import Path
from typing import Any

from facelab.export.job import Format, Job
from facelab.export.onnx_graph import embedding_model, finished, with_preprocessing
from facelab.export.quantisation import quantised
from facelab.model.export_record import RECORD_KEY
from facelab.model.exported_network import Run
from facelab.model.onnx_file import onnx_run


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
        return onnx_run(path.read_bytes(), threads=1)
