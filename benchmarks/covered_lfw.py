"""LFW with covered regions, whose pixels are kept: reading and covering them takes longer than embedding them."""

import os
import random
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from made_once import stored_once
from pydantic import Field

from facelab.config import validate
from facelab.data.base import ImageSet, Pixels
from facelab.test_protocol.base import PROTOCOLS
from facelab.test_protocol.protocols.lfw import LFW
from facelab.test_protocol.protocols.reduced import Reduced, Reductions


class KeptImages(ImageSet):
    """The images of another set, of one size, whose pixels are kept in a file named by the set's fingerprint.

    Args:
        images: The other set.
        folder: Where the file lies, or will lie when the first image is read.
    """

    def __init__(self, images: ImageSet, folder: Path) -> None:
        self.images, self.folder = images, folder
        self.alignment = images.alignment

    @cached_property
    def pixels(self) -> Pixels:
        """All of them, (N, H, W, 3), as a memory map."""
        file = self.folder / f"{self.fingerprint()}.npy"
        return stored_once(file, lambda: self.images.read_many(np.arange(len(self))))

    def __len__(self) -> int:
        """Number of images."""
        return len(self.images)

    def read(self, index: int) -> Pixels:
        """Image ``index`` as RGB, uint8, (H, W, 3)."""
        return np.array(self.pixels[index])

    def location(self, index: int) -> str:
        """Where the original lies."""
        return self.images.location(index)

    def name(self, index: int) -> str:
        """Name of the original."""
        return self.images.name(index)

    def fingerprint(self) -> str:
        """That of the other set."""
        return self.images.fingerprint()

    def revision(self) -> str:
        """That of the other set."""
        return self.images.revision()


class KeptReductions(Reductions):
    """Forms of images that are kept in a folder."""

    folder: Path = Field(exclude=True)

    def images(self, images: ImageSet) -> dict[str, ImageSet]:
        """As in `Reductions`."""
        return {name: KeptImages(form, self.folder) for name, form in super().images(images).items()}


@PROTOCOLS.register("CoveredLFW")
class CoveredLFW(Reduced):
    """What ``LFW`` with ``occlude`` tests, with the same report.

    Args:
        root: As for `LFW`.
        pairs: As for `LFW`.
        exclude: As for `LFW`.
        occlude: As in `Reductions`.
        kept: Folder of the pixels.
    """

    def __init__(self, root: Path, pairs: Path, exclude: Path, occlude: Any, kept: Path) -> None:
        lfw = LFW(root, pairs, exclude=exclude)
        lfw.images = KeptImages(lfw.images, kept)
        super().__init__(lfw, validate(KeptReductions, {"occlude": occlude, "folder": kept}, "CoveredLFW"))

    def keep(self) -> None:
        """Write all pixels; processes side by side begin with different forms, so that they share the work."""
        forms = [self.protocol.images, *self.reductions.images(self.protocol.images).values()]
        for form in random.Random(os.getpid()).sample(forms, len(forms)):
            if isinstance(form, KeptImages):
                _ = form.pixels
