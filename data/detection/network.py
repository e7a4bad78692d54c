"""An ONNX network that OpenCV runs, in as many threads as call it."""

import tempfile
import threading
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from facelab.errors import DataError
from facelab.quiet_opencv import quiet_opencv

Blob = NDArray[np.float32]

# OpenCV 5's other engine pools with SAME_UPPER padding at the wrong end: MTCNN's points are two pixels off, in silence.
ENGINE: list[int] = [cv2.dnn.ENGINE_CLASSIC] if hasattr(cv2.dnn, "ENGINE_CLASSIC") else []


class Network:
    """A network by the content of its file.

    Args:
        data: An ONNX file, whole: weights in files beside it are not looked for.
        where: Names it in messages.

    Raises:
        DataError: If it is no ONNX file, or OpenCV cannot run it.
    """

    def __init__(self, data: bytes, where: str) -> None:
        self.where = where
        self._data = data
        self._of_thread = threading.local()  # a network keeps what it computes, and belongs to one thread at a time
        self.outputs: tuple[str, ...] = tuple(self._network().getUnconnectedOutLayersNames())

    def run(self, blob: Blob) -> list[Blob]:
        """Its outputs, in the order of ``outputs``.

        Raises:
            DataError: If it does not take such an input.
        """
        network = self._network()
        try:
            network.setInput(blob)
            return [np.asarray(output) for output in network.forward(self.outputs)]
        except cv2.error:
            raise DataError(f"{self.where}: the network does not take an input of shape {blob.shape}.") from None

    def _network(self) -> "cv2.dnn.Net":
        network = getattr(self._of_thread, "network", None)
        if network is None:
            try:
                network = _read(self._data)
            except cv2.error:
                raise DataError(
                    f"{self.where}: is no ONNX file, or not one that OpenCV {cv2.__version__} can run."
                ) from None
            self._of_thread.network = network
        return network


def _read(data: bytes) -> "cv2.dnn.Net":
    # From a file, because OpenCV 5.0 heeds the engine only there; from one of its own, beside which no weights lie.
    with tempfile.TemporaryDirectory(prefix="facelab") as folder:
        path = Path(folder) / "network.onnx"
        try:
            path.write_bytes(data)
        except OSError as error:  # of a full disk it does not name the file
            raise DataError(
                f"{path}: cannot be written ({error.strerror}); a detector needs {len(data):,} bytes among temporary "
                "files, in the folder TMPDIR."
            ) from None
        with quiet_opencv():
            network = cv2.dnn.readNetFromONNX(str(path), *ENGINE)
        # Layers that are joined are joined once more for each new size of image, their weights scaled again: without an
        # error, CenterFace's landmarks come out in other places.
        network.enableFusion(False)
        return network
