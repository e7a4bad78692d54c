"""TorchScript: for PyTorch, and libtorch in C++, without facelab."""

import warnings
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from facelab.errors import ConfigError, first_line
from facelab.export.graphs import WholeGraph
from facelab.export.job import Format, Job
from facelab.export.onnx_graph import EXPORT_FAILURES
from facelab.model.export_record import RECORD_KEY, ExportPrecision
from facelab.model.exported_network import IMAGE, QUALITY, Feed, Run


class TorchScriptFormat(Format):
    """One ``.pt`` file of ``torch.jit.trace``; the record is in its extra files.

    PyTorch 2.13 calls TorchScript deprecated in favour of ``torch.export``, but reads and writes it. It is what
    libtorch runs without Python and what older versions read; ``.pt2`` files are tied to the version that wrote them.
    """

    suffixes = (".pt",)
    precisions: tuple[ExportPrecision, ...] = ("fp32", "fp16")  # type: ignore[misc]

    def write(self, job: Job, path: Path) -> None:
        """See `Format`."""
        inputs = job.inputs_after(job.faces.part(slice(2)))
        graph: nn.Module = job.after
        if job.before is not None:
            graph = WholeGraph(job.before, job.after)
            inputs[IMAGE] = job.pixels()
            if job.before.scorer is not None:
                inputs.pop(QUALITY)
        try:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                traced = torch.jit.trace(graph.eval(), tuple(inputs.values()), check_trace=False)  # type: ignore[no-untyped-call]
                frozen = torch.jit.freeze(traced)
                # In memory: where the disk is full, PyTorch's own writer ends the process.
                content = frozen.save_to_buffer(_extra_files={RECORD_KEY: job.record.text().encode()})
        except EXPORT_FAILURES as error:
            raise ConfigError(f"the network cannot be traced as TorchScript: {first_line(error):.300}.") from None
        path.write_bytes(content)

    def open(self, path: Path) -> Run:
        """See `Format`."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = torch.jit.load(str(path))  # type: ignore[no-untyped-call]

        def run(feed: Feed) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
            with torch.inference_mode():
                embedding, norm = model(*(torch.from_numpy(value) for value in feed.values()))
            return embedding.numpy(), norm.numpy()

        return run
