"""Realistic low-resolution versions of faces: blur, reduction, noise, JPEG and enlargement, the same in every run."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import cv2
import numpy as np
import torch
from pydantic import ConfigDict

from facelab.data.base import SOURCES, ImageSet, Pixels, Source
from facelab.data.formats.images import decode_image, hash_of
from facelab.data.loading.keyed_random import mix
from facelab.data.sources.inner_source import SourceSpec, open_inner
from facelab.data.transforms.draws import Draws, draws_of_batch
from facelab.data.transforms.low_resolution import RECIPES, LowResolution, Recipe
from facelab.errors import ConfigError, in_range, one_of
from facelab.progress import OnProgress

LARGEST = 4096  # pixels a side; more is a mistyped number


@dataclass(frozen=True)
class Degradation:
    """What a distant, cheap camera does to a face; each range is drawn from evenly.

    Attributes:
        sizes: Shorter side of the reduced image in pixels, least and greatest.
        blur: Deviation of the lens' Gaussian blur, in pixels of the reduced image.
        noise: Deviation of the sensor's Gaussian noise, in grey values of 0..255.
        jpeg: Quality of the JPEG that the reduced image is stored as, 1..100.
        recipe: What is done, see the transform `LowResolution`; ``camera`` is what this page describes. The others are
            that transform, and so give squares of the drawn size; ``average`` and ``interpolation`` have no use for
            blur, noise and JPEG.

    Raises:
        ConfigError: If a value is out of range, or a range is upside down.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")  # a mistyped key in YAML is refused

    sizes: tuple[int, int] = (8, 24)
    blur: tuple[float, float] = (0.2, 0.8)
    noise: tuple[float, float] = (0.0, 6.0)
    jpeg: tuple[int, int] = (50, 95)
    # Not written out, so that keys of what was made before there were other recipes hold.
    recipe: Recipe = field(default="camera", repr=False)

    def __post_init__(self) -> None:
        limits = {"sizes": (1, LARGEST), "blur": (0, 16), "noise": (0, 255), "jpeg": (1, 100)}
        for name, (lowest, highest) in limits.items():
            low, high = getattr(self, name)
            for value in (low, high):
                in_range(f"degradation {name}", value, lowest, highest)
            if low > high:
                raise ConfigError(f"degradation {name} is [{low:g}, {high:g}]; write the lesser value first.")
        if self.recipe != "camera":
            one_of("degradation recipe", self.recipe, tuple(RECIPES))
            in_range("degradation sizes", self.sizes[0], 2, LARGEST)

    @property
    def key(self) -> str:
        """All values, for fingerprints."""
        return repr(self) if self.recipe == "camera" else f"{self!r} {self.recipe}"

    @cached_property
    def _transform(self) -> LowResolution:
        return LowResolution(1.0, self.sizes, self.recipe, self.blur, self.noise, self.jpeg)

    def __call__(self, pixels: Pixels, seed: int, index: int) -> Pixels:
        """The low-resolution version of an image at its own size; the same for equal arguments, in any order of calls.

        An image whose shorter side is no larger than the drawn size is not reduced.

        Args:
            pixels: RGB, uint8, (H, W, 3).
            seed: Chooses the random numbers.
            index: Number of the image in its set.
        """
        if self.recipe != "camera":
            draw = Draws(draws_of_batch(seed, 0, 0, np.array([index])), "low_resolution")
            image = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None]
            return self._transform.image(image, draw)[0].permute(1, 2, 0).numpy()
        random = np.random.default_rng(int(mix(seed, index)[0]))
        size = int(random.integers(self.sizes[0], self.sizes[1], endpoint=True))
        blur, noise = random.uniform(*self.blur), random.uniform(*self.noise)
        quality = int(random.integers(self.jpeg[0], self.jpeg[1], endpoint=True))
        small = _reduced(pixels, size, blur)
        # Noise of the sensor's pixels: added before the reduction it would be averaged away.
        noisy = small + noise * random.standard_normal(small.shape)
        return _enlarged(_stored(np.rint(noisy).clip(0, 255).astype(np.uint8), quality), pixels.shape)


