"""MobileFaceNet: sizes, widths and refusals."""

import pytest
import torch

from facelab.backbone.base import BACKBONES, FACEXZOO_INPUT
from facelab.backbone.mobilefacenet import MobileFaceNet
from facelab.backbone.names.import_names import our_names
from facelab.errors import CheckpointError, ConfigError
from facelab.inputs import InputSpec


def parameters(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_the_default_is_the_published_network() -> None:
    network = MobileFaceNet()
    assert parameters(network) == 1_200_512  # FaceX-Zoo publishes 1.19 M
    assert network.input_spec == FACEXZOO_INPUT
    assert not network.unit_norm


def test_maps_have_the_strides_and_channels_of_the_table() -> None:
    with torch.no_grad():
        maps = MobileFaceNet().eval().features(torch.zeros(1, 3, 112, 112)).maps
    assert [tuple(stage.shape[1:]) for stage in maps] == [(64, 56, 56), (64, 28, 28), (128, 14, 14), (512, 7, 7)]


def test_width_scales_every_channel_in_steps_of_eight() -> None:
    narrow = MobileFaceNet(InputSpec(32, 32), width=0.3)
    channels = {module.out_channels for module in narrow.modules() if isinstance(module, torch.nn.Conv2d)}
    assert channels == {16, 40, 80, 152}  # 0.3 of 64, 128, 256 and 512 is 19.2, 38.4, 76.8 and 153.6
    assert parameters(narrow) < parameters(MobileFaceNet(InputSpec(32, 32), width=0.5)) < 700_000


def test_the_global_convolution_covers_the_last_map() -> None:
    network = MobileFaceNet(InputSpec(60, 112), width=0.25)
    assert network.global_depthwise.conv.kernel_size == (4, 7)


def test_bf16_gradients_of_the_depthwise_convolutions_agree_with_fp32() -> None:
    torch.manual_seed(0)
    network = MobileFaceNet(InputSpec(32, 32), feat_dim=16, width=0.25)
    x = torch.rand(8, 3, 32, 32)
    weights = torch.randn(8, 16)
    (network(x) * weights).sum().backward()
    exact = [p.grad.clone() for p in network.parameters() if p.grad is not None]
    network.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        embedding = network(x)
    (embedding.float() * weights).sum().backward()
    rounded = [p.grad for p in network.parameters() if p.grad is not None]
    cosine = torch.cosine_similarity(
        torch.cat([g.flatten() for g in exact]), torch.cat([g.flatten() for g in rounded]), 0
    )
    assert cosine > 0.9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, r"backbone width is 0.0, but must lie in \(0, 8\]"),
        ({"width": float("nan")}, "option 'width' is nan, but must be a finite number"),
        ({"input_spec": {"height": 112, "width": 8}}, "needs images of at least 16x16, but input_spec gives 112x8"),
        ({"input_spec": {"hight": 64}}, "option 'input_spec.hight' is 64: Unexpected keyword"),
        ({"widht": 0.5}, "Did you mean 'width'"),
        ({"embedding_size": 512}, "MobileFaceNet' has no option 'embedding_size'"),
    ],
)
def test_refusals(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        BACKBONES.build("MobileFaceNet", options)


def test_a_foreign_state_dict_is_refused() -> None:
    with pytest.raises(CheckpointError, match="no known form of MobileFaceNet, which has no part 'layer1'"):
        our_names(MobileFaceNet(InputSpec(32, 32), width=0.25), {"layer1.0.conv1.weight": 0})
