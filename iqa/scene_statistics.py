"""BRISQUE's 36 features: how the statistics of an image's local contrast depart from those of natural scenes."""

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

FEATURES = 36
RADIUS, SIGMA = 3, 7 / 6  # of the Gaussian window, 7x7
CONSTANT = 1 / 255  # of the divisive normalisation, on a scale of 0..1
CUBIC_HALF = (-3 / 32, 19 / 32, 19 / 32, -3 / 32)  # cubic convolution with a = -0.75, half-way between two pixels
ROUNDING = 1e-12  # no grey value differs by so little from the mean around it, but by rounding
LEAST_SHAPE, LARGEST_SHAPE, SHAPES = 0.05, 100.0, 1 << 14


def scene_statistics(grey: Tensor) -> Tensor:
    """Features of images at full and at half size.

    Args:
        grey: float64 in 0..1, (B, H, W). Float32 does not do: the local variance is a difference of nearly equal
            numbers, and scores of images with white areas would move by 30. What comes after it is float32.

    Returns:
        float64, (B, 36).
    """
    return torch.cat([_features(grey), _features(halved(grey))], dim=1)


def contrast_normalised(grey: Tensor) -> Tensor:
    """``(x - mean) / (deviation + 1/255)`` in a Gaussian window (MSCN coefficients), float32, (B, H, W).

    Zeros lie outside of the image. Where the window is flat, grey value and mean differ by rounding alone. The features
    count signs, so the score depends on it, by up to 0.3 for a flat JPEG; there the difference is that of the original,
    whose sums over the window run in a fixed order. In an image of one colour it is 0, whatever the colour.
    """
    rows, columns = (_window(side).to(grey.device, non_blocking=True) for side in grey.shape[1:])
    mean = rows @ grey @ columns
    variance = (rows @ grey.square() @ columns).sub_(mean.square())
    # Rounding may leave the variance of a flat window a little below 0.
    deviation = variance.to(torch.float32).abs_().sqrt_()
    difference = grey - mean
    flat = difference.abs() < ROUNDING
    one_colour = (grey == grey[:, :1, :1]).flatten(1).all(dim=1)
    difference[flat] = _rounding_of_flat(grey[flat])
    difference.masked_fill_(flat & one_colour[:, None, None], 0.0)
    return difference.to(torch.float32).div_(deviation.add_(CONSTANT))


def _rounding_of_flat(grey: Tensor) -> Tensor:
    """What the original leaves of ``grey - mean`` where the whole window is ``grey``, (N,) -> (N,).

    The mean in the order of SciPy's convolution: of each row of the window four products first, then the others one by
    one. Products and sums apart: a fused multiply-add, which not every processor has, would round differently.
    """
    mean = torch.zeros_like(grey)
    for row in _window_as_published():
        first, second, third, fourth, *others = (grey * weight for weight in row)
        mean.add_(first.add_(second).add_(third).add_(fourth))
        for other in others:
            mean.add_(other)
    return grey - mean


@lru_cache(maxsize=1)
def _window_as_published() -> list[list[float]]:
    """The rows of the Gaussian window, 7x7, with the original's rounding."""
    factor, places = 1 / (2 * math.pi * SIGMA**2), range(-RADIUS, RADIUS + 1)
    # math.exp: NumPy's differs between instruction sets
    weight = np.array([[factor * math.exp(-(x**2 + y**2) / (2 * SIGMA**2)) for x in places] for y in places])
    rows: list[list[float]] = (weight / np.sum(weight)).tolist()
    return rows


def halved(grey: Tensor) -> Tensor:
    """Images at half size by cubic convolution without smoothing, as OpenCV does it, (B, H, W) -> (B, h, w).

    First along the rows, then along the columns, each product and sum rounded by itself: see `contrast_normalised`.
    """
    return _halved_rows(_halved_rows(grey).mT).mT.contiguous()


def _halved_rows(grey: Tensor) -> Tensor:
    """Rows of half the length, (B, H, W) -> (B, H, round(W / 2)); the border is repeated."""
    half = round(grey.shape[2] / 2)
    beyond = max(0, 2 * half + 1 - grey.shape[2])
    padded = pad(grey, (1, beyond), mode="replicate")
    first, *others = (padded[:, :, start : start + 2 * half : 2] * weight for start, weight in enumerate(CUBIC_HALF))
    for other in others:
        first = first.add_(other)
    return first


