"""ONNX files of exported models, which may come from anybody."""

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from facelab.errors import CheckpointError, ConfigError
from facelab.model.export_record import RECORD_KEY, ExportRecord, read_record
from facelab.model.exported_network import EMBEDDING, IMAGE, NORM, QUALITY, ExportedNetwork, Feed, Run
from facelab.outside.file import read_regular
from facelab.outside.trial import run_trial

MAX_BYTES = (1 << 31) - 1  # what protobuf holds
SECONDS = 120  # for a trial
INSTALL = "pip install 'facelab[export]'"


def onnx_run(content: bytes, threads: int) -> Run:
    """A file in onnxruntime.

    Args:
        content: The file.
        threads: Cores for one operation.
    """
    from facelab.model.onnx_session import FAILURES, open_session

    session = open_session(content, threads)

    def run(feed: Feed) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        try:
            embedding, norm = session.run([EMBEDDING, NORM], dict(feed))
        except FAILURES as error:  # a trial of two images does not show what others do
            reason = str(error).strip().partition("\n")[0][:200]
            raise CheckpointError(f"onnxruntime cannot compute {len(feed[IMAGE])} embeddings ({reason}).") from None
        return embedding, norm

    return run


def onnx_network(content: bytes, record: ExportRecord) -> ExportedNetwork:
    """A file that is known to be harmless as a network, with as many threads as PyTorch has."""
    onnxruntime = require_onnxruntime()
    run = onnx_run(content, torch.get_num_threads())
    digest = hashlib.sha256(content).hexdigest()
    return ExportedNetwork(run, record, f"onnxruntime {onnxruntime.__version__}", digest)


def require_onnxruntime() -> Any:
    """The package onnxruntime.

    Raises:
        ConfigError: If it is missing, or onnx is.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime
    except ImportError as error:
        raise ConfigError(f"ONNX files need {error.name}: {INSTALL}") from None
    return onnxruntime


def read_onnx(path: Path) -> ExportedNetwork:
    """The network in an ONNX file that `facelab export` wrote. The file may come from anybody.

    Raises:
        CheckpointError: If it cannot be read, is of another program, damaged, or not what its record says.
        ConfigError: If onnxruntime is missing.
    """
    require_onnxruntime()
    try:
        content = read_regular(path, MAX_BYTES)
    except OSError as error:
        raise CheckpointError(f"'{path}' cannot be read ({error.strerror or error}).") from None
    found = _tried(content, str(path))
    record = read_record(found["record"], str(path))
    _check_agreement(record, found, str(path))
    return onnx_network(content, record)


def _tried(content: bytes, where: str) -> dict[str, Any]:
    """What a trial in another process finds in a file."""
    front = f"'{where}' cannot be used as a model"
    try:
        done = run_trial("facelab.model.onnx_trial", content, [RECORD_KEY], seconds=SECONDS)
    except subprocess.TimeoutExpired:
        raise CheckpointError(f"{front}: onnxruntime takes more than {SECONDS} s for two images.") from None
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise CheckpointError(f"{front}: opening it ends onnxruntime ({last or f'code {done.returncode}'}).")
    found: dict[str, Any] = json.loads(done.stdout)
    if "problem" in found:
        raise CheckpointError(f"{front}: {found['problem']}; write one with: facelab export RUN --to onnx --out FILE.")
    return found


def _check_agreement(record: ExportRecord, found: dict[str, Any], where: str) -> None:
    """Refuse a file whose record speaks of other inputs or outputs than its graph has."""
    face = record.face
    inside = record.preprocessing == "inside"
    shape = [2, face.face_height, face.width, 3] if inside else [2, 3, face.height, face.width]
    inputs: dict[str, Any] = {IMAGE: ["uint8" if inside else "float32", shape]}
    if record.takes_quality:
        inputs[QUALITY] = ["float32", [2]]
    outputs = {EMBEDDING: ["float32", [2, record.embedding_size]], NORM: ["float32", [2]]}
    for wanted, given in ((inputs, found["inputs"]), (outputs, found["outputs"])):
        if wanted != given:
            raise CheckpointError(f"the record of '{where}' speaks of {wanted}, but its graph has {given}.")
