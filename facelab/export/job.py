"""What a format writes: the graphs of a model, examples of their inputs, and the record."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from facelab.export.faces import Faces
from facelab.export.graphs import EmbeddingGraph, PreprocessingGraph
from facelab.inputs import normalise
from facelab.model.export_record import ExportPrecision, ExportRecord
from facelab.model.exported_network import IMAGE, QUALITY, Feed, Run

CALIBRATION_BATCH = 16


@dataclass(frozen=True)
class Job:
    """What is to be written.

    Attributes:
        after: From normalised images, and scores, to embeddings.
        before: From stored pixels to those; None if that is left to the user.
        record: What the file says of itself.
        faces: What int8 is calibrated with; their first ones are the examples for tracing.
    """

    after: EmbeddingGraph
    before: PreprocessingGraph | None
    record: ExportRecord
    faces: Faces

    def pixels(self) -> Tensor:
        """Two faces as they are stored, uint8 (2, H, W, 3)."""
        return torch.from_numpy(self.faces.pixels[:2])

    def inputs_after(self, faces: Faces) -> dict[str, Tensor]:
        """What `after` takes of some faces."""
        pixels = torch.from_numpy(faces.pixels).permute(0, 3, 1, 2)
        inputs = {IMAGE: normalise(pixels, self.record.face.spec())}
        if faces.quality is not None:
            inputs[QUALITY] = torch.from_numpy(faces.quality)
        return {name: tensor.contiguous() for name, tensor in inputs.items()}

    def calibration(self) -> Sequence[Feed]:
        """What `after` takes, batch by batch."""
        starts = range(0, len(self.faces), CALIBRATION_BATCH)
        batches = (self.inputs_after(self.faces.part(slice(start, start + CALIBRATION_BATCH))) for start in starts)
        return [{name: tensor.numpy() for name, tensor in batch.items()} for batch in batches]


class Format(ABC):
    """A kind of file.

    Attributes:
        suffixes: Endings of its files, the one that a user names first.
        precisions: What it can hold.
    """

    suffixes: ClassVar[tuple[str, ...]]
    precisions: ClassVar[tuple[ExportPrecision, ...]] = ("fp32", "fp16", "int8")

    @abstractmethod
    def write(self, job: Job, path: Path) -> None:
        """Write the model, and what belongs to it beside it under the same stem.

        Raises:
            ConfigError: If a package is missing, or the model cannot be written so.
        """

    @abstractmethod
    def open(self, path: Path) -> Run:
        """The written model in the program that users will run it with."""
