"""Faces of which a fixed region is covered, the same in every run."""

from dataclasses import dataclass

import numpy as np
import torch

from facelab.data.alignment.regions import REGIONS, Region, region_in
from facelab.data.base import SOURCES, ImageSet, Pixels, Source
from facelab.data.formats.images import hash_of
from facelab.data.loading.keyed_random import mix
from facelab.data.sources.inner_source import SourceSpec, open_inner
from facelab.data.transforms.mask_shapes import Texture
from facelab.data.transforms.patterns import patterns
from facelab.errors import in_range, one_of
from facelab.progress import OnProgress

Fill = str | int
TEXTURES: tuple[Texture, ...] = ("stripes", "dots", "checks")


@dataclass(frozen=True)
class Occluder:
    """What covers a region of an aligned face.

    Attributes:
        region: Which one.
        fill: ``texture``: stripes, dots or checks of two colours, drawn for each image; ``noise``: a colour drawn for
            each pixel; or a grey value, 0..255, which is the same in all images and so makes them more alike.
        seed: Chooses the random numbers.

    Raises:
        ConfigError: If there is no such region or filling.
    """

    region: Region
    fill: Fill = "texture"
    seed: int = 0

    def __post_init__(self) -> None:
        one_of("region", self.region, tuple(REGIONS))
        in_range("seed of occlusions", self.seed, 0, 2**63 - 1)
        if isinstance(self.fill, str):
            one_of("fill of occlusions", self.fill, ("texture", "noise", "0..255"))
        else:
            in_range("fill of occlusions", self.fill, 0, 255)

    def __call__(self, pixels: Pixels, index: int) -> Pixels:
        """A copy of an aligned face with the region covered; the same for equal arguments, in any order of calls.

        Args:
            pixels: RGB, uint8, (H, W, 3).
            index: Number of the image in its set.
        """
        covered = pixels.copy()
        box = region_in(self.region, *pixels.shape[:2])
        random = np.random.default_rng(int(mix(self.seed, index)[0]))
        height, width = covered[box].shape[:2]
        if isinstance(self.fill, int):
            covered[box] = self.fill
        elif self.fill == "noise":
            covered[box] = random.integers(0, 256, (height, width, 3), np.uint8)
        else:
            covered[box] = _texture(height, width, pixels.shape[0] / 112, random)
        return covered


def _texture(height: int, width: int, scale: float, random: np.random.Generator) -> Pixels:
    """A pattern of two colours, (height, width, 3), as large in the face whatever the face's size in pixels."""
    first, second = random.integers(0, 256, (2, 3))
    texture, turn, period = TEXTURES[random.integers(len(TEXTURES))], random.uniform(0, np.pi), random.uniform(6, 18)
    row, column = torch.arange(height)[:, None] / scale, torch.arange(width)[None] / scale
    amount = patterns(column, row, torch.tensor(period), torch.tensor(turn))[texture].numpy()[..., None]
    return np.asarray(np.rint(first + (second - first) * amount).astype(np.uint8))


class OccludedImages(ImageSet):
    """The images of another set with one region of each face covered.

    Args:
        images: The other set; aligned faces.
        occluder: What covers which region.
    """

    def __init__(self, images: ImageSet, occluder: Occluder) -> None:
        self.images, self.occluder = images, occluder
        self.alignment = images.alignment

    def __len__(self) -> int:
        """Number of images."""
        return len(self.images)

    def read(self, index: int) -> Pixels:
        """Image ``index`` with the region covered, RGB, uint8, (H, W, 3)."""
        return self.occluder(self.images.read(index), index)

    def location(self, index: int) -> str:
        """Where the original lies."""
        return self.images.location(index)

    def name(self, index: int) -> str:
        """Name of the original."""
        return self.images.name(index)

    def fingerprint(self) -> str:
        """Hash of the originals and the occluder."""
        return hash_of((self.images.fingerprint(), repr(self.occluder)))

    def revision(self) -> str:
        """Hash of the originals as they are now and the occluder."""
        return hash_of((self.images.revision(), repr(self.occluder)))


@SOURCES.register("Occluded")
class Occluded(OccludedImages, Source):
    """The images of another source with one region of each face covered, with the same classes.

    The faces are taken to be aligned. The regions are those of FROM (Qiu et al., TPAMI 2022, arXiv:2108.09468).

    Args:
        source: The other source, written as in a run: ``{ImageFolder: {root: …}}``.
        region: Which part of the faces; left is left in the picture.
        fill: ``texture``, ``noise``, or a grey value from 0 to 255; see `Occluder`.
        seed: Chooses the random numbers; one image gets the same ones whenever it is read.
        size: Passed on to a source that draws its images, in pixels.
        progress: Likewise; called with (images done, images in all).

    Raises:
        ConfigError: If the source cannot be built, or there is no such region or filling.

    Attributes:
        source: The other source.
    """

    def __init__(
        self,
        source: SourceSpec,
        region: Region,
        fill: Fill = "texture",
        seed: int = 0,
        size: int | None = None,
        progress: OnProgress | None = None,
    ) -> None:
        occluder = Occluder(region, fill, seed)
        self.source = open_inner(source, size, progress)
        super().__init__(self.source, occluder)
        self.labels, self.num_classes = self.source.labels, self.source.num_classes
        self.runs = self.source.runs

    def people_hash(self) -> str:
        """Those of the inner source."""
        return self.source.people_hash()
