"""BatchNorm by the batch with PReLU and residual: the kernels of `facelab.backbone.layers.fused_norm`.

A map (B, C, H, W) in channels_last is a matrix of B H W rows by C columns without gaps. Statistics are per column, so
that programs share out the rows (splits), sum up their own, and a second, small step adds the parts: always in the same
order, so that results repeat. All sums are fp32. Sizes are fixed, because measuring them would have no place in the
capture of a CUDA graph; they are not tuned on a GPU yet.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE = 2048  # numbers that a program holds of a map at once
MOST_COLUMNS = 128
PROGRAMS = 512  # that sum up rows: about four for each multiprocessor of a large chip
MERGED_SPLITS, MERGED_COLUMNS = 64, 16


@triton.jit
def _moments(x, counts, means, squares, rows, channels, splits, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Count, mean and sum of squared deviations of each split, by Welford's updates."""
    split = tl.program_id(0)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = (column < channels)[None, :]
    count = tl.zeros((ROWS, 1), tl.float32)
    mean = tl.zeros((ROWS, COLUMNS), tl.float32)
    square = tl.zeros((ROWS, COLUMNS), tl.float32)
    for start in range(split * ROWS, rows, splits * ROWS):
        row = start + tl.arange(0, ROWS)
        seen = (row < rows)[:, None]
        place = row.to(tl.int64)[:, None] * channels + column[None, :]
        value = tl.load(x + place, mask=seen & inside, other=0.0).to(tl.float32)
        count += seen.to(tl.float32)
        away = tl.where(seen, value - mean, 0.0)
        mean += away / tl.maximum(count, 1.0)
        square += away * (value - mean)
    number = tl.sum(tl.sum(count, axis=1), axis=0)
    whole = tl.sum(mean * count, axis=0) / number
    away = mean - whole[None, :]
    square = tl.sum(square + count * away * away, axis=0)
    tl.store(counts + split, number)  # equal for all columns
    tl.store(means + split * channels + column, whole, mask=column < channels)
    tl.store(squares + split * channels + column, square, mask=column < channels)


@triton.jit
def _merge(counts, means, squares, mean, variance, rows, channels, splits, SPLITS: tl.constexpr, COLUMNS: tl.constexpr):
    """Mean and biased variance of all rows (Chan et al., 1979): deviations within the splits and between them."""
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < channels
    total = tl.zeros((COLUMNS,), tl.float32)
    for start in range(0, splits, SPLITS):
        split = start + tl.arange(0, SPLITS)
        mask = (split < splits)[:, None] & inside[None, :]
        count = tl.load(counts + split, mask=split < splits, other=0.0)[:, None]
        part = tl.load(means + split[:, None] * channels + column[None, :], mask=mask, other=0.0)
        total += tl.sum(count * part, axis=0)
    centre = total / rows
    square = tl.zeros((COLUMNS,), tl.float32)
    for start in range(0, splits, SPLITS):
        split = start + tl.arange(0, SPLITS)
        mask = (split < splits)[:, None] & inside[None, :]
        count = tl.load(counts + split, mask=split < splits, other=0.0)[:, None]
        place = split[:, None] * channels + column[None, :]
        away = tl.load(means + place, mask=mask, other=0.0) - centre[None, :]
        square += tl.sum(tl.load(squares + place, mask=mask, other=0.0) + count * away * away, axis=0)
    tl.store(mean + column, centre, mask=inside)
    tl.store(variance + column, square / rows, mask=inside)


@triton.jit
def _apply(
    x, mean, variance, weight, bias, slope, residual, y, rows, channels, eps,
    SLOPE: tl.constexpr, RESIDUAL: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """The map normalised, scaled and shifted, then PReLU, then the residual added."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < channels
    mask = (row < rows)[:, None] & inside[None, :]
    place = row.to(tl.int64)[:, None] * channels + column[None, :]
    value = tl.load(x + place, mask=mask, other=0.0).to(tl.float32)
    inverse = tl.rsqrt(tl.load(variance + column, mask=inside, other=1.0) + eps)
    normal = (value - tl.load(mean + column, mask=inside, other=0.0)[None, :]) * inverse[None, :]
    scale = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    z = normal * scale[None, :] + tl.load(bias + column, mask=inside, other=0.0).to(tl.float32)[None, :]
    if SLOPE:
        negative = tl.load(slope + column, mask=inside, other=0.0).to(tl.float32)
        z = tl.where(z > 0, z, z * negative[None, :])
    if RESIDUAL:
        z += tl.load(residual + place, mask=mask, other=0.0).to(tl.float32)
    tl.store(y + place, z.to(y.dtype.element_ty), mask=mask)


@triton.jit
def _slopes(
    gradient, x, mean, variance, weight, bias, slope, parts, rows, channels, splits, eps,
    SLOPE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Each split's share of the gradients of weight, bias and slope: ``parts`` is (2 or 3, splits, C)."""
    split = tl.program_id(0)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < channels
    inverse = tl.rsqrt(tl.load(variance + column, mask=inside, other=1.0) + eps)[None, :]
    centre = tl.load(mean + column, mask=inside, other=0.0)[None, :]
    scale = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)[None, :]
    shift = tl.load(bias + column, mask=inside, other=0.0).to(tl.float32)[None, :]
    of_weight = tl.zeros((ROWS, COLUMNS), tl.float32)
    of_bias = tl.zeros((ROWS, COLUMNS), tl.float32)
    of_slope = tl.zeros((ROWS, COLUMNS), tl.float32)
    for start in range(split * ROWS, rows, splits * ROWS):
        row = start + tl.arange(0, ROWS)
        mask = (row < rows)[:, None] & inside[None, :]
        place = row.to(tl.int64)[:, None] * channels + column[None, :]
        of_z = tl.load(gradient + place, mask=mask, other=0.0).to(tl.float32)  # 0 where there is no row
        normal = (tl.load(x + place, mask=mask, other=0.0).to(tl.float32) - centre) * inverse
        if SLOPE:
            negative = tl.load(slope + column, mask=inside, other=0.0).to(tl.float32)[None, :]
            z = normal * scale + shift
            of_slope += tl.where(z > 0, 0.0, of_z * z)
            of_z = tl.where(z > 0, of_z, of_z * negative)
        of_weight += of_z * normal
        of_bias += of_z
    tl.store(parts + split * channels + column, tl.sum(of_weight, axis=0), mask=inside)
    tl.store(parts + (splits + split) * channels + column, tl.sum(of_bias, axis=0), mask=inside)
    if SLOPE:
        tl.store(parts + (2 * splits + split) * channels + column, tl.sum(of_slope, axis=0), mask=inside)


