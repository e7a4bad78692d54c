"""CNNIQA: a small convolutional network that was trained on opinion scores."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from facelab.citation import Citation
from facelab.errors import ConfigError, DataError, one_of
from facelab.iqa.base import SCORERS, PixelScorer
from facelab.iqa.luma import rounded_luma
from facelab.quality.card import ScorerCard
from facelab.weights.published_file import read_state
from facelab.weights.state_hash import state_hash

Variant = Literal["live", "koniq"]
FILTERS, KERNEL, PATCH = 50, 7, 32
LAYERS = ("conv1", "fc1", "fc2", "fc3")


@dataclass(frozen=True)
class _Training:
    """What a variant was trained on."""

    channels: int
    high: float
    higher_is_better: bool
    smallest: int


TRAINING = {"live": _Training(1, 100.0, False, PATCH + 1), "koniq": _Training(3, 1.0, True, KERNEL)}


@SCORERS.register("CNNIQA")
class CNNIQA(PixelScorer):
    """Convolutional network for no-reference image quality (Kang et al., CVPR 2014).

    ``live``: grey patches of 32x32, locally normalised, scored one by one and averaged; opinions of the LIVE data set,
    0..100, lower is better. ``koniq``: the whole colour image without normalisation; opinions of KonIQ-10k, 0..1,
    higher is better; PETALface steers its adapters by it. The last layer is linear: what lies outside of the scale is
    set to its end.

    Args:
        weights: A safetensors file, or one of ``torch.save`` as published, with ``conv1``, ``fc1``, ``fc2`` and
            ``fc3``, each ``.weight`` and ``.bias``; see docs/quality.md for where to get one.
        variant: What the weights were trained on.
        as_published: Only for ``koniq``: feed -1..1 instead of 0..1, as PETALface does though the network was made for
            0..1.

    Raises:
        CheckpointError: If the file cannot be read.
        ConfigError: If the weights are not of the variant, or ``as_published`` does not apply.
    """

    citation: ClassVar[Citation | None] = Citation(
        key="kang2014cnniqa",
        title="Convolutional Neural Networks for No-Reference Image Quality Assessment",
        authors="Kang, Le and Ye, Peng and Li, Yi and Doermann, David",
        venue="CVPR",
        year=2014,
    )

    exportable = True

    def __init__(self, weights: Path, variant: Variant = "live", as_published: bool = False) -> None:
        trained = TRAINING[one_of("CNNIQA variant", variant, list(TRAINING))]
        if as_published and variant != "koniq":
            raise ConfigError("CNNIQA as_published is about the range of colour images; it needs variant: koniq.")
        self.variant, self.as_published = variant, as_published
        self._smallest = trained.smallest
        self._weights = {name: tensor.to(torch.float32) for name, tensor in read_state(str(weights)).items()}
        _check_shapes(self._weights, trained.channels, weights)
        version = f"{variant}{' -1..1' if as_published else ''} {state_hash(self._weights)[:16]}"
        self.card = ScorerCard(
            name="CNNIQA", version=version, low=0.0, high=trained.high, higher_is_better=trained.higher_is_better
        )

    def measure(self, pixels: Tensor) -> Tensor:
        """The scores, (B,)."""
        return self.raw(pixels).clamp(self.card.low, self.card.high)

    def raw(self, pixels: Tensor) -> Tensor:
        """What the network gives before the ends of its scale apply, in the precision of its weights, (B,).

        Raises:
            DataError: If the images are too small.
        """
        if min(pixels.shape[2:]) < self._smallest:
            height, width = pixels.shape[2:]
            raise DataError(
                f"CNNIQA {self.variant} takes images of at least {self._smallest}x{self._smallest} pixels, got "
                f"{height}x{width}; enlarge them, for example with --size 112."
            )
        precision = self._weights["conv1.weight"].dtype
        if self.variant == "koniq":
            image = pixels.to(precision) / 255
            return self._network(2 * image - 1 if self.as_published else image)
        patches = grey_patches(rounded_luma(pixels).to(precision) / 255)
        scores = self._network(locally_normalised(patches.flatten(0, 1)))
        return scores.view(patches.shape[:2]).mean(dim=1)

    def _network(self, image: Tensor) -> Tensor:
        """One number for each image, (B, channels, H, W) -> (B,)."""
        layers = [(self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]) for name in LAYERS]
        (kernel, offset), *linear = [
            (weight.to(image.device, non_blocking=True), bias.to(image.device, non_blocking=True))
            for weight, bias in layers
        ]
        maps = F.conv2d(image, kernel, offset).flatten(2)
        hidden = torch.cat([maps.amax(dim=2), maps.amin(dim=2)], dim=1)
        for weight, bias in linear[:-1]:
            hidden = F.linear(hidden, weight, bias).relu()
        return F.linear(hidden, *linear[-1]).squeeze(1)


def grey_patches(grey: Tensor) -> Tensor:
    """Patches of 32x32 side by side, row by row, (B, H, W) -> (B, P, 1, 32, 32).

    Starts are ``range(0, side - 32, 32)``, as published: what is left at the end, be it a whole patch, is not used.
    """
    height, width = grey.shape[1:]
    starts = [(top, left) for top in range(0, height - PATCH, PATCH) for left in range(0, width - PATCH, PATCH)]
    return torch.stack([grey[:, None, top : top + PATCH, left : left + PATCH] for top, left in starts], dim=1)


def locally_normalised(patches: Tensor) -> Tensor:
    """``(x - mean) / (deviation + 1)`` of 3x3 pixels with the border repeated, (B, 1, 32, 32) in 0..1."""
    padded = F.pad(patches, (1, 1, 1, 1), mode="replicate")
    mean = F.avg_pool2d(padded, 3, 1)
    variance = F.avg_pool2d(padded.square(), 3, 1) - mean.square()
    # A difference of nearly equal numbers: in flat places rounding may leave it below 0, whose root is NaN.
    return (patches - mean) / (variance.clamp(min=0).sqrt() + 1)


def _check_shapes(weights: dict[str, Tensor], channels: int, path: Path) -> None:
    """Refuse other tensors than those of the network; the widths of the hidden layers are free."""
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    first, second = (next(iter(found.get(f"{name}.weight", ())), 0) for name in ("fc1", "fc2"))
    shapes = {"conv1": (FILTERS, channels, KERNEL, KERNEL), "fc1": (first, 2 * FILTERS), "fc2": (second, first)}
    shapes["fc3"] = (1, second)
    needed: dict[str, tuple[int, ...]] = {f"{layer}.weight": shape for layer, shape in shapes.items()}
    needed |= {f"{layer}.bias": shape[:1] for layer, shape in shapes.items()}
    if found.keys() != needed.keys():
        raise ConfigError(f"{path}: holds {', '.join(sorted(found))}; CNNIQA needs {', '.join(sorted(needed))}.")
    for name, shape in needed.items():
        if found[name] != shape:
            hint = " (grey images: variant live, colour: koniq)" if name == "conv1.weight" else ""
            raise ConfigError(f"{path}: {name} has the shape {found[name]}, but this variant needs {shape}{hint}.")
