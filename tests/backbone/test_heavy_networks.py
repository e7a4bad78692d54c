"""What ResNeSt, AttentionNet, HRNet, InsightFace's MobileFaceNets and FaceX-Zoo's Swin add to the matrix."""

from typing import Any

import pytest
import torch
from torch import nn

from facelab.backbone.attention_net import AttentionModule, AttentionNet
from facelab.backbone.base import BACKBONES
from facelab.backbone.hrnet import Exchange, HRNet
from facelab.backbone.mobilefacenet import MobileFaceNet
from facelab.backbone.names.import_names import our_names
from facelab.backbone.resnest import ResNeSt, SplitAttention
from facelab.catalogue import build
from facelab.errors import CheckpointError, ConfigError
from facelab.inputs import InputSpec

SMALL_SPEC = InputSpec(32, 32)


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("entry", "millions"),
    [  # measured on the originals
        ("ResNeSt50", 76.793),
        ({"AttentionNet-56": {"published_extras": True}}, 98.965),
        ({"AttentionNet-92": {"published_extras": True}}, 134.562),
        ("AttentionNet-56", 81.14),  # less 17.83 that nothing reads
        ("AttentionNet-92", 101.79),  # less 32.77
        ("HRNet", 70.631),
        ("Swin-S", 68.106),
        ("Swin-T", 46.788),
        ("mbf", 2.0595),
        ("mbf_large", 6.3149),
    ],
)
def test_parameters_of_the_originals(entry: str | dict[str, dict[str, Any]], millions: float) -> None:
    with torch.device("meta"):
        assert parameters(build(BACKBONES, entry)) / 1e6 == pytest.approx(millions, abs=6e-3)


@pytest.mark.parametrize("entry", ["ResNeSt101", "HRNet", "SwinTransformer-112", "AttentionNet-56", "mbf"])
@pytest.mark.parametrize(("height", "width"), [(60, 112), (56, 112), (112, 96), (120, 120)])
def test_sizes_where_the_originals_fail(entry: str, height: int, width: int) -> None:
    with torch.device("meta"):
        network = build(BACKBONES, {entry: {"input_spec": {"height": height, "width": width}}}, feat_dim=256).eval()
        assert network(torch.zeros(2, 3, height, width)).shape == (2, 256)


@pytest.mark.parametrize("network", ["ResNeSt", "AttentionNet", "HRNet"])
def test_images_must_not_be_smaller_than_the_stride(network: str) -> None:
    with pytest.raises(ConfigError, match=f"{network} halves its input 4 times, so it needs images of at least 16x16"):
        BACKBONES.build(network, {"input_spec": {"height": 12, "width": 112}})


def test_paths_of_equal_logits_are_averaged() -> None:
    attention = SplitAttention(4, radix=2).eval()
    nn.init.zeros_(attention.fc2.weight)
    nn.init.zeros_(attention.fc2.bias)  # type: ignore[arg-type]
    x = torch.randn(2, 4, 5, 5)
    first, second = attention.paths(x).chunk(2, dim=1)
    torch.testing.assert_close(attention(x), (first + second) / 2)


def test_embeddings_of_resnest_have_norm_1_unless_told_otherwise() -> None:
    x = torch.randn(3, 3, 32, 32)
    unit, free = ResNeSt(SMALL_SPEC, 16, width=0.125), ResNeSt(SMALL_SPEC, 16, width=0.125, unit_norm=False)
    assert unit.unit_norm
    assert not free.unit_norm
    free.load_state_dict(unit.state_dict())
    with torch.no_grad():
        embedding, raw = unit.eval()(x), free.eval()(x)
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(embedding, raw / raw.norm(dim=1, keepdim=True))


def test_one_path_is_gated_by_a_sigmoid() -> None:
    network = ResNeSt(SMALL_SPEC, 16, width=0.125, radix=1)
    assert network(torch.randn(2, 3, 32, 32)).isfinite().all()


