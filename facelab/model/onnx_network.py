"""An exported model as a network: onnxruntime computes its embeddings, and all that takes a network takes it."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor

from facelab.backbone.base import Backbone, Features
from facelab.errors import CheckpointError, ConfigError
from facelab.inputs import InputSpec
from facelab.model.export_record import RECORD_KEY, ExportRecord, read_record
from facelab.outside.file import read_regular
from facelab.quality.card import ScorerCard

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

MAX_BYTES = (1 << 31) - 1  # what protobuf holds
SECONDS = 120  # for a trial
IMAGE, QUALITY, EMBEDDING, NORM = "image", "quality", "embedding", "norm"
INSTALL = "pip install 'facelab[export]'"


class OnnxNetwork(Backbone):
    """An exported model in onnxruntime, on the CPU.

    Its graph gives unit embeddings and the norms that they had, so that what comes out here is what the network gave
    before it was exported.

    Args:
        content: The file.
        record: What it says of itself.

    Attributes:
        record: See `ExportRecord`.
        backend: What computes, for reports and for the keys of kept embeddings.
        stated_cost: Parameters and multiply-accumulates, which cannot be counted here.
    """

    sequential_forward = True  # onnxruntime shares its work out to threads of its own

    def __init__(self, content: bytes, record: ExportRecord) -> None:
        inside = record.preprocessing == "inside"
        face = record.face
        # A graph with its preprocessing inside takes pixels as they are stored.
        spec = InputSpec(face.face_height, face.width, mean=0.0, std=1.0) if inside else face.spec()
        super().__init__(spec, record.embedding_size)
        self.record = record
        self.needs_quality = record.takes_quality
        self.stated_cost = (record.parameters, record.macs)
        self._digest = hashlib.sha256(content).hexdigest()
        onnxruntime = require_onnxruntime()
        from facelab.model.onnx_session import open_session

        self.backend = f"onnxruntime {onnxruntime.__version__}"
        self._session: InferenceSession = open_session(content, torch.get_num_threads())
        self._inside = inside

    @property
    def quality_scorer(self) -> ScorerCard | None:
        """Whose scores the second input takes."""
        return self.record.quality.card if self.needs_quality and self.record.quality else None

    def extra_repr(self) -> str:
        """What kept embeddings depend on: there are no tensors that could be hashed."""
        return f"sha256={self._digest}, backend={self.backend}"

    def features(self, image: Tensor, quality: Tensor | None = None) -> Features:
        """Embeddings of images, (B, 3, H, W), as `input_spec` says, with quality scores (B,) if it takes them."""
        if image.device.type == "meta":
            raise NotImplementedError("onnxruntime computes with data")
        if self._inside:
            image = image.to(torch.uint8).permute(0, 2, 3, 1)
        feeds = {IMAGE: np.ascontiguousarray(image.cpu().numpy())}
        if self.needs_quality:
            if quality is None:
                raise ConfigError("the exported model weighs its experts by quality, but there are no quality scores.")
            feeds[QUALITY] = quality.to(torch.float32).cpu().numpy()
        embedding, norm = self._session.run([EMBEDDING, NORM], feeds)
        return Features(torch.from_numpy(embedding * norm[:, None]).to(image.device))

    def forward(self, image: Tensor, quality: Tensor | None = None) -> Tensor:
        """The embeddings of `features`, (B, D)."""
        return self.features(image, quality).embedding

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        """Itself, as nothing in it changes: a session cannot be copied."""
        return self


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


def read_onnx(path: Path) -> OnnxNetwork:
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
    return OnnxNetwork(content, record)


def _tried(content: bytes, where: str) -> dict[str, Any]:
    """What a trial in another process finds in a file."""
    front = f"'{where}' cannot be used as a model"
    command = [sys.executable, "-P", "-m", "facelab.model.onnx_trial", RECORD_KEY]
    try:
        done = subprocess.run(command, input=content, capture_output=True, timeout=SECONDS, check=False)
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
