"""Sharpness: how strong fine detail is beside contrast and noise."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from facelab.errors import in_range
from facelab.iqa.base import SCORERS, PixelScorer
from facelab.iqa.luma import luma
from facelab.quality.card import ScorerCard

VERSION = "2"
NOISE_WEIGHT = 10.0  # from how much noise on it counts as lost contrast
FLOOR = 1.0  # variance of grey values below which an image counts as empty
NORMAL_MEDIAN = 0.6745  # of the absolute value of a standard normal variable
SCALE = 1000.0
BLOCK = 8  # pixels of a block of JPEG
FLAT = 0.01  # difference of neighbours, in grey values, that counts as none
EVEN = 0.85  # what `evenness` of images without blocks hardly falls below


@SCORERS.register("Sharpness")
class Sharpness(PixelScorer):
    """``sqrt(1000 mean(g_xy^2) / (variance + 10 noise)) * min(1, evenness / 0.85)``; higher is better.

    A sharp aligned face has about 1. ``g_xy`` is the mixed derivative of the grey values after a Gaussian of width
    ``sigma``. The variance of the Laplacian, which is more common, rises with noise and with the blocks of JPEG: here
    the Gaussian and the estimate of the noise (from the median second difference, Immerkaer 1996) see to the former,
    and the mixed derivative to the latter, as it is blind for edges along rows and columns. What JPEG takes from the
    detail, its rings give back; so blocks are looked for by themselves (`evenness`). Contrast and brightness do not
    count.

    It falls with blur, lower resolution, noise and JPEG of a quality of about 70 and less. Blocks are seen only at the
    size at which they were made: an image that was enlarged after it was compressed is as sharp as its detail.

    Args:
        sigma: Width of the Gaussian, in pixels.

    Raises:
        ConfigError: If ``sigma`` is out of range.
    """

    smallest = 3
    exportable = True

    def __init__(self, sigma: float = 1.0) -> None:
        in_range("Sharpness sigma", sigma, 0.3, 20.0)
        self._derivative = _gaussian_derivative(sigma)
        self.card = ScorerCard(name="Sharpness", version=f"{VERSION} sigma={sigma:g}", low=0.0, higher_is_better=True)

    def measure(self, pixels: Tensor) -> Tensor:
        """The scores, (B,)."""
        grey = luma(pixels)
        detail = self._mixed_derivative(grey).square().mean(dim=(1, 2))
        variance = grey.flatten(1).var(dim=1, correction=0)
        strength = SCALE * detail / (variance + NOISE_WEIGHT * noise_variance(grey) + FLOOR)
        # Of amplitudes, not of powers: those are skewed, and no threshold between two humps would be found.
        return strength.sqrt() * (evenness(grey) / EVEN).clamp(max=1)

    def _mixed_derivative(self, grey: Tensor) -> Tensor:
        """``d^2/dxdy`` of the smoothed image, (B, H, W); the border is mirrored, or repeated in tiny images."""
        kernel = self._derivative.to(grey.device, non_blocking=True)
        reach = len(kernel) // 2
        mode = "reflect" if reach < min(grey.shape[1:]) else "replicate"
        padded = F.pad(grey[:, None], (reach,) * 4, mode=mode)
        return F.conv2d(F.conv2d(padded, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))[:, 0]


def noise_variance(grey: Tensor) -> Tensor:
    """Variance of white noise in images, (B, H, W) -> (B,): Immerkaer's operator with a median instead of a mean."""
    second = grey[:, 2:] - 2 * grey[:, 1:-1] + grey[:, :-2]
    mixed = second[:, :, 2:] - 2 * second[:, :, 1:-1] + second[:, :, :-2]
    # The squares of the operator's nine numbers sum to 36: noise of deviation 1 leaves it with 6. The median, since
    # edges are few but large.
    return (_median(mixed.abs().flatten(1)) / (NORMAL_MEDIAN * 6)).square()


def _median(values: Tensor) -> Tensor:
    """The lower median of each row, (B, N) -> (B,)."""
    if torch.compiler.is_exporting():  # ONNX has no median, and sorting takes four times as long
        return values.sort(dim=1).values[:, (values.shape[1] - 1) // 2]
    return values.median(dim=1).values


def evenness(grey: Tensor) -> Tensor:
    """How equal the eight places in blocks of eight pixels are, (B, H, W) -> (B,), 0..1; low where JPEG left blocks.

    Neighbouring columns, and rows, differ by about as much wherever they lie; between two blocks they differ by more.
    Differences are averaged by the place of the column modulo 8, wherever the grid begins, and the mean of the seven
    smaller averages is divided by the largest. Axes of less than two blocks are left out; without any it is 1.
    """
    pairs = [_by_place(axis) for axis in (grey, grey.transpose(1, 2)) if axis.shape[2] > 2 * BLOCK]
    if not pairs:
        return grey.new_ones(len(grey))
    # Sorted before they are added: the grid may begin at other places in rows than in columns.
    places = torch.stack(pairs).sort(dim=2).values.sum(dim=0)
    return (places[:, :-1].mean(dim=1) + FLAT) / (places[:, -1] + FLAT)


def _by_place(grey: Tensor) -> Tensor:
    """Mean absolute difference of neighbours within rows, by the place modulo 8, (B, H, W) -> (B, 8)."""
    difference = (grey[:, :, 1:] - grey[:, :, :-1]).abs().mean(dim=1)
    whole = difference.shape[1] // BLOCK * BLOCK
    return difference[:, :whole].reshape(len(grey), -1, BLOCK).mean(dim=1)


def _gaussian_derivative(sigma: float) -> Tensor:
    """Central difference of a Gaussian that sums to 1, of odd length."""
    reach = math.ceil(3 * sigma)
    offset = torch.arange(-reach, reach + 1, dtype=torch.float32)
    weight = torch.exp(-offset.square() / (2 * sigma**2))
    padded = F.pad(weight / weight.sum(), (2, 2))
    return (padded[2:] - padded[:-2]) / 2