def _features(grey: Tensor) -> Tensor:
    """18 features of one scale, (B, 18): two of the coefficients, four of each product with a neighbour."""
    x = contrast_normalised(grey)
    right, below = x[:, :, :-1] * x[:, :, 1:], x[:, :-1] * x[:, 1:]
    diagonals = x[:, :-1, :-1] * x[:, 1:, 1:], x[:, 1:, :-1] * x[:, :-1, 1:]
    left_variance, right_variance, ratio = _moments(x, right, below, *diagonals)
    shape = _shape(left_variance, right_variance, ratio)
    spread = torch.exp((torch.lgamma(1 / shape) - torch.lgamma(3 / shape)) / 2)
    mean = (right_variance.sqrt() - left_variance.sqrt()) * spread
    mean = mean * torch.exp(torch.lgamma(2 / shape) - torch.lgamma(1 / shape))
    products = torch.stack([shape, mean, left_variance, right_variance], dim=2)[:, 1:]
    variance = (left_variance[:, :1] + right_variance[:, :1]) / 2
    return torch.cat([shape[:, :1], variance, products.flatten(1)], dim=1)


def _moments(*maps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean square of the negative values and of the others, and (mean |x|)^2 / mean x^2; each float64, (B, maps).

    Sums, norms and signs are one fast pass each; comparing and counting takes ten times as long.
    """
    found = []
    for values in maps:
        negative = values.clamp(max=0)
        left, square = (torch.linalg.vector_norm(one, dim=(1, 2)) for one in (negative, values))
        absolute = values.sum((1, 2)) - 2 * negative.sum((1, 2))
        found.append(torch.stack([left, square, absolute, -negative.sign_().sum((1, 2))]))
    left, square, absolute, below = torch.stack(found, dim=2).to(torch.float64)
    left, square = left.square(), square.square()
    count = torch.tensor([values[0].numel() for values in maps], dtype=torch.float64)
    count = count.to(left.device, non_blocking=True)
    return left / below, (square - left) / (count - below), (absolute / count).square() / (square / count)


def _shape(left_variance: Tensor, right_variance: Tensor, ratio: Tensor) -> Tensor:
    """Shape of the asymmetric generalised Gaussian with these moments (Lasmar et al., ICIP 2009), from a table."""
    skew = (left_variance / right_variance).sqrt()
    target = ratio * (skew**3 + 1) * (skew + 1) / (skew.square() + 1).square()
    log_shapes, ratios = (column.to(target.device, non_blocking=True) for column in _shapes())
    place = torch.searchsorted(ratios, target.contiguous()).clamp(1, SHAPES - 1)
    part = (target - ratios[place - 1]) / (ratios[place] - ratios[place - 1])
    return torch.lerp(log_shapes[place - 1], log_shapes[place], part.clamp(0, 1)).exp()


@lru_cache(maxsize=1)
def _shapes() -> tuple[Tensor, Tensor]:
    """Logarithms of shapes, and (mean |x|)^2 / mean x^2 of the generalised Gaussian with each; both rise."""
    log_shapes = torch.linspace(math.log(LEAST_SHAPE), math.log(LARGEST_SHAPE), SHAPES, dtype=torch.float64)
    shapes = log_shapes.exp()
    return log_shapes, (2 * torch.lgamma(2 / shapes) - torch.lgamma(1 / shapes) - torch.lgamma(3 / shapes)).exp()


@lru_cache(maxsize=64)
def _window(side: int) -> Tensor:
    """The Gaussian window as a symmetric band matrix, (side, side)."""
    offset = torch.arange(-RADIUS, RADIUS + 1, dtype=torch.float64)
    weight = torch.exp(-offset.square() / (2 * SIGMA**2))
    places = torch.arange(side)
    distance = (places[:, None] - places + RADIUS).clamp(-1, 2 * RADIUS + 1)
    inside = (distance >= 0) & (distance <= 2 * RADIUS)
    return torch.where(inside, (weight / weight.sum())[distance.clamp(0, 2 * RADIUS)], 0.0)
