"""Photos that are no aligned crops: a detector finds the face that a network is to see."""

from collections.abc import Callable
from threading import Lock

from facelab.catalogue import Spec, build
from facelab.data.alignment.photo_aligner import FaceChoice, PhotoAligner
from facelab.data.base import Pixels
from facelab.data.detection.base import DETECTORS, Detector
from facelab.errors import ConfigError
from facelab.inputs import InputSpec

USUAL = "yunet"


class PhotoFaces:
    """Cuts the largest face out of each photo, in the size that a network takes.

    Args:
        detector: Finds the faces; where it is a spec, it is built when the first photo needs it, so that aligned crops
            need none of its packages.
        spec: What the network takes.
        on_face: Told in one line which face was taken; from several threads.
    """

    def __init__(
        self, detector: Detector | Spec, spec: InputSpec, on_face: Callable[[str], None] | None = None
    ) -> None:
        self._spec = spec
        self._detector = detector
        self._on_face = on_face
        self._aligner: PhotoAligner | None = None
        self._building = Lock()

    def cut(self, photo: Pixels, where: str) -> Pixels:
        """The aligned face of a photo.

        Args:
            photo: RGB, uint8, (H, W, 3).
            where: Names it in messages.

        Returns:
            RGB, uint8, (size, size, 3).

        Raises:
            ConfigError: If the detector cannot be built, or the network takes no square faces.
            NoFace: If there is no face.
        """
        made = self._built().align(photo, where)
        if self._on_face is not None:
            left, top, right, bottom = made.faces.boxes[0].round().astype(int).tolist()
            several = f", the largest of {made.found}" if made.found > 1 else ""
            self._on_face(
                f"{where}: a face was found at x {left} to {right}, y {top} to {bottom}, score "
                f"{made.faces.scores[0]:.2f}{several}"
            )
        return made.crops[0]

    def _built(self) -> PhotoAligner:
        height, width = self._spec.aligned
        if height != width:
            raise ConfigError(f"found faces are aligned to squares, but the network takes {height}x{width}.")
        with self._building:
            if self._aligner is None:
                given = self._detector
                detector = given if isinstance(given, Detector) else build(DETECTORS, given)
                self._aligner = PhotoAligner(detector, FaceChoice("largest"), width)
            return self._aligner
