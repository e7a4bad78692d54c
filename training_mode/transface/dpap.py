"""Dominant patch amplitude perturbation: patches get the amplitudes of others and keep their own phases."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from facelab.backbone.base import PatchGrid
from facelab.data.transforms.draws import Draws
from facelab.data.transforms.rows import on_device

NO_AMPLITUDE = 1e-12  # of grey values, whose amplitudes are 0 or, by rounding, 1e-6 and more; its square is no 0 yet


@dataclass(frozen=True)
class Donors:
    """From where M images of a batch of B take amplitudes, K patches each, and how much of them.

    Attributes:
        rows: The images that are changed, int64, (M,).
        image: The donors, images of the same batch, int64, (M, K).
        patch: Their patches, row by row, int64, (M, K).
        share: Of the donor in the mixed amplitude, 0..1, float32, (M, K).
    """

    rows: NDArray[np.int64]
    image: NDArray[np.int64]
    patch: NDArray[np.int64]
    share: NDArray[np.float32]

    @classmethod
    def drawn(
        cls, draw: Draws, batch: int, grid: PatchGrid, patches: int, probability: float, strength: float
    ) -> "Donors":
        """Donors for a batch: any patch of any of its images, the changed one among them.

        Args:
            draw: The random numbers of its images.
            batch: B.
            grid: Where the patches lie.
            patches: K.
            probability: Of an image to be changed.
            strength: Shares are even from 0 to this.
        """
        rows = draw.chosen(probability)
        image, patch, share = (draw(name, patches)[rows] for name in ("image", "patch", "share"))
        return cls(
            rows,
            (image * batch).astype(np.int64),
            (patch * grid.count).astype(np.int64),
            (share * strength).astype(np.float32),
        )


def mix_amplitudes(own: Tensor, donor: Tensor, share: Tensor, part: float = 1.0) -> Tensor:
    """Patches with a mixed amplitude spectrum and their own phase (Dan et al., ICCV 2023, arXiv:2308.10133).

    Args:
        own: (…, H, W), each channel on its own.
        donor: Of the same shape.
        share: Of the donor's amplitude, 0..1, broadcast to (…, 1, 1).
        part: Share of the spectrum that is mixed, above 0, at most 1: a square around frequency 0. The published
            training mixes all of it.

    Returns:
        Values of the same shape and type, which may lie outside of those of grey values.
    """
    if part < 1.0:
        return _mixed_in_part(own, donor, share, part)
    # Where there is no amplitude there is no phase to keep: this makes it 0, and changes no other number.
    spectrum = torch.fft.rfft2(own) + NO_AMPLITUDE
    ratio = (_power(torch.fft.rfft2(donor)) / _power(spectrum)).sqrt()
    # The amplitude is scaled where it stands: to take the phase out and put it back costs twice as much.
    mixed: Tensor = torch.fft.irfft2(spectrum * (1.0 - share + share * ratio), s=own.shape[-2:])
    return mixed


def _mixed_in_part(own: Tensor, donor: Tensor, share: Tensor, part: float) -> Tensor:
    spectrum = torch.fft.fft2(own) + NO_AMPLITUDE
    factor = 1.0 - share + share * (_power(torch.fft.fft2(donor)) / _power(spectrum)).sqrt()
    inside = torch.zeros(own.shape[-2:], dtype=torch.bool, device=own.device)
    square = [_around_middle(length, math.sqrt(part)) for length in inside.shape]
    inside[square[0], square[1]] = True
    # With the frequencies in the order of their size the square may reach further to one side than to the other; what
    # that leaves of imaginary numbers is dropped, as in the published program.
    spectrum *= torch.where(torch.fft.ifftshift(inside), factor, 1.0)
    mixed: Tensor = torch.fft.ifft2(spectrum).real
    return mixed


def _around_middle(length: int, share: float) -> slice:
    side = int(length * share)
    start = length // 2 - side // 2
    return slice(start, start + side)


def _power(spectrum: Tensor) -> Tensor:
    return spectrum.real.square() + spectrum.imag.square()


def perturb(image: Tensor, grid: PatchGrid, place: Tensor, donors: Donors) -> Tensor:
    """A copy of a batch with the amplitudes of some patches mixed, by one FFT on the device.

    Donors are what they were before anything changed, where the published program may take a patch that it has changed
    already. As there, results are cut to 0..255 and their fractions dropped.

    Args:
        image: uint8, (B, 3, H, W).
        grid: Where the patches lie.
        place: Which patches of each image in ``donors.rows`` are changed, row by row, all different, int64, (M, K).
        donors: See `Donors`.
    """
    drawn = (donors.rows, donors.image, donors.patch, donors.share)
    rows, donor, patch, share = (on_device(one, image) for one in drawn)
    own = (rows[:, None], place // grid.columns, place % grid.columns)
    others = (donor, patch // grid.columns, patch % grid.columns)
    patches = _patches(image, grid)
    mixed = mix_amplitudes(patches[own].float(), patches[others].float(), share[:, :, None, None, None])
    changed = image.clone()
    _patches(changed, grid)[own] = mixed.clamp_(0, 255).to(torch.uint8)
    return changed


def _patches(image: Tensor, grid: PatchGrid) -> Tensor:
    """A view of images (B, 3, H, W) as patches, (B, rows, columns, 3, side, side)."""
    side = grid.side
    inside = image[:, :, : grid.rows * side, : grid.columns * side]
    return inside.view(*image.shape[:2], grid.rows, side, grid.columns, side).permute(0, 2, 4, 1, 3, 5)
