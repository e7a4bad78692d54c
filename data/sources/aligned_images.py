"""Images that are aligned by their landmarks while they are read: nothing aligned is kept on disk."""

import numpy as np

from facelab.data.alignment.alignment import Points, TemplateForm, align, refuse_other_order, template
from facelab.data.base import ImageSet, Pixels
from facelab.data.formats.images import hash_of
from facelab.errors import CorruptImage, DataError


class AlignedImages(ImageSet):
    """Faces at a fixed place in a square image.

    Args:
        images: The photos or loose crops.
        points: Five landmarks of each image, (x, y) in its pixels, (N, 5, 2).
        size: Side of the aligned images, in pixels.
        form: See `facelab.data.alignment.alignment.template`.
        alignment: One line on how faces are aligned, for reports.

    Raises:
        ConfigError: If ``size`` is too small.
        DataError: If there is not one set of landmarks for each image, or no face has its landmarks like most are.
    """

    def __init__(self, images: ImageSet, points: Points, size: int, form: TemplateForm, alignment: str) -> None:
        template(size, form)
        if points.shape != (len(images), 5, 2):
            raise DataError(f"{len(images)} images need five landmarks each, got an array of shape {points.shape}.")
        refuse_other_order(points, images.location)
        self.images, self.points, self.size, self.form = images, points, size, form
        self.alignment = alignment

    def __len__(self) -> int:
        """Number of images."""
        return len(self.images)

    def read(self, index: int) -> Pixels:
        """Image ``index``, aligned, RGB, uint8, (size, size, 3)."""
        pixels = self.images.read(index)
        try:
            return align(pixels, self.points[index], self.size, self.form, self.location(index))
        except DataError as error:
            # A corrupt image, so that policies for images that cannot be read hold for faces that cannot be aligned.
            raise CorruptImage(str(error)) from None

    def location(self, index: int) -> str:
        """Where the image lies that is aligned."""
        return self.images.location(index)

    def name(self, index: int) -> str:
        """Name of the image that is aligned."""
        return self.images.name(index)

    def fingerprint(self) -> str:
        """Hash of images, landmarks and template."""
        return self._hash(self.images.fingerprint())

    def revision(self) -> str:
        """Hash of the images as they are now, landmarks and template."""
        return self._hash(self.images.revision())

    def _hash(self, images: str) -> str:
        points = np.ascontiguousarray(self.points, np.float64).tobytes().hex()
        return hash_of((images, points, f"{self.size} {self.form}"))