def test_resnest_has_four_depths() -> None:
    with pytest.raises(ConfigError, match="ResNeSt depth is 34. Known: 50, 101, 200, 269"):
        ResNeSt(depth=34)


def test_a_mask_multiplies_the_trunk_by_one_to_two() -> None:
    module = AttentionModule(2, levels=2, published_extras=False).eval()
    for layer in (module.first, module.last):
        nn.init.zeros_(layer[0].conv3.weight)  # type: ignore[union-attr, arg-type]  # then it gives back its input
    x = torch.randn(2, 8, 6, 7)
    with torch.no_grad():
        trunk, output = module.trunk(x), module(x)
    ratio = output / trunk
    assert 1 <= ratio.min() <= ratio.max() <= 2


def test_unused_projections_are_kept_only_when_asked_for() -> None:
    lean = AttentionNet(SMALL_SPEC, 16, width=0.125)
    full = AttentionNet(SMALL_SPEC, 16, width=0.125, published_extras=True)
    extra = {name for name in full.state_dict() if name not in lean.state_dict()}
    assert extra
    assert all(name.endswith("shortcut.weight") for name in extra)
    frozen = {name for name, parameter in full.named_parameters() if not parameter.requires_grad}
    assert frozen == extra
    lean.load_state_dict({name: value for name, value in full.state_dict().items() if name not in extra})
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(lean.eval()(x), full.eval()(x))


def test_unused_projections_of_published_weights_are_left_out() -> None:
    lean = AttentionNet(SMALL_SPEC, 16, width=0.125)
    names = ["attention_body.1.skip2_connection_residual_block.conv4.weight", "attention_body.0.conv4.weight"]
    assert list(our_names(lean, dict.fromkeys(names, 0))) == ["stages.0.0.shortcut.weight"]


@pytest.mark.parametrize(("source", "target", "size"), [(0, 2, (3, 4)), (1, 1, (5, 7)), (2, 0, (9, 14))])
def test_branches_of_uneven_sizes_exchange_maps(source: int, target: int, size: tuple[int, int]) -> None:
    given = {0: (9, 14), 1: (5, 7), 2: (3, 4)}[source]
    exchange = Exchange((4, 8, 16), source, target).eval()
    with torch.no_grad():
        assert exchange(torch.randn(1, (4, 8, 16)[source], *given), size).shape == (1, (4, 8, 16)[target], *size)


def test_hrnet_keeps_four_resolutions() -> None:
    network = HRNet(InputSpec(60, 112), 16, branch=8, modules=(1, 1, 1), blocks=1, width=0.5).eval()
    with torch.no_grad():
        maps = network.features(torch.zeros(1, 3, 60, 112)).maps
    assert [tuple(x.shape[1:]) for x in maps] == [(4, 30, 56), (8, 15, 28), (16, 8, 14), (32, 4, 7)]


def test_stream_widens_only_what_lies_between_bottlenecks() -> None:
    network = MobileFaceNet(SMALL_SPEC, 16, width=0.25, stream=4, depths=(2, 1, 1, 1)).eval()
    with torch.no_grad():
        maps = network.features(torch.zeros(1, 3, 32, 32)).maps
    assert [x.shape[1] for x in maps] == [64, 64, 128, 128]
    assert network.stages[1][0].depthwise.conv.out_channels == 32  # type: ignore[index, union-attr]


@pytest.mark.parametrize("name", ["ResNeSt", "AttentionNet", "HRNet", "MobileFaceNet"])
def test_names_of_another_network_are_refused(name: str) -> None:
    network = BACKBONES.build(name, {"input_spec": {"height": 32, "width": 32}, "width": 0.125, "feat_dim": 16})
    with pytest.raises(CheckpointError, match="belongs to no known form of"):
        our_names(network, {"blocks.0.attn.qkv.weight": torch.zeros(1)})
