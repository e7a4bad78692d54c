"""`SyntheticFaces`: the embedded data set. Seeded, face-like, nothing to download."""

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from facelab.data.alignment.alignment import Points
from facelab.data.base import SOURCES, ImageSet, Pixels, Source
from facelab.data.synthetic.cache import Plan, cache_folder, cached_file, open_cached
from facelab.data.synthetic.pairs import Rows, draw_pairs
from facelab.errors import ConfigError, in_range, one_of
from facelab.progress import OnProgress

Split = Literal["train", "test"]
PERSONS_PER_SPLIT = 1_000_000
FIRST_PERSON: dict[Split, int] = {"train": 0, "test": PERSONS_PER_SPLIT}


@SOURCES.register("SyntheticFaces")
class SyntheticFaces(Source):
    """Drawn faces of persons who do not exist.

    A person is a set of traits (head, eyes, brows, nose, mouth, hair, skin, marks); an image is a pose, a light, an
    expression, a backdrop, occlusions, noise and a resolution. The pixels of (seed, person, photo, size) depend on
    nothing else. They are rendered once into a memory map in a cache folder and read from there.

    Args:
        identities: Number of persons, C.
        per_identity: Images of each.
        size: Height and width in pixels.
        seed: Population; another seed draws other persons.
        split: ``train`` and ``test`` never share a person.
        first_identity: Number of the first person within the split, for several disjoint sets.
        cache: Folder of the memory map; by default ``FACELAB_CACHE``, else ``facelab`` in the user's cache folder.
        progress: Called with (images done, images in all) while rendering.

    Raises:
        ConfigError: If a number is out of range.
        DataError: If the cache cannot be written.
    """

    alignment = "drawn in place"

    def __init__(
        self,
        identities: int = 400,
        per_identity: int = 40,
        size: int = 64,
        seed: int = 0,
        split: Split = "train",
        first_identity: int = 0,
        cache: Path | None = None,
        progress: OnProgress | None = None,
    ) -> None:
        in_range("SyntheticFaces identities", identities, 1, PERSONS_PER_SPLIT)
        in_range("SyntheticFaces per_identity", per_identity, 1, 100_000)
        in_range("SyntheticFaces size", size, 16, 1024)
        in_range("SyntheticFaces seed", seed, 0, 2**63 - 1)
        in_range("SyntheticFaces first_identity", first_identity, 0, PERSONS_PER_SPLIT - identities)
        one_of("SyntheticFaces split", split, list(FIRST_PERSON))
        self.plan = Plan(seed, FIRST_PERSON[split] + first_identity, identities, per_identity, size)
        self.labels = np.repeat(np.arange(identities, dtype=np.int64), per_identity)
        self.num_classes = identities
        self.path = cached_file(self.plan, Path(cache) if cache else cache_folder(), progress)

    @cached_property
    def pixels(self) -> NDArray[np.uint8]:
        """All images as a read-only memory map, RGB, (N, H, W, 3)."""
        return open_cached(self.path, self.plan)

    def read(self, index: int) -> Pixels:
        """Image ``index`` as RGB, uint8, (H, W, 3)."""
        return np.array(self.pixels[index])

    @cached_property
    def landmarks(self) -> Points:
        """Eyes, nose tip and corners of the mouth as they are drawn, (x, y) in pixels, (N, 5, 2)."""
        return np.stack([self.plan.landmarks(row) for row in range(len(self))])

    def location(self, index: int) -> str:
        """The cache file with the numbers of person and photo."""
        person, photo = divmod(index, self.plan.per_identity)
        return f"{self.path}[{index}] (person {self.plan.first + person}, photo {photo})"

    def name(self, index: int) -> str:
        """The numbers of person and photo."""
        person, photo = divmod(index, self.plan.per_identity)
        return f"person {self.plan.first + person}, photo {photo}"

    def fingerprint(self) -> str:
        """A hash (hex) of the seed, the persons, the size and the version of the generator."""
        return self.plan.key

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the mapped pixels, which each process maps itself."""
        return {
            name: value for name, value in self.__dict__.items() if name not in ("pixels", "landmarks")
        }  # a map pickles as a copy


class LowResolution(ImageSet):
    """Images that were seen by a coarser camera: reduced to ``resolution`` pixels and enlarged again.

    Args:
        images: What to look at; square images.
        resolution: Height and width in between, in pixels; the size of the images stays as it is.

    Raises:
        ConfigError: If ``resolution`` is not at least 2.
    """

    def __init__(self, images: ImageSet, resolution: int) -> None:
        self.images = images
        self.alignment = images.alignment
        self.resolution = int(in_range("resolution", resolution, 2, 4096))

    def __len__(self) -> int:
        """Number of images."""
        return len(self.images)

    def read(self, index: int) -> Pixels:
        """Image ``index`` at the lower resolution, in its old size, RGB, uint8, (H, W, 3)."""
        return reduce_resolution(self.images.read(index), self.resolution)

    def location(self, index: int) -> str:
        """Where the sharp image lies, and the resolution."""
        return f"{self.images.location(index)} at {self.resolution} pixels"

    def name(self, index: int) -> str:
        """Name of the sharp image, and the resolution."""
        return f"{self.images.name(index)} at {self.resolution} pixels"

    def fingerprint(self) -> str:
        """A hash (hex) of the images and the resolution."""
        return hashlib.sha256(f"{self.images.fingerprint()} {self.resolution}".encode()).hexdigest()[:16]

    def revision(self) -> str:
        """A hash (hex) of the images as they are now and the resolution."""
        return f"{self.images.revision()} {self.resolution}"


def reduce_resolution(image: Pixels, resolution: int) -> Pixels:
    """``image`` (H, W, 3) averaged down to ``resolution`` pixels a side and enlarged again; never sharpened."""
    height, width = image.shape[:2]
    if resolution >= min(height, width):
        return image
    small = cv2.resize(image, (resolution, resolution), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def synthetic_pairs(
    identities: int = 300,
    per_identity: int = 8,
    folds: int = 10,
    pairs: int = 6000,
    seed: int = 0,
    size: int = 64,
    resolution: int | None = None,
    cache: Path | None = None,
    progress: OnProgress | None = None,
) -> tuple[ImageSet, Rows, NDArray[np.bool_], Rows]:
    """A verification benchmark on persons of the ``test`` split, in the form of LFW.

    Args:
        identities: Number of persons.
        per_identity: Images of each.
        folds: Number of folds; no person is in two of them.
        pairs: Number of pairs in all, half of them of one person; a multiple of ``2 * folds``.
        seed: Population, and which pairs.
        size: Height and width in pixels.
        resolution: Reduce the images to so many pixels a side and enlarge them again; None leaves them sharp.
        cache: See `SyntheticFaces`.
        progress: See `SyntheticFaces`.

    Returns:
        The images; pairs of image numbers, int64, (P, 2); whether a pair is one person, bool, (P,); fold of each pair,
        int64, (P,).

    Raises:
        ConfigError: If a number is out of range, or there are too few images for that many pairs.
    """
    if identities < 2 * folds:
        raise ConfigError(f"{folds} folds need at least {2 * folds} identities, got {identities}.")
    faces = SyntheticFaces(identities, per_identity, size, seed, "test", cache=cache, progress=progress)
    drawn = draw_pairs(faces.labels, folds, pairs, seed)
    return (faces if resolution is None else LowResolution(faces, resolution)), *drawn
