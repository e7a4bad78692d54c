"""BRISQUE's 36 features: how the statistics of an image's local contrast depart from those of natural scenes."""

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import hardshrink

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

    Zeros lie outside of the image. Where the window is flat the coefficient is exactly 0: the features count signs, and
    the sign that rounding leaves there depends on the processor. It would move the score of a flat JPEG by 0.3.
    """
    rows, columns = (_window(side).to(grey.device) for side in grey.shape[1:])
    mean = rows @ grey @ columns
    variance = (rows @ grey.square() @ columns).sub_(mean.square())
    # Rounding may leave the variance of a flat window a little below 0.
    deviation = variance.to(torch.float32).abs_().sqrt_()
    difference = hardshrink((grey - mean).to(torch.float32), ROUNDING)
    return difference.div_(deviation.add_(CONSTANT))


def halved(grey: Tensor) -> Tensor:
    """Images at half size by cubic convolution without smoothing, as the original does it, (B, H, W) -> (B, h, w)."""
    rows, columns = (_half(side).to(grey.device) for side in grey.shape[1:])
    return rows @ grey @ columns.T


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
    count = torch.tensor([values[0].numel() for values in maps], dtype=torch.float64, device=left.device)
    return left / below, (square - left) / (count - below), (absolute / count).square() / (square / count)


def _shape(left_variance: Tensor, right_variance: Tensor, ratio: Tensor) -> Tensor:
    """Shape of the asymmetric generalised Gaussian with these moments (Lasmar et al., ICIP 2009), from a table."""
    skew = (left_variance / right_variance).sqrt()
    target = ratio * (skew**3 + 1) * (skew + 1) / (skew.square() + 1).square()
    log_shapes, ratios = (column.to(target.device) for column in _shapes())
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


@lru_cache(maxsize=64)
def _half(side: int) -> Tensor:
    """Reduction to half as a matrix, (round(side / 2), side); the border is repeated."""
    half = round(side / 2)
    matrix = torch.zeros(half, side, dtype=torch.float64)
    for offset, weight in enumerate(CUBIC_HALF, start=-1):
        source = (2 * torch.arange(half) + offset).clamp(0, side - 1)
        matrix.index_put_((torch.arange(half), source), torch.tensor(weight, dtype=torch.float64), accumulate=True)
    return matrix
