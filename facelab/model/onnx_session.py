"""Opening an ONNX graph in onnxruntime."""

import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as states

FAILURES = tuple(kind for kind in vars(states).values() if isinstance(kind, type) and issubclass(kind, Exception))
"""What onnxruntime raises."""


def open_session(content: bytes, threads: int) -> onnxruntime.InferenceSession:
    """A session of onnxruntime on a CPU.

    Args:
        content: The file; never a path, beside which weights could lie.
        threads: Cores for one operation.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # a refusal is an exception; the log would say it twice
    options.add_session_config_entry("session.load_model_format", "ONNX")
    # Threads that wait in a loop take cores from whoever reads images.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
