"""Sharpness: how strong fine detail is beside contrast and noise."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from facelab.errors import in_range
from facelab.iqa.base import SCORERS, PixelScorer
from facelab.iqa.luma import luma
from facelab.scorer_card import ScorerCard

VERSION = "1"
NOISE_WEIGHT = 10.0  # from how much noise on it counts as lost contrast
FLOOR = 1.0  # variance of grey values below which an image counts as empty
NORMAL_MEDIAN = 0.6745  # of the absolute value of a standard normal variable
SCALE = 1000.0


@SCORERS.register("Sharpness")
class Sharpness(PixelScorer):
    """``1000 mean(g_xy^2) / (variance + 10 noise)``; higher is better, about 1.3 for a sharp aligned face.

    ``g_xy`` is the mixed derivative of the grey values after a Gaussian of width ``sigma``. The variance of the
    Laplacian, which is more common, rises with noise and with the blocks of JPEG: here the Gaussian and the estimate of
    the noise (from the median second difference, Immerkaer 1996) see to the former, and the mixed derivative to the
    latter, as it is blind for edges along rows and columns. Contrast and brightness do not count.

    It falls with blur, lower resolution and noise; JPEG changes it by less than 2 %.

    Args:
        sigma: Width of the Gaussian, in pixels.

    Raises:
        ConfigError: If ``sigma`` is out of range.
    """

    smallest = 3

    def __init__(self, sigma: float = 1.0) -> None:
        in_range("Sharpness sigma", sigma, 0.3, 20.0)
        self._derivative = _gaussian_derivative(sigma)
        self.card = ScorerCard(name="Sharpness", version=f"{VERSION} sigma={sigma:g}", low=0.0, higher_is_better=True)

    def measure(self, pixels: Tensor) -> Tensor:
        """The scores, (B,)."""
        grey = luma(pixels)
        detail = self._mixed_derivative(grey).square().mean(dim=(1, 2))
        variance = grey.flatten(1).var(dim=1, correction=0)
        return SCALE * detail / (variance + NOISE_WEIGHT * noise_variance(grey) + FLOOR)

    def _mixed_derivative(self, grey: Tensor) -> Tensor:
        """``d^2/dxdy`` of the smoothed image, (B, H, W); the border is mirrored, or repeated in tiny images."""
        kernel = self._derivative.to(grey.device)
        reach = len(kernel) // 2
        mode = "reflect" if reach < min(grey.shape[1:]) else "replicate"
        padded = F.pad(grey[:, None], (reach,) * 4, mode=mode)
        return F.conv2d(F.conv2d(padded, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))[:, 0]


def noise_variance(grey: Tensor) -> Tensor:
    """Variance of white noise in images, (B, H, W) -> (B,): Immerkaer's operator with a median instead of a mean."""
    second = grey[:, 2:] - 2 * grey[:, 1:-1] + grey[:, :-2]
    mixed = second[:, :, 2:] - 2 * second[:, :, 1:-1] + second[:, :, :-2]
    return (mixed.abs().flatten(1).median(dim=1).values / (NORMAL_MEDIAN * 6)).square()


def _gaussian_derivative(sigma: float) -> Tensor:
    """Central difference of a Gaussian that sums to 1, of odd length."""
    reach = math.ceil(3 * sigma)
    offset = torch.arange(-reach, reach + 1, dtype=torch.float32)
    weight = torch.exp(-offset.square() / (2 * sigma**2))
    padded = F.pad(weight / weight.sum(), (2, 2))
    return (padded[2:] - padded[:-2]) / 2
