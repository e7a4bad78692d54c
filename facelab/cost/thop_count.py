"""The count of THOP, which many papers print, and what it is made of."""

import importlib
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn

from facelab.cost.network_cost import NEEDS_DATA, shapes_of_inputs, without_data

PRODUCTS = ("Conv", "Linear")


@dataclass(frozen=True)
class ThopCount:
    """What THOP says of one image.

    Attributes:
        total: Its number of operations, called MACs.
        by_layer: The same by the kind of layer, such as ``Conv2d``.
    """

    total: int
    by_layer: Mapping[str, int]

    @property
    def products(self) -> int:
        """Its multiply-accumulates of convolution and linear layers."""
        return sum(count for kind, count in self.by_layer.items() if self.is_product(kind))

    @staticmethod
    def is_product(kind: str) -> bool:
        """Whether a kind of layer multiplies and accumulates."""
        return kind.startswith(PRODUCTS)


@cache
def thop_missing() -> str | None:
    """Why THOP cannot be asked, as one sentence; None if it can."""
    try:
        importlib.import_module("thop")
    except ImportError as error:
        return f"THOP's column is empty ({error}): pip install thop."
    return None


def count_by_thop(network: nn.Module, size: tuple[int, int]) -> ThopCount | None:
    """Ask THOP; None if it is not installed, or the network cannot run without data.

    THOP knows layers by their exact class: subclasses, functional operations, attention's products and bare parameters
    are nothing to it, and BatchNorm counts as 4 operations for each number.

    Args:
        network: Takes images (B, 3, H, W); left as it is.
        size: (H, W).
    """
    if thop_missing():
        return None
    thop: Any = importlib.import_module("thop")
    shadow = without_data(network)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # THOP warns of its own functions
            total, _, layers = thop.profile(shadow, shapes_of_inputs(1, size), verbose=False, ret_layer_info=True)
    except NEEDS_DATA:
        return None
    counts: Counter[str] = Counter()
    _add_layers(counts, shadow, layers)
    return ThopCount(int(total), {kind: count for kind, count in counts.items() if count})


def _add_layers(counts: Counter[str], module: nn.Module, layers: Mapping[str, Any]) -> None:
    for name, (count, _, inner) in layers.items():
        layer = module.get_submodule(name)
        if inner:
            _add_layers(counts, layer, inner)
        else:
            counts[type(layer).__name__] += int(count)
