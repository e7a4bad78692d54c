"""IResNet: the forms of the projects, checkpointing and refusals."""

from typing import Any

import pytest
import torch
from torch import nn

from facelab.backbone.base import BACKBONES
from facelab.backbone.iresnet import IResNet, Squeeze, Subsample
from facelab.backbone.mobilefacenet import MobileFaceNet
from facelab.backbone.names.import_names import our_names
from facelab.catalogue import build
from facelab.errors import CheckpointError, ConfigError
from facelab.inputs import InputSpec

SMALL: dict[str, Any] = {"input_spec": InputSpec(32, 32), "feat_dim": 16, "depth": 18, "width": 0.125}


def entry_on_meta(name: str) -> IResNet:
    with torch.device("meta"):
        network = build(BACKBONES, name)
    assert isinstance(network, IResNet)
    return network


@pytest.mark.parametrize(
    ("entry", "millions"),
    [
        ("ResNet50_ir", 43.575),
        ("ResNet50_ir_se", 43.798),
        ("ResNet100_ir", 65.130),
        ("ResNet100_ir_se", 65.502),
        ("ResNet152_ir", 70.738),
        ("ResNet152_ir_se", 71.149),
        ("r18", 24.03),
        ("r34", 34.14),
        ("r50", 43.59),
        ("r100", 65.16),
        ("r200", 118.83),
    ],
)
def test_numbers_of_parameters(entry: str, millions: float) -> None:
    count = sum(parameter.numel() for parameter in entry_on_meta(entry).parameters())
    assert count / 1e6 == pytest.approx(millions, abs=0.006)


def test_maps_halve_and_channels_double() -> None:
    with torch.no_grad():
        maps = IResNet(**SMALL | {"input_spec": InputSpec(112, 60)}).eval().features(torch.zeros(1, 3, 112, 60)).maps
    assert [tuple(stage.shape[1:]) for stage in maps] == [(8, 56, 30), (16, 28, 15), (32, 14, 8), (64, 7, 4)]


def test_insightface_fixes_the_scale_of_the_embedding_only() -> None:
    network = IResNet(**SMALL)
    fixed = [name for name, parameter in network.named_parameters() if not parameter.requires_grad]
    assert fixed == ["output.last_norm.weight"]
    assert bool((network.output.last_norm.weight == 1).all())


@pytest.mark.parametrize(("last_norm", "learned"), [("affine", 2), ("bias", 1), ("plain", 0)])
def test_last_norm_learns_what_its_name_says(last_norm: Any, learned: int) -> None:
    network = IResNet(**SMALL, last_norm=last_norm)
    assert sum(parameter.requires_grad for parameter in network.output.last_norm.parameters()) == learned


def test_magface_has_its_own_norms_and_drops_channels() -> None:
    network = entry_on_meta("MagFace-iResNet100")
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(2e-5, 0.9)}
    assert isinstance(network.output.dropout, nn.Dropout2d)
    assert network.output.dropout.p == 0.4


def test_pooling_shortcut_equals_max_pooling_of_size_one() -> None:
    x = torch.rand(2, 4, 7, 10)
    assert torch.equal(Subsample()(x), nn.functional.max_pool2d(x, 1, 2))


def test_squeeze_by_hand() -> None:
    gate = Squeeze(2)
    nn.init.ones_(gate.fc1.weight)
    nn.init.ones_(gate.fc2.weight)
    x = torch.tensor([1.0, 3.0]).view(1, 2, 1, 1).expand(1, 2, 4, 4)
    torch.testing.assert_close(gate(x), x * torch.tensor(4.0).sigmoid())


@pytest.mark.parametrize(("initial", "deviation"), [("normal", 0.1), ("kaiming", (2 / (64 * 9)) ** 0.5)])
def test_convolutions_start_as_asked(initial: Any, deviation: float) -> None:
    torch.manual_seed(0)
    weight = IResNet(**SMALL, initial=initial).stages[3][1].conv1.weight.detach()
    assert float(weight.std()) == pytest.approx(deviation, rel=0.03)


def test_checkpointing_changes_neither_gradients_nor_running_statistics() -> None:
    torch.manual_seed(0)
    plain = IResNet(**SMALL, drop_rate=0.3)
    frugal = IResNet(**SMALL, drop_rate=0.3, checkpointing=True)
    frugal.load_state_dict(plain.state_dict())
    x = torch.rand(4, 3, 32, 32)
    for network in (plain, frugal):
        torch.manual_seed(1)
        network(x).square().sum().backward()
    for (name, one), other in zip(plain.named_parameters(), frugal.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None)
        assert one.grad is None or torch.equal(one.grad, other.grad), name
    for (name, one), other in zip(plain.named_buffers(), frugal.buffers(), strict=True):
        assert torch.equal(one, other), name
    assert {norm.momentum for norm in frugal.modules() if isinstance(norm, nn.BatchNorm2d)} == {0.1}
    assert frugal.state_dict().keys() == plain.state_dict().keys()


def test_checkpointing_keeps_fewer_activations() -> None:
    def kept(network: IResNet) -> int:
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            network.train()(torch.rand(4, 3, 32, 32))
        return sum(sizes)

    assert kept(IResNet(**SMALL, checkpointing=True)) < 0.5 * kept(IResNet(**SMALL))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 101}, "IResNet depth is 101. Known: 18, 34, 50, 100, 152, 200"),
        ({"depth": "fifty"}, "option 'depth' is 'fifty'"),
        ({"shortcut": "max"}, "option 'shortcut' is 'max'"),
        ({"drop_rate": 1.0}, r"drop_rate is 1.0, but must lie in \[0, 1\)"),
        ({"norm_eps": 0.0}, "norm_eps is 0.0"),
        ({"norm_momentum": 1.5}, "norm_momentum is 1.5"),
        ({"input_spec": {"height": 8, "width": 112}}, "IResNet halves its input 4 times, .* gives 8x112"),
        ({"dropout": 0.4}, "Did you mean 'drop_rate'|has no option 'dropout'"),
    ],
)
def test_refusals(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        BACKBONES.build("IResNet", options)


@pytest.mark.parametrize("options", [{"shortcut": "max"}, {"initial": "zeros"}, {"last_norm": "all"}])
def test_a_wrong_choice_from_python_is_refused_too(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="Known: "):
        IResNet(**SMALL, **options)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("layer5.0.conv1.weight", "which has no part 'layer5.0.conv1.weight'"),
        ("layer1.0.conv4.weight", "which has no part 'conv4'"),
        ("backbone.fc.weight", "which has no part 'backbone.fc.weight'"),
    ],
)
def test_foreign_names_are_refused(name: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        our_names(IResNet(**SMALL), {name: 0})


def test_a_deeper_state_dict_is_refused() -> None:
    state = {"input_layer.0.weight": 0, "body.8.res_layer.0.weight": 0}  # depth 18 has units 0 to 7
    with pytest.raises(CheckpointError, match="no known form of IResNet"):
        our_names(IResNet(**SMALL), state)


def test_names_of_a_backbone_without_published_names_are_refused() -> None:
    class Other(MobileFaceNet.__base__):  # type: ignore[misc, name-defined]
        def features(self, image: torch.Tensor) -> Any:
            raise NotImplementedError

    with pytest.raises(CheckpointError, match="no known form of Other"):
        our_names(Other(InputSpec(), 8), {"conv1.weight": 0})
