"""An exported model as a network: another program computes its embeddings, and all that takes a network takes it."""

from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from facelab.backbone.base import Backbone, Features
from facelab.errors import CheckpointError, ConfigError
from facelab.inputs import InputSpec
from facelab.model.export_record import ExportRecord
from facelab.quality.card import ScorerCard

IMAGE, QUALITY, EMBEDDING, NORM = "image", "quality", "embedding", "norm"
"""Inputs and outputs of exported graphs."""

Feed = Mapping[str, NDArray[Any]]
Run = Callable[[Feed], tuple[NDArray[np.float32], NDArray[np.float32]]]
"""Unit embeddings (N, D) and the norms that they had (N,), from inputs by name."""


class ExportedNetwork(Backbone):
    """What another program computes from an exported file, on the CPU.

    The graph gives unit embeddings and the norms that they had, so that what comes out here is what the network gave
    before it was exported.

    Args:
        run: The file in that program.
        record: What it says of itself.
        backend: The program and its version.
        digest: Hash of the file.

    Attributes:
        record: See `ExportRecord`.
        backend: What computes, for reports and for the keys of kept embeddings.
        stated_cost: Parameters and multiply-accumulates, which cannot be counted here.
    """

    sequential_forward = True  # such programs share their work out to threads of their own

    def __init__(self, run: Run, record: ExportRecord, backend: str, digest: str) -> None:
        face = record.face
        inside = record.preprocessing == "inside"
        # A graph with its preprocessing inside takes pixels as they are stored.
        stored = InputSpec(face.face_height, face.width, mean=0.0, std=1.0)
        super().__init__(stored if inside else face.spec(), record.embedding_size)
        self.record = record
        self.needs_quality = record.takes_quality
        self.stated_cost = (record.parameters, record.macs)
        self.backend = backend
        self._inside = inside
        self._digest = digest
        self._run = run

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
            raise NotImplementedError(f"{self.backend} computes with data")
        if self._inside:
            image = image.to(torch.uint8).permute(0, 2, 3, 1)
        feeds = {IMAGE: np.ascontiguousarray(image.cpu().numpy())}
        if self.needs_quality:
            if quality is None:
                raise ConfigError("the exported model weighs its experts by quality, but there are no quality scores.")
            feeds[QUALITY] = quality.to(torch.float32).cpu().numpy()
        embedding, norm = self._run(feeds)
        if embedding.shape != (len(image), self.record.embedding_size) or norm.shape != (len(image),):
            raise CheckpointError(
                f"the exported model '{self.record.model}' gives {list(embedding.shape)} embeddings and "
                f"{list(norm.shape)} norms for {len(image)} images; export it again."
            )
        return Features(torch.from_numpy(embedding * norm[:, None]).to(image.device))

    def forward(self, image: Tensor, quality: Tensor | None = None) -> Tensor:
        """The embeddings of `features`, (B, D)."""
        return self.features(image, quality).embedding

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        """Itself, as nothing in it changes: what another program holds cannot be copied."""
        return self
