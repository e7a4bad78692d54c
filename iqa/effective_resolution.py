"""Effective resolution: how many pixels an image would need for what it shows."""

from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor

from facelab.errors import in_range
from facelab.iqa.base import SCORERS, PixelScorer
from facelab.iqa.luma import luma
from facelab.quality.card import ScorerCard

VERSION = "1"
TOP = 0.9  # of the highest frequency: what lies above tells the noise
MARGIN = 2.0  # only what exceeds so many times the noise counts
LEAST_NOISE = 1.0  # power of rounding to whole grey values and of what else hides below one
WEDGE = 0.15  # tangent of the angle at the axes that is left out: there lie the block edges of JPEG
WITHIN = 3  # frequencies below this many periods an image need the axes


@SCORERS.register("EffectiveResolution")
class EffectiveResolution(PixelScorer):
    """Twice the frequency, in periods across the shorter side, below which ``share`` of the detail lies: in pixels.

    The power spectrum of the grey image (Hann window) is averaged over rings; rings near the highest frequency tell the
    power N of noise. Of the power P of a ring, S = max(0, P - 2N) is taken as signal and weighted by Wiener's
    ``(S / (S + 2N))^2`` and by the square of its frequency, which makes all octaves of a natural image count alike. It
    falls with blur, lower resolution, JPEG and noise; contrast counts only against noise. An image enlarged from n
    pixels scores not much over n, however large its file: the range is 0 to the shorter side.

    Args:
        share: How much of the detail lies below the frequency, 0..1.

    Raises:
        ConfigError: If ``share`` is out of range.
    """

    smallest: ClassVar[int] = 8

    def __init__(self, share: float = 0.9) -> None:
        self.share = in_range("EffectiveResolution share", share, 0.0, 1.0, low_open=True, high_open=True)
        self.card = ScorerCard(
            name="EffectiveResolution", version=f"{VERSION} share={share:g}", low=0.0, higher_is_better=True
        )

    def measure(self, pixels: Tensor) -> Tensor:
        """The scores, (B,)."""
        power = ring_power(luma(pixels))
        noise = MARGIN * power[:, int(TOP * power.shape[1]) :].mean(dim=1, keepdim=True).clamp(min=LEAST_NOISE)
        signal = (power - noise).clamp(min=0)
        frequency = torch.arange(1, power.shape[1] + 1, device=power.device)
        detail = signal * (signal / (signal + noise)).square() * frequency.square()
        return 2 * self._quantile(detail)

    def _quantile(self, detail: Tensor) -> Tensor:
        """Frequency below which the share lies, between rings; 0 where there is nothing, (B, n) -> (B,)."""
        total = detail.cumsum(dim=1)
        goal = self.share * total[:, -1:]
        ring = (total < goal).sum(dim=1, keepdim=True).clamp(max=detail.shape[1] - 1)
        inside = detail.gather(1, ring)
        part = (goal - (total.gather(1, ring) - inside)) / inside.clamp(min=torch.finfo(detail.dtype).tiny)
        return torch.where(total[:, -1:] > 0, ring + part.clamp(0, 1), 0.0)[:, 0]


def ring_power(grey: Tensor) -> Tensor:
    """Mean power of each ring of 1, 2 … periods across the shorter side, (B, H, W) -> (B, shorter // 2).

    White noise of variance v has the power v in every ring.
    """
    height, width = grey.shape[1:]
    window, ring, weight = (part.to(grey.device, non_blocking=True) for part in _rings(height, width))
    # The mean under the window: what is left of it would leak into the first rings.
    centred = grey - (grey * window).sum(dim=(1, 2), keepdim=True) / window.sum()
    spectrum = torch.fft.rfft2(centred * window).abs().square() / window.square().sum()
    total = spectrum.new_zeros(len(grey), min(height, width) // 2 + 1)
    total.index_add_(1, ring.flatten(), (spectrum * weight).flatten(1))
    count = spectrum.new_zeros(total.shape[1]).index_add_(0, ring.flatten(), weight.flatten())
    mean: Tensor = total / count
    return mean[:, 1:]  # ring 0 collected what counts in none


@lru_cache(maxsize=64)
def _rings(height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Hann window (H, W); ring of each frequency, (H, W // 2 + 1), 0 for none; how much each counts in its ring."""
    window = torch.hann_window(height, periodic=False)[:, None] * torch.hann_window(width, periodic=False)
    shorter = min(height, width)
    down, right = torch.fft.fftfreq(height)[:, None].abs() * shorter, torch.fft.rfftfreq(width) * shorter
    ring = torch.hypot(down, right.expand(height, -1)).round().long()
    near_axis = torch.minimum(down, right) <= WEDGE * torch.maximum(down, right)
    used = (ring <= shorter // 2) & (~near_axis | (ring <= WITHIN))
    twice = torch.full_like(right, 2.0)  # the other half of a real spectrum
    twice[0] = 1.0
    if width % 2 == 0:
        twice[-1] = 1.0
    return window, torch.where(used, ring, 0), torch.where(used, twice, 1.0)
