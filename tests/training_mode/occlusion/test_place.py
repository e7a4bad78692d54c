"""Where a feature map passes through networks that were not written for it."""

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from facelab.adapter.base import ADAPTERS, AdaptedBackbone
from facelab.backbone.base import BACKBONES, Backbone, Features
from facelab.catalogue import build
from facelab.errors import ConfigError
from facelab.inputs import InputSpec
from facelab.training_mode.occlusion.place import Cells, FeaturePlace

TOKENS = {"patch": 8, "dim": 16, "depth": 1, "heads": 2, "feat_dim": 16, "drop_path_rate": 0.0}
SMALL: dict[str, dict[str, Any]] = {
    "IResNet": {"depth": 18, "width": 0.125, "feat_dim": 16},
    "MobileFaceNet": {"width": 0.25, "feat_dim": 16},
    "Swin": {"patch": 4, "dim": 8, "depths": [1, 1], "heads": [2, 2], "window": 4, "feat_dim": 16},
    "ViT": {**TOKENS, "mask_ratio": 0.3},
}


def network_of(name: str, **more: Any) -> Backbone:
    torch.manual_seed(0)
    return BACKBONES.build(name, {**SMALL.get(name, {}), **more, "input_spec": InputSpec(32, 32)})


def images(count: int = 3) -> Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
def test_what_passes_is_the_map_and_dropped_cells_are_missed(name: str, training: bool) -> None:
    network = network_of(name).train(training)
    buffers = {key: value.clone() for key, value in network.named_buffers()}
    place = FeaturePlace(network)
    assert network.training == training
    assert all(torch.equal(value, buffers[key]) for key, value in network.named_buffers()), "it leaves no trace"
    network.eval()
    whole = network.features(images())
    keep = torch.ones(3, 1, place.cells.rows, place.cells.columns)
    with place.passing(keep) as seen:
        assert torch.equal(network.features(images()).embedding, whole.embedding)
    assert seen[0].shape == (3, place.cells.channels, place.cells.rows, place.cells.columns)
    if whole.maps:
        assert any(seen[0].shape == one.shape and torch.equal(seen[0], one) for one in whole.maps)
    keep[1, 0, 1, 2] = 0
    with place.passing(keep):
        found = network.features(images()).embedding
    assert torch.equal(found[[0, 2]], whole.embedding[[0, 2]])
    assert not torch.allclose(found[1], whole.embedding[1])
    assert torch.equal(network.features(images()).embedding, whole.embedding), "behind the context all is as it was"


def test_the_dropped_cell_is_the_one_that_is_named() -> None:
    """Row 2, column 1 of a map is that in a map, and the token of that patch in tokens."""
    keep = torch.ones(3, 1, 4, 4)
    keep[:, :, 2, 1] = 0
    convolutions, tokens = network_of("MobileFaceNet").eval(), network_of("ViT", patch_gate=True).eval()
    place = FeaturePlace(convolutions, 2)
    with place.passing(keep):
        found = convolutions.features(images()).maps[3]
    assert torch.allclose(found, convolutions.stages[3](convolutions.features(images()).maps[2] * keep))
    with FeaturePlace(tokens).passing(keep):
        embedding = tokens.features(images()).embedding
    whole = tokens.features(images()).tokens
    assert whole is not None
    whole = whole.clone()
    whole[:, 2 * 4 + 1] = 0
    assert torch.allclose(embedding, tokens.feature(whole.flatten(1)))


def test_the_last_map_of_enough_cells_is_taken() -> None:
    network = network_of("MobileFaceNet")
    assert FeaturePlace(network).cells == Cells(32, 4, 4)
    assert FeaturePlace(network, 0).cells == Cells(16, 16, 16)
    assert FeaturePlace(network, -1).cells == Cells(128, 2, 2)


def test_networks_with_adapters_and_models_of_timm_have_a_place_too() -> None:
    adapted = AdaptedBackbone(network_of("Swin"), build(ADAPTERS, "LoRA"))
    assert FeaturePlace(adapted).cells == FeaturePlace(network_of("Swin")).cells
    options = {"model": "edgenext_xx_small", "output": "classifier", "feat_dim": 16}
    assert FeaturePlace(network_of("Timm", **options), 1).cells == Cells(48, 4, 4)


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKBONES.names())
def test_every_family_has_a_place_at_each_of_its_maps_unless_they_lie_side_by_side(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[3] / "benchmarks")
    options = importlib.import_module("backbones").narrow_options(name)
    network = BACKBONES.build(name, {**options, "input_spec": InputSpec(64, 64)}).eval()
    with torch.no_grad():
        shapes = [one.shape[1:] for one in network.features(torch.zeros(1, 3, 64, 64)).maps]
    if name == "HRNet":
        with pytest.raises(ConfigError, match="sees more than its feature map 3"):
            FeaturePlace(network)
        return
    for stage, shape in enumerate(shapes):
        assert FeaturePlace(network, stage).cells == Cells(*shape)
    assert FeaturePlace(network).cells.count >= 16


class Plain(Backbone):
    """An embedding that has looked past its map."""

    def __init__(self, maps: bool) -> None:
        super().__init__(InputSpec(32, 32), 16)
        self.first, self.last = torch.nn.Conv2d(3, 4, 8, 8), torch.nn.Linear(64, 16)
        self.maps = maps

    def features(self, image: Tensor) -> Features:
        found = self.first(image)
        embedding = self.last(found.flatten(1)) + image.mean(dim=(1, 2, 3))[:, None]
        return Features(embedding, maps=(found,) if self.maps else ())


@pytest.mark.parametrize(
    ("network", "stage", "sentence"),
    [
        (lambda: Plain(True), None, "the embedding of Plain sees more than its feature map 0"),
        (
            lambda: Plain(False),
            None,
            "cells of a feature map, and Plain gives none; take another backbone, for example",
        ),
        (
            lambda: network_of("MobileFaceNet"),
            4,
            "occlusion stage is 4, but MobileFaceNet has 4 feature maps; count fr",
        ),
        (lambda: network_of("ViT", patch=16), None, "no feature map of ViT has 16 cells or more; the largest has 4"),
        (lambda: network_of("ViT", checkpointing=True), None, "set checkpointing: false of the backbone"),
    ],
)
def test_what_cannot_be_is_refused(network: Any, stage: int | None, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        FeaturePlace(network(), stage)
