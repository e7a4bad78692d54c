"""Where a feature map passes through a network: there it is seen, and cells of it are dropped."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from facelab.backbone.base import Backbone, Features
from facelab.errors import ConfigError
from facelab.undisturbed import undisturbed

LEAST_CELLS = 16
"""Of the map that is taken unless the settings name one: below it a cell is too much of a face."""
ELSEWHERE = 1e-3
"""Part of how far two embeddings are apart that may be left when nothing of the map is; rounding leaves 1e-6."""

Layout = Literal["map", "channels last", "tokens", "flat tokens"]
Side = Literal["input", "output"]


@dataclass(frozen=True)
class Cells:
    """Shape of a feature map.

    Attributes:
        channels: C.
        rows: H, of cells.
        columns: W, of cells.
    """

    channels: int
    rows: int
    columns: int

    @property
    def count(self) -> int:
        """Cells of the map."""
        return self.rows * self.columns

    def layout(self, shape: torch.Size) -> Layout | None:
        """How a tensor of a shape holds the map of each image; None if it does not."""
        channels, rows, columns = self.channels, self.rows, self.columns
        known: dict[tuple[int, ...], Layout] = {
            (self.count * channels,): "flat tokens",
            (self.count, channels): "tokens",
            (rows, columns, channels): "channels last",
            (channels, rows, columns): "map",
        }
        return known.get(tuple(shape[1:]))

    def as_map(self, value: Tensor, layout: Layout) -> Tensor:
        """The map (B, C, H, W) that a tensor holds."""
        if layout == "flat tokens":
            value, layout = torch.unflatten(value, 1, (self.count, self.channels)), "tokens"
        if layout == "tokens":
            return torch.unflatten(value.mT, 2, (self.rows, self.columns))
        return value.permute(0, 3, 1, 2) if layout == "channels last" else value

    def like(self, keep: Tensor, layout: Layout) -> Tensor:
        """Weights of cells (B, 1, H, W), so that they multiply a tensor that holds the map."""
        if layout == "flat tokens":
            return keep.flatten(1).repeat_interleave(self.channels, dim=1)
        if layout == "tokens":
            return keep.flatten(2).mT
        return keep.permute(0, 2, 3, 1) if layout == "channels last" else keep


@dataclass(frozen=True)
class _Visit:
    """A tensor as it went into or out of a layer."""

    layer: nn.Module
    side: Side
    value: Tensor


class FeaturePlace:
    """The one place of a network through which everything of a feature map goes to the embedding.

    It is found by looking: a layer takes or gives what `Backbone.features` calls the map, and without it the embedding
    says nothing of the image any more. So networks need not be written for it. Nothing of the network is changed
    outside of `passing`.

    Args:
        network: The network, on its device.
        stage: Which of its maps, from 0, or from -1 for the last; None for the last of at least 16 cells. Tokens on a
            square grid are one map, where a network has no maps.

    Attributes:
        cells: Shape of the map.

    Raises:
        ConfigError: If the network has no such map, or no such place.
    """

    def __init__(self, network: Backbone, stage: int | None = None) -> None:
        if any(getattr(module, "checkpointing", False) for module in network.modules()):
            raise ConfigError(
                "occlusion drops cells in the middle of a forward pass, and a network with checkpointing computes its "
                "layers again without that; set checkpointing: false of the backbone."
            )
        name = type(network).__name__
        image = _noise(network)
        with torch.no_grad(), undisturbed(network, image.device):
            visits, features = _visits(network, image)
            maps = _maps(features)
            number = _chosen(name, stage, [Cells(*one.shape[1:]) for one, _ in maps])
            shown, held = maps[number]
            self.cells = Cells(*shown.shape[1:])
            for visit in visits:
                layout = self.cells.layout(visit.value.shape)
                if layout is None or visit.value.data_ptr() != held.data_ptr():
                    continue
                self._layer, self._side, self._layout = visit.layer, visit.side, layout
                if self._is_only_way(network, image, features.embedding):
                    return
        raise ConfigError(
            f"the embedding of {name} sees more than its feature map {number}, or no layer takes that map alone, so "
            "nothing can be dropped from it; set another occlusion stage, or take another backbone."
        )

    @contextmanager
    def passing(self, keep: Tensor | None = None) -> Iterator[list[Tensor]]:
        """Context of one forward pass.

        Args:
            keep: What the cells are multiplied by, (B, 1, H, W), or None to leave them.

        Returns:
            A list that holds the map as it came, (B, C, H, W), with gradients, after the pass.
        """
        seen: list[Tensor] = []

        def pass_on(value: Tensor) -> Tensor:
            seen.append(self.cells.as_map(value, self._layout))
            return value if keep is None else value * self.cells.like(keep, self._layout).to(value.dtype)

        if self._side == "input":
            handle = self._layer.register_forward_pre_hook(lambda _, inputs: (pass_on(inputs[0]), *inputs[1:]))
        else:
            handle = self._layer.register_forward_hook(lambda _, inputs, output: pass_on(output))
        try:
            yield seen
        finally:
            handle.remove()

    def _is_only_way(self, network: Backbone, image: Tensor, embedding: Tensor) -> bool:
        """Whether two images are alike to the network when all cells are dropped."""
        with self.passing(image.new_zeros(2, 1, self.cells.rows, self.cells.columns)) as seen:
            without = network.features(image, *_quality(network, image)).embedding
        apart, left = ((one[0] - one[1]).norm() for one in (embedding, without))
        return len(seen) == 1 and bool(left <= ELSEWHERE * apart)


def _noise(network: Backbone) -> Tensor:
    """Two images without anything in common, normalised, (2, 3, H, W)."""
    device = next(network.parameters()).device
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 3, *network.input_spec.size, generator=generator).to(device)


def _quality(network: Backbone, image: Tensor) -> tuple[Tensor, ...]:
    return (image.new_zeros(2),) if network.needs_quality else ()


def _visits(network: Backbone, image: Tensor) -> tuple[list[_Visit], Features]:
    """What goes into layers, in the order of their calls, then what comes out of them, the last first."""
    inputs: list[_Visit] = []
    outputs: list[_Visit] = []

    def take(layer: nn.Module, given: tuple[object, ...]) -> None:
        if given and isinstance(given[0], Tensor):
            inputs.append(_Visit(layer, "input", given[0]))

    def give(layer: nn.Module, _: object, given: object) -> None:
        if isinstance(given, Tensor):
            outputs.append(_Visit(layer, "output", given))

    handles = []
    for layer in network.modules():
        handles += [layer.register_forward_pre_hook(take), layer.register_forward_hook(give)]
    try:
        features = network.features(image, *_quality(network, image))
    finally:
        for handle in handles:
            handle.remove()
    return [*inputs, *reversed(outputs)], features


def _maps(features: Features) -> list[tuple[Tensor, Tensor]]:
    """The maps (B, C, H, W) of a network, and the tensors that hold them."""
    if features.maps:
        return [(one, one) for one in features.maps]
    tokens = features.tokens
    side = 0 if tokens is None else math.isqrt(tokens.shape[1])
    return (
        [] if tokens is None or side**2 != tokens.shape[1] else [(torch.unflatten(tokens.mT, 2, (side, side)), tokens)]
    )


def _chosen(name: str, stage: int | None, maps: list[Cells]) -> int:
    """Number of the wanted map.

    Raises:
        ConfigError: If there is none.
    """
    if not maps:
        raise ConfigError(
            f"occlusion drops cells of a feature map, and {name} gives none; take another backbone, for example "
            "IResNet, MobileFaceNet, Swin or ViT."
        )
    if stage is None:
        large = [number for number, cells in enumerate(maps) if cells.count >= LEAST_CELLS]
        if not large:
            raise ConfigError(
                f"occlusion: no feature map of {name} has {LEAST_CELLS} cells or more; the largest has "
                f"{max(cells.count for cells in maps)}. Raise data.size, or name a stage."
            )
        return large[-1]
    if not -len(maps) <= stage < len(maps):
        raise ConfigError(
            f"occlusion stage is {stage}, but {name} has {len(maps)} feature maps; count from 0, or from -1."
        )
    return stage % len(maps)