def _reduced(pixels: Pixels, size: int, blur: float) -> Pixels:
    height, width = pixels.shape[:2]
    factor = max(1.0, min(height, width) / size)
    # Before the reduction, as a lens blurs before the sensor samples; in pixels of the original, so times the factor.
    blurred = cv2.GaussianBlur(pixels, (0, 0), blur * factor) if blur else pixels
    sides = max(1, round(width / factor)), max(1, round(height / factor))
    return np.asarray(cv2.resize(blurred, sides, interpolation=cv2.INTER_AREA))


def _stored(pixels: Pixels, quality: int) -> Pixels:
    """As it comes back from a JPEG file."""
    _, data = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return decode_image(data.tobytes(), "a reduced image")


def _enlarged(pixels: Pixels, shape: tuple[int, ...]) -> Pixels:
    sides = shape[1], shape[0]
    return np.asarray(cv2.resize(pixels, sides, interpolation=cv2.INTER_CUBIC))


class DegradedImages(ImageSet):
    """The images of another set in low resolution, each at its own size.

    Args:
        images: The other set.
        degradation: What is done to them.
        seed: Chooses the random numbers; one image gets the same ones whenever it is read.
    """

    def __init__(self, images: ImageSet, degradation: Degradation, seed: int = 0) -> None:
        self.images, self.degradation, self.seed = images, degradation, seed
        self.alignment = images.alignment

    def __len__(self) -> int:
        """Number of images."""
        return len(self.images)

    def read(self, index: int) -> Pixels:
        """Image ``index`` in low resolution, RGB, uint8, (H, W, 3) of the original."""
        return self.degradation(self.images.read(index), self.seed, index)

    def location(self, index: int) -> str:
        """Where the original lies."""
        return self.images.location(index)

    def name(self, index: int) -> str:
        """Name of the original."""
        return self.images.name(index)

    def fingerprint(self) -> str:
        """Hash of the originals, the ranges and the seed."""
        return hash_of((self.images.fingerprint(), self.degradation.key, str(self.seed)))

    def revision(self) -> str:
        """Hash of the originals as they are now, the ranges and the seed."""
        return hash_of((self.images.revision(), self.degradation.key, str(self.seed)))


@SOURCES.register("Degraded")
class Degraded(DegradedImages, Source):
    """The images of another source in low resolution, with the same classes.

    Joined with the originals by ``Concat`` with ``share_labels: true``, each person is seen in both qualities.

    Args:
        source: The other source, written as in a run: ``{ImageFolder: {root: …}}``.
        sizes: Shorter side of the reduced images in pixels, least and greatest; see `Degradation`.
        seed: Chooses the random numbers; one image gets the same ones in every epoch.
        blur: Range of the blur, in pixels of the reduced image.
        noise: Range of the noise, in grey values.
        jpeg: Range of the JPEG quality.
        recipe: What is done with them, see `Degradation`.
        size: Passed on to a source that draws its images, in pixels.
        progress: Likewise; called with (images done, images in all).

    Raises:
        ConfigError: If the source cannot be built or a range is wrong.

    Attributes:
        source: The other source.
    """

    def __init__(
        self,
        source: SourceSpec,
        sizes: tuple[int, int] = (8, 24),
        seed: int = 0,
        blur: tuple[float, float] = (0.2, 0.8),
        noise: tuple[float, float] = (0.0, 6.0),
        jpeg: tuple[int, int] = (50, 95),
        recipe: Recipe = "camera",
        size: int | None = None,
        progress: OnProgress | None = None,
    ) -> None:
        self.source = open_inner(source, size, progress)
        super().__init__(self.source, Degradation(sizes, blur, noise, jpeg, recipe), seed)
        self.labels, self.num_classes = self.source.labels, self.source.num_classes
        self.runs = self.source.runs

    def people_hash(self) -> str:
        """Those of the inner source."""
        return self.source.people_hash()
