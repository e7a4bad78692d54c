"""Sizes that follow from others: channels from a width factor, the last map from the input and the strides."""

import math

from facelab.errors import ConfigError, in_range
from facelab.inputs import InputSpec

MAX_WIDTH = 8.0
CHANNEL_MULTIPLE = 8


def scaled_channels(channels: int, width: float) -> int:
    """``channels * width``, rounded to a multiple of 8 (vector units like that) and at least 8.

    Raises:
        ConfigError: If the width factor is not in (0, 8].
    """
    in_range("backbone width", width, 0.0, MAX_WIDTH, low_open=True)
    # floor(x + 0.5), because round() takes halves to the next even number.
    return max(CHANNEL_MULTIPLE, CHANNEL_MULTIPLE * math.floor(channels * width / CHANNEL_MULTIPLE + 0.5))


def divisible(channels: float, divisor: int) -> int:
    """The nearest multiple of ``divisor``, but never less than 90 % of ``channels`` (the rule of the MobileNets)."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded if rounded >= 0.9 * channels else rounded + divisor


def last_map_size(what: str, spec: InputSpec, halvings: int) -> tuple[int, int]:
    """(height, width) of the map after padded convolutions of stride 2, each of which rounds up.

    Args:
        what: Names the network in the message.
        spec: Size of the input.
        halvings: Number of layers with stride 2.

    Raises:
        ConfigError: If the image is smaller than the total stride, so that most of the last map would be padding.
    """
    total = 2**halvings
    if min(spec.size) < total:
        raise ConfigError(
            f"{what} halves its input {halvings} times, so it needs images of at least {total}x{total}, "
            f"but input_spec gives {spec.height}x{spec.width}."
        )
    return math.ceil(spec.height / total), math.ceil(spec.width / total)
