"""BRISQUE's 36 features: how the statistics of an image's local contrast depart from those of natural scenes."""

import math
from functools import lru_cache

import torch
from torch import Tensor

FEATURES = 36
RADIUS, SIGMA = 3, 7 / 6  # of the Gaussian window, 7x7
CONSTANT = 1 / 255  # of the divisive normalisation, on a scale of 0..1
CUBIC_HALF = (-3 / 32, 19 / 32, 19 / 32, -3 / 32)  # cubic convolution with a = -0.75, half-way between two pixels
LEAST_SHAPE, LARGEST_SHAPE, HALVINGS = 0.05, 100.0, 48  # 0.05 to 100 in 2^48 steps


def scene_statistics(grey: Tensor) -> Tensor:
    """Features of images at full and at half size.

    Args:
        grey: float64 in 0..1, (B, H, W). Float32 does not do: the local variance is a difference of nearly equal
            numbers.

    Returns:
        float64, (B, 36).
    """
    return torch.cat([_features(grey), _features(halved(grey))], dim=1)


def contrast_normalised(grey: Tensor) -> Tensor:
    """``(x - mean) / (deviation + 1/255)`` in a Gaussian window (MSCN coefficients), (B, H, W); zeros lie outside."""
    rows, columns = (_window(side).to(grey.device) for side in grey.shape[1:])
    mean = rows @ grey @ columns
    square = rows @ grey.square() @ columns
    return (grey - mean) / ((mean.square() - square).abs().sqrt() + CONSTANT)


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
    """Mean square of the negative values and of the others, and (mean |x|)^2 / mean x^2; each (B, maps)."""
    found = []
    for values in maps:
        count, negative = values[0].numel(), values < 0
        below = negative.sum((1, 2))
        left, square = values.clamp(max=0).square().sum((1, 2)), values.square().sum((1, 2))
        ratio = (values.abs().sum((1, 2)) / count).square() / (square / count)
        found.append((left / below, (square - left) / (count - below), ratio))
    left_variance, right_variance, ratios = (torch.stack(column, dim=1) for column in zip(*found, strict=True))
    return left_variance, right_variance, ratios


def _shape(left_variance: Tensor, right_variance: Tensor, ratio: Tensor) -> Tensor:
    """Shape of the asymmetric generalised Gaussian with these moments (Lasmar et al., ICIP 2009), by bisection."""
    skew = (left_variance / right_variance).sqrt()
    target = ratio * (skew**3 + 1) * (skew + 1) / (skew.square() + 1).square()
    low, high = torch.full_like(target, math.log(LEAST_SHAPE)), torch.full_like(target, math.log(LARGEST_SHAPE))
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        shape = middle.exp()
        rises = 2 * torch.lgamma(2 / shape) - torch.lgamma(1 / shape) - torch.lgamma(3 / shape)
        below = rises.exp() < target
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return torch.where(target.isnan(), target, ((low + high) / 2).exp())


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
