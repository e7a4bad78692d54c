"""Losses that a mode adds up, as its settings name them."""

import math
from collections.abc import Mapping
from typing import Any

from facelab.errors import ConfigError, in_range
from facelab.registry import Registry

Losses = Mapping[str, float | dict[str, Any] | None]
"""Weights by a loss's name, or its options with ``weight`` among them, or null for none of it."""


def weighted(mode: str, registry: Registry[Any], losses: Losses) -> dict[str, tuple[float, dict[str, Any]]]:
    """Weight and options of each loss that is wanted.

    Args:
        mode: Names the mode in messages.
        registry: Of these losses.
        losses: As the settings have them.

    Raises:
        ConfigError: If a name is unknown, or a weight is no positive number.
    """
    found: dict[str, tuple[float, dict[str, Any]]] = {}
    for name, given in losses.items():
        if given is None:
            continue
        registry.get(name)
        options = dict(given) if isinstance(given, dict) else {"weight": given}
        weight = options.pop("weight", 1.0)
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            raise ConfigError(f"{mode} losses.{name}.weight is {weight!r}, but must be a number.")
        in_range(f"{mode} losses.{name} weight", weight, 0.0, math.inf, low_open=True, high_open=True)
        found[name] = float(weight), options
    return found
