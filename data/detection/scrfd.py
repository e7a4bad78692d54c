"""SCRFD from a file that a user has."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, NoReturn

import numpy as np

from facelab.citation import Citation
from facelab.data.base import Pixels
from facelab.data.detection.base import DETECTORS, Array, Faces
from facelab.data.detection.boxes import distinct
from facelab.data.detection.model_files import read_given
from facelab.data.detection.network import Blob, Network
from facelab.data.detection.scales import AtScales, padded
from facelab.errors import DataError
from facelab.quiet_opencv import quiet_opencv

STRIDES = (8, 16, 32)
MEAN, STD = 127.5, 128.0
OVERLAP = 0.4


@DETECTORS.register("scrfd")
class SCRFD(AtScales):
    """SCRFD (Guo et al., ICLR 2022, arXiv:2105.04714): any of the published ONNX files with landmarks.

    facelab brings no weights: InsightFace's are for non-commercial research. A file is checked by what it answers to a
    black image; take it from whom you trust, as OpenCV reads it.

    Args:
        model: The ONNX file; one that takes images of any size.
        longest: Longer side in which a photo is looked at first, in pixels.
        min_score: Least score of a face, 0..1.
        thorough: Look at all scales even where faces are found at the first.

    Raises:
        ConfigError: If a value is out of range.
        DataError: If the file is another network, or one without landmarks.
    """

    citation: ClassVar[Citation | None] = Citation(
        key="guo2022sample",
        title="Sample and Computation Redistribution for Efficient Face Detection",
        authors="Guo, Jia and Deng, Jiankang and Lattas, Alexandros and Zafeiriou, Stefanos",
        venue="International Conference on Learning Representations",
        year=2022,
    )

    def __init__(self, model: Path, longest: int = 640, min_score: float = 0.5, thorough: bool = False) -> None:
        super().__init__(longest, min_score, thorough)
        data, used = read_given(model)
        self._network, self.models = Network(data, str(model)), (used,)
        with quiet_opencv():  # another network shows itself here and not at the first photo
            self.find_at(np.zeros((STRIDES[-1], 2 * STRIDES[-1], 3), np.uint8))

    def find_at(self, image: Pixels) -> Faces:
        """The faces of a photo as large as it is."""
        whole = padded(image, STRIDES[-1])
        blob = np.ascontiguousarray(((whole.astype(np.float32) - MEAN) / STD).transpose(2, 0, 1)[None])
        outputs = self._network.run(blob)
        if len(outputs) != 3 * len(STRIDES):
            self._refuse()
        sizes = [(stride, whole.shape[0] // stride, whole.shape[1] // stride) for stride in STRIDES]
        parts = [self._decoded(outputs, rows, columns, stride) for stride, rows, columns in sizes]
        found = Faces(*(np.concatenate(values) for values in zip(*parts, strict=True)))
        return found.rows(distinct(found.boxes, found.scores, OVERLAP))

    def _decoded(self, outputs: Sequence[Blob], rows: int, columns: int, stride: int) -> Faces:
        """The faces of one stride: its cells hold one or two anchors each, all in one row after the other."""
        scores, edges, points = (self._of_cells(outputs, rows * columns, numbers) for numbers in (1, 4, 10))
        anchors = len(scores) // (rows * columns)
        sure = np.flatnonzero(scores[:, 0] >= self.min_score)
        row, column = np.divmod(sure // anchors, columns)
        centres = stride * np.stack([column, row], axis=1).astype(np.float64)
        # Distances of the four edges from the centre, and places of the landmarks as seen from there.
        away = stride * edges[sure] * (-1, -1, 1, 1)
        places = centres[:, None] + stride * points[sure].reshape(-1, 5, 2)
        return Faces(np.tile(centres, 2) + away, scores[sure, 0].clip(0.0, 1.0), places)

    def _of_cells(self, outputs: Sequence[Blob], cells: int, numbers: int) -> Array:
        """The output that has so many numbers for each anchor of so many cells, (anchors, numbers)."""
        for output in outputs:
            if output.shape[-1] == numbers and output.size in (cells * numbers, 2 * cells * numbers):
                return output.reshape(-1, numbers).astype(np.float64)
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise DataError(
            f"{self._network.where}: is another network than SCRFD with landmarks, or takes images of one size only."
        )
