"""How near an exported model is to the one that it comes from, on faces."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facelab.errors import DataError
from facelab.export.faces import Faces
from facelab.model.export_record import ExportPrecision, ExportRecord
from facelab.model.exported_network import IMAGE, QUALITY, Feed, Run
from facelab.model.face_model import FaceModel

LEAST_COSINE: dict[ExportPrecision, float] = {"fp32": 0.99999, "fp16": 0.999, "int8": 0.9}
"""Between the embeddings of any face before and after; genuine pairs of one person have 0.3 to 0.8."""


@dataclass(frozen=True)
class Parity:
    """Cosines between embeddings before and after, over some faces.

    Attributes:
        faces: How many, and where they come from.
        least: The lowest cosine.
        median: That of half of the faces is lower.
        largest_difference: Of any number of a unit embedding.
        bound: What ``least`` must reach.
    """

    faces: str
    least: float
    median: float
    largest_difference: float
    bound: float

    def describe(self) -> str:
        """One line for the user."""
        return (
            f"cosine to the model's own embeddings {self.least:.6f} at least, median {self.median:.6f} "
            f"({self.faces}; {self.bound:g} is needed)"
        )

    def require(self, precision: ExportPrecision) -> None:
        """Refuse a model that embeds otherwise.

        Raises:
            DataError: If so.
        """
        if not self.least >= self.bound:  # so that NaN is refused too
            other = {
                "fp32": "leave the file unwritten and report it",
                "fp16": "take --precision fp32",
                "int8": "calibrate it with more and real faces (--calibrate SOURCE), or take --precision fp16",
            }[precision]
            raise DataError(
                f"the exported model is not written, as its embeddings differ too much: {self.describe()}; {other}, or "
                "accept it with --least-cosine."
            )


def fed(record: ExportRecord, faces: Faces) -> Feed:
    """What an exported model takes of some faces, made by nothing but its record, as a stranger would."""
    inputs: dict[str, NDArray[np.generic]] = {IMAGE: faces.pixels}
    if record.preprocessing == "outside":
        seen = faces.pixels[:, : record.face.height, :, :: -1 if record.face.colour == "BGR" else 1]
        normalised = (seen.astype(np.float32) - np.float32(record.face.mean)) / np.float32(record.face.std)
        inputs[IMAGE] = np.ascontiguousarray(normalised.transpose(0, 3, 1, 2))
    if record.takes_quality:
        assert faces.quality is not None
        inputs[QUALITY] = faces.quality
    return inputs


def measured_parity(model: FaceModel, run: Run, record: ExportRecord, faces: Faces, bound: float | None) -> Parity:
    """Compare an exported model with its origin.

    Args:
        model: The origin.
        run: The exported one.
        record: What it says of itself.
        faces: With the scores that its graph finds itself, if it does.
        bound: Least cosine; by default that of its precision.
    """
    quality = None if faces.quality is None else faces.quality.tolist()
    wanted = model.embed(faces.pixels, flip=record.flip, quality=quality).astype(np.float64)
    found = run(fed(record, faces))[0].astype(np.float64)
    lengths = np.linalg.norm(wanted, axis=1) * np.linalg.norm(found, axis=1)  # 1 but for rounding
    cosines = np.minimum((wanted * found).sum(axis=1) / np.maximum(lengths, 1e-12), 1.0)
    return Parity(
        f"{len(faces)} of {faces.what}",
        float(cosines.min()),
        float(np.median(cosines)),
        float(np.abs(wanted - found).max()),
        LEAST_COSINE[record.precision] if bound is None else bound,
    )
