"""Every published row against our counts, on shapes alone."""

from functools import cache

import pytest
import torch
from torch import nn

from facelab.backbone.base import BACKBONES, Backbone
from facelab.catalogue import build, entries
from facelab.cost.network_cost import Operations, count_operations, used_parameters
from facelab.cost.published_costs import PUBLISHED

# FaceX-Zoo's networks measured: parameters without unread ones, multiply-accumulates of convolutions and linear layers.
MEASURED = {
    "MobileFaceNet": (1.201e6, 221e6),
    "ResNet50_ir": (43.575e6, 6.296e9),
    "ResNet100_ir": (65.130e6, 12.08e9),
    "ResNet100_ir_se": (65.502e6, 12.08e9),
    "ResNet152_ir_se": (71.149e6, 12.308e9),
    "EfficientNet-B0": (37.405e6 - 1.281e6, 417e6),
    "HRNet": (70.631e6, 4.317e9),
    "GhostNet": (26.759e6, 163e6),
    "AttentionNet-56": (98.965e6 - 17.83e6, 6.232e9),
    "AttentionNet-92": (134.562e6 - 32.77e6, 10.495e9),
    "TF-NAS-A": (39.591e6, 488e6),
    "LightCNN-29": (11.596e6, 2.831e9),
    "ResNeSt50": (76.793e6, 5.470e9),
    "ReXNet_1.0": (15.197e6, 402e6),
    "RepVGG_A0": (39.945e6, 1.543e9),
    "RepVGG_B0": (46.654e6, 3.428e9),
    "RepVGG_B1": (106.752e6, 13.177e9),
    "Swin-T": (46.788e6, 4.369e9),
    "Swin-S": (68.106e6, 8.531e9),
    "r50": (43.59e6, 6.309e9),
    "r100": (65.16e6, 12.09e9),
    "mbf": (2.06e6, 0.438e9),
    "mbf_large": (6.31e6, 1.816e9),
    "VarGFaceNet": (5.198e6, 0.513e9),
}
# These were measured with the products of attention.
WITH_ATTENTION = {"vit_t": 1.505e9, "TransFace-S": 5.75e9, "TransFace-B": 11.44e9, "TransFace-L": 25.35e9}
UNREAD = {"EfficientNet-B0": 1.281e6, "AttentionNet-56": 17.83e6, "AttentionNet-92": 32.77e6}
PARAMETERS_DIFFER = {"EfficientNet-B0", "AttentionNet-56", "AttentionNet-92"}


def shapes(name: str, **options: object) -> Backbone:
    with torch.device("meta"):
        return build(BACKBONES, {name: options}, feat_dim=512)


def size_of(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@cache
def counted(name: str) -> tuple[int, Operations]:
    network = shapes(name)
    work = count_operations(network, network.input_spec.size)
    assert work is not None
    return size_of(network), work


def test_every_published_name_is_in_the_catalogue() -> None:
    assert set(PUBLISHED) <= set(entries(BACKBONES))


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_numbers(name: str) -> None:
    published, (parameters, work) = PUBLISHED[name], counted(name)
    assert published.explained(work) == pytest.approx(published.macs, rel=0.01)
    if published.parameters and name not in PARAMETERS_DIFFER:
        assert parameters == pytest.approx(published.parameters, rel=0.01)
    assert bool(published.parameters_remark) == (name in PARAMETERS_DIFFER)


@pytest.mark.parametrize("name", ["AttentionNet-56", "AttentionNet-92"])
def test_published_parameters_contain_what_nothing_reads(name: str) -> None:
    network = shapes(name, published_extras=True)
    assert size_of(network) == pytest.approx(PUBLISHED[name].parameters, rel=0.001)


def test_published_parameters_of_efficientnet_contain_no_convolution() -> None:
    network = shapes("EfficientNet-B0", published_extras=True)
    convolutions = sum(size_of(layer) for layer in network.modules() if isinstance(layer, nn.Conv2d))
    assert size_of(network) - convolutions == pytest.approx(PUBLISHED["EfficientNet-B0"].parameters, rel=0.001)


@pytest.mark.parametrize("name", MEASURED)
def test_measured_numbers(name: str) -> None:
    parameters, work = counted(name)
    expected, macs = MEASURED[name]
    assert parameters == pytest.approx(expected, rel=0.001)
    assert work.convolution + work.linear == pytest.approx(macs, rel=0.01)
    assert (work.attention > 0) == name.startswith("Swin")


@pytest.mark.parametrize("name", WITH_ATTENTION)
def test_measured_numbers_of_transformers(name: str) -> None:
    assert counted(name)[1].macs == pytest.approx(WITH_ATTENTION[name], rel=0.01)


@pytest.mark.parametrize("name", UNREAD)
def test_what_nothing_reads_is_not_in_use(name: str) -> None:
    lean, full = shapes(name), shapes(name, published_extras=True)
    used = used_parameters(full, full.input_spec.size)
    assert used == size_of(lean)
    assert size_of(full) - used == pytest.approx(UNREAD[name], rel=0.001)


def test_repvgg_is_used_in_its_deployed_form() -> None:
    deployed = shapes("RepVGG_A0").inference_form()
    assert used_parameters(deployed, (112, 112)) == pytest.approx(39.15e6, rel=0.001)