@triton.jit
def _input_gradient(
    gradient, x, mean, variance, weight, bias, slope, sums, of_x, rows, channels, eps,
    SLOPE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """The gradient of the input; ``sums`` holds those of weight and bias, (2 or 3, C)."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < channels
    mask = (row < rows)[:, None] & inside[None, :]
    place = row.to(tl.int64)[:, None] * channels + column[None, :]
    inverse = tl.rsqrt(tl.load(variance + column, mask=inside, other=1.0) + eps)[None, :]
    centre = tl.load(mean + column, mask=inside, other=0.0)[None, :]
    scale = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)[None, :]
    normal = (tl.load(x + place, mask=mask, other=0.0).to(tl.float32) - centre) * inverse
    of_z = tl.load(gradient + place, mask=mask, other=0.0).to(tl.float32)
    if SLOPE:
        negative = tl.load(slope + column, mask=inside, other=0.0).to(tl.float32)[None, :]
        z = normal * scale + tl.load(bias + column, mask=inside, other=0.0).to(tl.float32)[None, :]
        of_z = tl.where(z > 0, of_z, of_z * negative)
    of_weight = tl.load(sums + column, mask=inside, other=0.0)[None, :]
    of_bias = tl.load(sums + channels + column, mask=inside, other=0.0)[None, :]
    # Mean and variance depend on x too: what moves all rows alike, or along their deviations, changes nothing.
    value = scale * inverse * (of_z - (of_bias + normal * of_weight) / rows)
    tl.store(of_x + place, value.to(of_x.dtype.element_ty), mask=mask)


def _sizes(x: Tensor) -> tuple[int, int, dict[str, int]]:
    """Rows, channels, and the rows and columns of a program's tile."""
    channels = x.shape[1]
    columns = min(MOST_COLUMNS, triton.next_power_of_2(channels))
    return x.numel() // channels, channels, {"ROWS": TILE // columns, "COLUMNS": columns}


def _splits(rows: int, channels: int, tile: dict[str, int]) -> int:
    """In how many parts rows are summed; each has one at least."""
    wanted = max(1, PROGRAMS * tile["COLUMNS"] // channels)
    return min(wanted, -(-rows // tile["ROWS"]))


def forward(
    x: Tensor, weight: Tensor, bias: Tensor, slope: Tensor | None, residual: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """See `facelab.backbone.layers.fused_norm.fused_norm`; maps are in channels_last."""
    rows, channels, tile = _sizes(x)
    splits = _splits(rows, channels, tile)
    mean, variance = (x.new_empty(channels, dtype=torch.float32) for _ in range(2))
    means, squares = x.new_empty((2, splits, channels), dtype=torch.float32).unbind()
    counts = x.new_empty(splits, dtype=torch.float32)
    columns = triton.cdiv(channels, tile["COLUMNS"])
    _moments[splits, columns](x, counts, means, squares, rows, channels, splits, **tile)
    merged = {"SPLITS": MERGED_SPLITS, "COLUMNS": MERGED_COLUMNS}
    _merge[(triton.cdiv(channels, MERGED_COLUMNS),)](
        counts, means, squares, mean, variance, rows, channels, splits, **merged
    )
    y = torch.empty_like(x, memory_format=torch.channels_last)
    with_slope, with_residual = slope is not None, residual is not None
    given = (weight, bias, slope if with_slope else weight, residual if with_residual else x)
    _apply[triton.cdiv(rows, tile["ROWS"]), columns](
        x, mean, variance, *given, y, rows, channels, eps, SLOPE=with_slope, RESIDUAL=with_residual, **tile
    )
    return y, mean, variance


def backward(
    gradient: Tensor,
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    weight: Tensor,
    bias: Tensor,
    slope: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """See `facelab.backbone.layers.fused_norm.fused_norm_backward`; maps are in channels_last."""
    rows, channels, tile = _sizes(x)
    splits = _splits(rows, channels, tile)
    with_slope = slope is not None
    parts = x.new_empty((2 + with_slope, splits, channels), dtype=torch.float32)
    columns = triton.cdiv(channels, tile["COLUMNS"])
    given = (gradient, x, mean, variance, weight, bias, slope if with_slope else weight)
    _slopes[splits, columns](*given, parts, rows, channels, splits, eps, SLOPE=with_slope, **tile)
    sums = parts.sum(dim=1)
    of_x = torch.empty_like(x, memory_format=torch.channels_last)
    _input_gradient[triton.cdiv(rows, tile["ROWS"]), columns](
        *given, sums, of_x, rows, channels, eps, SLOPE=with_slope, **tile
    )
    return of_x, sums
