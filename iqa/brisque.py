"""BRISQUE, vectorised, with the model that the package ``brisque`` carries."""

import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from facelab.citation import Citation
from facelab.errors import ConfigError, DataError
from facelab.iqa.base import SCORERS, PixelScorer
from facelab.iqa.scene_statistics import FEATURES, scene_statistics
from facelab.iqa.svr import read_svr
from facelab.quality.card import ScorerCard
from facelab.weights.plain_pickle import read_plain_pickle

RED, GREEN, BLUE = 0.2125, 0.7154, 0.0721  # the grey of scikit-image
MODEL, SCALE = "svm.txt", "normalize.pickle"
LOW, HIGH = -100.0, 250.0
IN_CACHE = 200_000  # pixels that a core works on at once: what they become stays in its cache


@SCORERS.register("BRISQUE")
class BRISQUE(PixelScorer):
    """Blind image spatial quality evaluator (Mittal et al., IEEE TIP 2012); lower is better.

    Natural scenes have well-known statistics of local contrast; 36 numbers say how an image departs from them, and a
    support vector regression turns them into a score, from about 0 for a good image to about 100. Both are those of the
    package ``brisque`` 0.2.0, which scores one image at a time. The regression has no ends of its own: what lies
    outside of -100..250 is set there. An image of one colour has no statistics and gets what the model says of all that
    it has never seen, 155.8.

    Mild noise and mild JPEG raise the quality of smooth faces by this measure; see docs/quality.md.

    Args:
        model: Folder with ``svm.txt`` and ``normalize.pickle``; by default that of the installed package ``brisque``,
            which is not imported.

    Raises:
        ConfigError: If there is no model.
        DataError: If the model is damaged.
    """

    citation: ClassVar[Citation | None] = Citation(
        key="mittal2012brisque",
        title="No-Reference Image Quality Assessment in the Spatial Domain",
        authors="Mittal, Anish and Moorthy, Anush Krishna and Bovik, Alan Conrad",
        venue="IEEE Transactions on Image Processing",
        year=2012,
    )
    smallest: ClassVar[int] = 8

    def __init__(self, model: Path | None = None) -> None:
        folder = installed_model() if model is None else model
        if not (folder / MODEL).is_file() or not (folder / SCALE).is_file():
            raise ConfigError(
                f"BRISQUE: '{folder}' has no {MODEL} and {SCALE}; pip install 'facelab[quality]', or give their folder "
                "as model."
            )
        self._regression = read_svr(folder / MODEL, FEATURES)
        self._low, self._high = _read_scale(folder / SCALE)
        content = hashlib.sha256((folder / MODEL).read_bytes() + (folder / SCALE).read_bytes()).hexdigest()
        self.card = ScorerCard(name="BRISQUE", version=content[:16], low=LOW, high=HIGH, higher_is_better=False)

    def measure(self, pixels: Tensor) -> Tensor:
        """The scores, (B,)."""
        at_once = max(1, IN_CACHE // pixels[0, 0].numel()) if pixels.device.type == "cpu" else len(pixels)
        statistics = torch.cat([scene_statistics(grey_as_published(part)) for part in torch.split(pixels, at_once)])
        low, high = self._low.to(pixels.device, non_blocking=True), self._high.to(pixels.device, non_blocking=True)
        # Scaled to -1..1 by the ranges of the training images, as the model was fitted; others may lie outside.
        return self._regression(-1 + 2 / (high - low) * (statistics - low)).clamp(LOW, HIGH)


def grey_as_published(pixels: Tensor) -> Tensor:
    """Grey values of RGB images, uint8, (B, 3, H, W) -> float64 in 0..1, (B, H, W).

    Every product and sum is rounded by itself, in the original's order, so that the last digit is the same on every
    processor: in flat areas the score depends on it (`scene_statistics.contrast_normalised`).
    """
    red, green, blue = (channel.to(torch.float64).mul_(1 / 255) for channel in pixels.unbind(1))
    return red.mul_(RED).add_(green.mul_(GREEN)).add_(blue.mul_(BLUE))


def installed_model() -> Path:
    """The folder of the model in the package ``brisque``.

    Raises:
        ConfigError: If the package is not installed.
    """
    package = find_spec("brisque")
    if package is None or not package.submodule_search_locations:
        raise ConfigError(
            "BRISQUE needs the model of the package brisque: pip install 'facelab[quality]', or give its folder with "
            f"{MODEL} and {SCALE} as model, or take a scorer that needs no package, in a run "
            "data.quality={Sharpness: {}}."
        )
    return Path(package.submodule_search_locations[0]) / "models"


def _read_scale(path: Path) -> tuple[Tensor, Tensor]:
    """Least and greatest value of each feature in training, (36,) each."""
    content = read_plain_pickle(path)
    ends = [content.get(key) for key in ("min_", "max_")] if isinstance(content, dict) else []
    for end in ends:
        if not isinstance(end, list) or len(end) != FEATURES or not all(isinstance(value, float) for value in end):
            ends = []
    if not ends:
        raise DataError(f"{path}: does not hold the ranges of {FEATURES} features.")
    low, high = (torch.tensor(end, dtype=torch.float64) for end in ends)
    return low, high
