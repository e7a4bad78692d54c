"""RepVGG's deploy form, and what FaceX-Zoo's light networks add to the matrix of every backbone."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from facelab.backbone.base import BACKBONES, Backbone
from facelab.backbone.efficientnet import EfficientNet, final_map
from facelab.backbone.layers.sizes import divisible
from facelab.backbone.lightcnn import LightCNN
from facelab.backbone.names.import_names import our_names
from facelab.backbone.repvgg import RepVGG, deployed
from facelab.backbone.rexnet import ReXNet, growing_channels
from facelab.catalogue import build
from facelab.errors import CheckpointError, ConfigError
from facelab.inputs import InputSpec

SMALL_SPEC = InputSpec(32, 32)


def small_repvgg() -> RepVGG:
    torch.manual_seed(0)
    network = RepVGG(SMALL_SPEC, 16, depths=(1, 2, 1, 1), widths=(0.25, 0.25, 0.25, 0.25))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):  # new norms hide a mistake in the fusion
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    network.train()(torch.randn(8, 3, 32, 32))
    return network


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_deployed_repvgg_gives_equal_embeddings() -> None:
    network = small_repvgg()
    x = torch.randn(3, 3, 32, 32)
    simple = deployed(network)
    with torch.no_grad():
        torch.testing.assert_close(simple(x), network.eval()(x), rtol=1e-4, atol=1e-5)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in simple.stages.modules())
    assert parameters(simple) < parameters(network)


def test_deploying_leaves_the_network_alone_and_shares_nothing() -> None:
    network = small_repvgg()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with torch.no_grad():
        for parameter in deployed(network).parameters():
            parameter.zero_()
    assert network.training
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_a_deployed_repvgg_is_copied_when_deployed_again() -> None:
    once = deployed(small_repvgg())
    twice = deployed(once)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(once(x), twice(x))


def test_a_deployed_repvgg_keeps_its_type() -> None:
    assert deployed(small_repvgg().double()).output.fc.weight.dtype == torch.float64


@pytest.mark.parametrize(
    ("entry", "millions"),
    [  # measured on the originals
        ("RepVGG_A0", 39.945),
        ("RepVGG_B0", 46.654),
        ("RepVGG_B1", 106.752),
        ("GhostNet", 26.759),
        ("LightCNN-29", 11.596),
        ("ReXNet_1.0", 15.197),
        ("TF-NAS-A", 39.591),
        ("EfficientNet-B0", 36.124),  # 37.405 less the 1.281 of the unused classifier
        ({"ReXNet_1.0": {"squeeze": 12}}, 16.220),
    ],
)
def test_parameters_of_the_originals(entry: str | dict[str, dict[str, int]], millions: float) -> None:
    with torch.device("meta"):
        assert parameters(build(BACKBONES, entry)) / 1e6 == pytest.approx(millions, abs=6e-4)


def test_deployed_a0_has_the_published_parameters() -> None:
    with torch.device("meta"):
        network = build(BACKBONES, {"RepVGG_A0": {"deploy": True}})
    assert parameters(network) / 1e6 == pytest.approx(39.15, abs=0.006)


def test_divisible_never_loses_a_tenth() -> None:
    assert [divisible(channels, 4) for channels in (1, 18, 30, 41.6)] == [4, 20, 32, 40]
    assert divisible(11, 8) == 16  # 8 would lose more than a tenth


def test_rexnet_grows_linearly() -> None:
    channels = growing_channels(16, 180 / 16, 1.0)
    assert [next(channels) for _ in range(5)] == [16, 27, 38, 50, 61]
    narrow = growing_channels(16, 10, 0.5)
    assert [next(narrow) for _ in range(3)] == [16, 21, 26]


@pytest.mark.parametrize(
    ("options", "count", "last"),
    [  # measured on FaceX-Zoo's program, its output layer made as wide as its last convolution; embeddings agreed too
        ({"width": 1.3}, 20_611_896, 665),
        ({"width": 1.3, "squeeze": 12}, 22_336_719, 665),
        ({"depth": 2.0}, 17_988_856, 512),
        ({"depth": 2.0, "squeeze": 12}, 20_324_398, 512),
        ({"width": 0.5, "depth": 1.5}, 7_774_674, 256),
        ({"width": 2.0, "depth": 0.5}, 30_813_000, 1024),
        ({"width": 0.37, "depth": 3.3, "squeeze": 12}, 7_549_916, 189),
    ],
)
def test_rexnet_of_other_widths_and_depths(options: dict[str, Any], count: int, last: int) -> None:
    with torch.device("meta"):
        network = build(BACKBONES, {"ReXNet": options}, feat_dim=512)
    assert (parameters(network), network.state_dict()["last.conv.weight"].shape[0]) == (count, last)


def test_blocks_of_rexnets_first_stage_do_not_expand() -> None:
    network = ReXNet(SMALL_SPEC, 16, width=0.25, depth=2.0)
    shapes = {name: tensor.shape[0] for name, tensor in network.state_dict().items() if "expand.conv" in name}
    assert dict(list(shapes.items())[:2]) == {
        "blocks.2.expand.conv.weight": 6 * 17,
        "blocks.3.expand.conv.weight": 6 * 19,
    }


@pytest.mark.parametrize(
    ("option", "allowed", "refused"),
    [
        ("first_channels", [1], [0]),
        ("added_channels", [0], [-1]),
        ("width", [0.01, 8.0], [0.0, 8.01, math.nan]),
        ("depth", [0.01, 8.0], [0.0, 8.01, math.nan]),
        ("squeeze", [0, 1, 10_000], [-1]),
    ],
)
def test_rexnets_numbers_are_taken_up_to_their_bounds(option: str, allowed: list[Any], refused: list[Any]) -> None:
    with torch.device("meta"):
        for value in allowed:
            ReXNet(SMALL_SPEC, 8, **{option: value})
    for value in refused:
        with pytest.raises(ConfigError, match=rf"ReXNet {option} is .*, but must lie in [\[(]"):
            ReXNet(SMALL_SPEC, 8, **{option: value})


def test_rexnet_with_gates_reads_published_names() -> None:
    network = ReXNet(SMALL_SPEC, 16, width=0.25, squeeze=12)
    names = [f"features.6.out.{place}" for place in ("0.weight", "5.fc.0.bias", "5.fc.3.weight", "7.weight")]
    ours = [f"blocks.3.{name}" for name in ("expand.conv.weight", "squeeze.reduce.bias", "squeeze.expand.weight")]
    state = dict.fromkeys(names, torch.zeros(1))
    assert list(our_names(network, state)) == [*ours, "blocks.3.project.conv.weight"]
    assert set(ours) <= set(network.state_dict())


def test_efficientnet_leaves_the_unused_classifier_out() -> None:
    network = EfficientNet(SMALL_SPEC, 16, width=0.25)
    assert our_names(network, {"_fc.weight": torch.zeros(1)}) == {}
    assert not any(name.startswith("classifier") for name in network.state_dict())


def test_efficientnet_sizes() -> None:
    assert final_map(InputSpec(112, 96)) == (7, 6)
    assert final_map(InputSpec(60, 120)) == (4, 8)


@pytest.mark.parametrize(
    "network", ["RepVGG", "GhostNet", "LightCNN", "ReXNet", "EfficientNet", "TF-NAS-A", "VarGFaceNet"]
)
def test_images_must_not_be_smaller_than_the_stride(network: str) -> None:
    with pytest.raises(ConfigError, match=f"{network} halves its input 4 times, so it needs images of at least 16x16"):
        BACKBONES.build(network, {"input_spec": {"height": 12, "width": 112}})


@pytest.mark.parametrize("network", [LightCNN(SMALL_SPEC, 16, width=0.125), ReXNet(SMALL_SPEC, 16, width=0.25)])
def test_names_of_another_network_are_refused(network: Backbone) -> None:
    with pytest.raises(CheckpointError, match="belongs to no known form of"):
        our_names(network, {"layer1.0.conv1.weight": torch.zeros(1)})


def test_lightcnn_has_two_depths() -> None:
    with pytest.raises(ConfigError, match="backbone 'LightCNN' has depth 9 or 29, not 18"):
        LightCNN(depth=18)
