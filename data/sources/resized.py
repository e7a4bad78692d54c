"""Images of any set or source at one size."""

from facelab.data.base import ImageSet, Pixels, Source
from facelab.data.formats.images import resize_image
from facelab.errors import in_range
from facelab.inputs import check_aligned_shape

LARGEST = 4096  # pixels a side; more is a mistyped number


class ResizedImages(ImageSet):
    """The images of another set, each at ``height`` x ``width``: averaged where they shrink, bilinear where they grow.

    Args:
        images: The other set.
        height: Rows, in pixels.
        width: Columns, in pixels.
        any_photo: Whether images too are resized that cannot be aligned faces by their shape and size.
    """

    def __init__(self, images: ImageSet, height: int, width: int, any_photo: bool = True) -> None:
        in_range("height", height, 1, LARGEST)
        in_range("width", width, 1, LARGEST)
        self.images, self.height, self.width, self.any_photo = images, height, width, any_photo
        self.alignment = images.alignment

    def __len__(self) -> int:
        """Number of images."""
        return len(self.images)

    def read(self, index: int) -> Pixels:
        """Image ``index`` as RGB, uint8, (height, width, 3).

        Raises:
            CorruptImage: As the other set's.
            DataError: If it cannot be an aligned face and ``any_photo`` is off.
        """
        pixels = self.images.read(index)
        height, width, _ = pixels.shape
        if not self.any_photo and (height, width) != (self.height, self.width):
            what = f"{self.location(index)} is {height}x{width}, but {self.height}x{self.width} is wanted"
            check_aligned_shape((height, width), (self.height, self.width), what)
        return resize_image(pixels, self.height, self.width)

    def location(self, index: int) -> str:
        """Where the original lies."""
        return self.images.location(index)

    def name(self, index: int) -> str:
        """Name of the original."""
        return self.images.name(index)

    def fingerprint(self) -> str:
        """Hash of the originals and the size."""
        return f"{self.images.fingerprint()}-{self.height}x{self.width}"

    def revision(self) -> str:
        """Hash of the originals as they are now and the size."""
        return f"{self.images.revision()}-{self.height}x{self.width}"


class Resized(ResizedImages, Source):
    """A labelled source with each image at ``height`` x ``width``; what ``data.size`` of a run asks for.

    Args:
        source: The source as stored.
        height: Rows, in pixels.
        width: Columns, in pixels.
        any_photo: Whether images too are resized that cannot be aligned faces by their shape and size.
    """

    def __init__(self, source: Source, height: int, width: int, any_photo: bool = True) -> None:
        super().__init__(source, height, width, any_photo)
        self.labels, self.num_classes = source.labels, source.num_classes
        self.runs, self.keeps_runs = source.runs, source.keeps_runs
        self._source = source

    def people_hash(self) -> str:
        """Those of the source as stored."""
        return self._source.people_hash()
