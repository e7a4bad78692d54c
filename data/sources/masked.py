"""Faces with drawn masks, the same in every run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch

from facelab.data.alignment.alignment import Points
from facelab.data.alignment.landmarks import read_landmarks
from facelab.data.base import SOURCES, Pixels, Source
from facelab.data.formats.images import hash_of
from facelab.data.sources.inner_source import SourceSpec, open_inner
from facelab.data.transforms.draws import Draws, draws_of_batch
from facelab.data.transforms.mask import Mask
from facelab.data.transforms.mask_shapes import Shape, Texture
from facelab.errors import DataError, in_range
from facelab.progress import OnProgress


@runtime_checkable
class HasLandmarks(Protocol):
    """A source that knows the five landmarks of its images."""

    @property
    def landmarks(self) -> Points:
        """(N, 5, 2), in pixels."""


@SOURCES.register("Masked")
class Masked(Source):
    """The images of another source with a drawn face mask on each.

    Joined with the originals by ``Concat`` with ``share_labels: true``, each person is seen with and without.

    Args:
        source: The other source, written as in a run.
        landmarks: A file with five landmarks or more of each image, see `read_landmarks`. Without it the faces are
            taken to be aligned, unless the source knows where it drew them.
        shapes: See `facelab.data.transforms.mask.Mask`.
        textures: Likewise.
        jitter: Likewise.
        seed: Chooses the masks; one image gets the same one whenever it is read.
        size: Passed on to a source that draws its images, in pixels.
        progress: Likewise; called with (images done, images in all).

    Raises:
        ConfigError: If the source cannot be built, or an option cannot work.
        DataError: If an image has no landmarks in the file.

    Attributes:
        source: The other source.
    """

    def __init__(
        self,
        source: SourceSpec,
        landmarks: Path | None = None,
        shapes: tuple[Shape, ...] = (),
        textures: tuple[Texture, ...] = (),
        jitter: float = 3.0,
        seed: int = 0,
        size: int | None = None,
        progress: OnProgress | None = None,
    ) -> None:
        self.seed = int(in_range("Masked seed", seed, 0, 2**63 - 1))
        self.source = open_inner(source, size, progress)
        self.labels, self.num_classes = self.source.labels, self.source.num_classes
        self.runs = self.source.runs
        self.alignment = self.source.alignment
        self._mask = Mask(1.0, shapes, textures, jitter)
        self._points = self._landmarks(landmarks)
        where = "" if self._points is None else hash_of([self._points.tobytes().hex()])
        self._key = f"{seed} {','.join(shapes)} {','.join(textures)} {jitter:g} {where}"

    def _landmarks(self, file: Path | None) -> Points | None:
        if file is None:
            return self.source.landmarks if isinstance(self.source, HasLandmarks) else None
        found = read_landmarks(file)
        places: Mapping[str, int] = {name: number for number, name in enumerate(found.names)}
        names = [self.source.name(index) for index in range(len(self.source))]
        if missing := [name for name in names if name not in places]:
            raise DataError(
                f"{file} has no landmarks of {len(missing):,} of {len(names):,} images, the first is '{missing[0]}'; "
                "leave the file out if the faces are aligned."
            )
        return found.points[[places[name] for name in names]]

    def read(self, index: int) -> Pixels:
        """Image ``index`` with its mask, RGB, uint8, (H, W, 3)."""
        image = torch.from_numpy(np.ascontiguousarray(self.source.read(index))).permute(2, 0, 1)[None]
        draw = Draws(draws_of_batch(self.seed, 0, 0, np.array([index])), "mask")
        points = None if self._points is None else self._points[[index]]
        masked: Pixels = self._mask.worn(image, draw, np.array([0]), points)[0].permute(1, 2, 0).numpy()
        return masked

    def location(self, index: int) -> str:
        """Where the original lies."""
        return self.source.location(index)

    def name(self, index: int) -> str:
        """Name of the original."""
        return self.source.name(index)

    def people_hash(self) -> str:
        """Those of the other source."""
        return self.source.people_hash()

    def fingerprint(self) -> str:
        """A hash (hex) of the originals and the masks."""
        return hash_of([self.source.fingerprint(), self._key])

    def revision(self) -> str:
        """A hash (hex) of the originals as they are now and the masks."""
        return hash_of([self.source.revision(), self._key])
