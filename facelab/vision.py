"""torchvision and timm, imported lazily, also where torchvision's compiled part does not match a CPU-only torch."""

import importlib
import sys
from functools import cache
from types import ModuleType
from typing import Any, cast

import torch

NMS_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


@cache
def load_torchvision() -> ModuleType:
    """The ``torchvision`` package.

    The wheel of the package index is built for CUDA; beside a CPU-only torch its operators do not load, and the import
    fails because the shape functions of ``nms`` find no operator. Declaring the two operators lets transforms, models
    and timm work; ``ops.nms`` and image decoding stay unavailable.

    Raises:
        ImportError: If torchvision is not installed.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "operator torchvision::nms does not exist" not in str(error):
            raise
    _forget("torchvision")
    _declare_operators()
    return importlib.import_module("torchvision")


@cache
def load_timm() -> ModuleType:
    """The ``timm`` package, which imports torchvision.

    Raises:
        ImportError: If timm or torchvision is not installed.
    """
    load_torchvision()
    return importlib.import_module("timm")


def _forget(package: str) -> None:
    """Remove the half-imported modules of a package, so that the next import starts afresh."""
    for name in [name for name in sys.modules if name == package or name.startswith(f"{package}.")]:
        del sys.modules[name]


@cache  # keeps the library object, and with it the declarations, alive
def _declare_operators() -> torch.library.Library:
    make: Any = torch.library.Library  # untyped in torch
    library = make("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(f"{name}{NMS_SCHEMA}")
    return cast(torch.library.Library, library)
