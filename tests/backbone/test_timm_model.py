"""Timm: output styles, stems, weights and refusals."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from facelab.backbone.base import BACKBONES
from facelab.backbone.timm_model import Timm
from facelab.catalogue import build
from facelab.errors import CheckpointError, ConfigError
from facelab.inputs import InputSpec

SMALL: dict[str, Any] = {"model": "test_resnet", "input_spec": InputSpec(64, 64), "feat_dim": 16}


def test_the_stride_of_the_stem_doubles_the_last_map() -> None:
    usual, fine = Timm(**SMALL), Timm(**SMALL, stem_stride=1)
    channels = usual.output.norm.num_features
    assert usual.output.fc.in_features == channels * 2 * 2
    assert fine.output.fc.in_features == channels * 4 * 4


def test_two_convolutions_side_by_side_get_the_same_stride() -> None:
    network = Timm(**SMALL | {"model": "repvgg_a0"}, stem_stride=1)
    assert [tuple(stage.shape[2:]) for stage in network.eval().features(torch.zeros(1, 3, 64, 64)).maps][-1] == (4, 4)


def test_classifier_output_is_timms_own_network() -> None:
    network = Timm(**SMALL, output="classifier").eval()
    x = torch.rand(2, 3, 64, 64)
    assert torch.equal(network(x), network.network(x))
    assert network(x).shape == (2, 16)


@pytest.mark.parametrize(
    ("model", "options"), [("test_vit", {"patch_size": 8}), ("test_convnext", {}), ("test_efficientnet", {})]
)
def test_other_families_give_embeddings_and_features(model: str, options: dict[str, Any]) -> None:
    network = Timm(model, InputSpec(48, 64), 16, output="classifier", options=options).eval()
    with torch.no_grad():
        features = network.features(torch.rand(2, 3, 48, 64))
    assert features.embedding.shape == (2, 16)
    assert (features.tokens is not None) == (model == "test_vit")


def test_maps_with_channels_last_are_taken_too() -> None:
    network = Timm("swin_tiny_patch4_window7_224", InputSpec(56, 56), 16, options={"depths": (1, 1, 1, 1)})
    assert network.output.norm.num_features == 768
    assert network(torch.rand(2, 3, 56, 56)).shape == (2, 16)


def test_stochastic_depth_and_dropout_reach_the_model() -> None:
    network = Timm(**SMALL, drop_rate=0.3, drop_path_rate=0.2)
    assert network.output.dropout.p == 0.3
    assert any(type(module).__name__ == "DropPath" for module in network.modules())


def test_weights_are_loaded(tmp_path: Path) -> None:
    donor = Timm(**SMALL, output="classifier").eval()
    save_file(donor.network.state_dict(), tmp_path / "donor.safetensors")
    network = Timm(**SMALL, output="classifier", weights=tmp_path / "donor.safetensors").eval()
    x = torch.rand(2, 3, 64, 64)
    assert torch.equal(network(x), donor(x))


def test_the_classifier_in_a_file_is_left_out_where_there_is_none(tmp_path: Path) -> None:
    donor = Timm(**SMALL, output="classifier")
    save_file(donor.network.state_dict(), tmp_path / "donor.safetensors")
    network = Timm(**SMALL, weights=tmp_path / "donor.safetensors")
    body = network.network.state_dict()
    assert all(torch.equal(body[name], donor.network.state_dict()[name]) for name in body)


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    donor = Timm(**SMALL | {"feat_dim": 8}, output="classifier")
    save_file(donor.network.state_dict(), tmp_path / "donor.safetensors")
    with pytest.raises(CheckpointError, match=r"2 of \d+ tensors differ, for example '.*bias', \(8,\) in the file"):
        Timm(**SMALL, output="classifier", weights=tmp_path / "donor.safetensors")


@pytest.mark.parametrize("content", [None, b"not a safetensors file"], ids=["missing", "damaged"])
def test_weights_that_cannot_be_read_are_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "weights.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match="cannot read the weights '.*weights.safetensors'"):
        Timm(**SMALL, weights=path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "resnet5"}, "timm has no model 'resnet5'. Did you mean 'resnet50'"),
        ({"model": "test_vit"}, r"'test_vit' of timm ends in \(\d+, 64\) .* use 'output: classifier'"),
        ({"model": "test_vit", "stem_stride": 1}, "stem_stride cannot be set; give a patch size instead"),
        ({"model": "test_resnet", "options": {"colour": 1}}, "timm cannot build 'test_resnet' with .*'colour'"),
        ({"model": "test_resnet", "stem_stride": 0}, "stem_stride is 0"),
        ({"model": "test_resnet", "drop_rate": 1.0}, "drop_rate is 1.0"),
        (
            {"model": "test_vit", "output": "classifier", "options": {"patch_size": 13}},
            "'test_vit' of timm cannot take images of 48x48: Input height",
        ),
        ({}, "backbone 'Timm' needs the option 'model'"),
        ({"model": "test_resnet", "pretrained": True}, "has no option 'pretrained'"),
    ],
)
def test_refusals(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        BACKBONES.build("Timm", {"input_spec": {"height": 48, "width": 48}, **options})


@pytest.mark.real
def test_edgeface_loads_strictly(shared_root: Path) -> None:
    weights = str(shared_root / "data" / "weights" / "edgeface_xxs.safetensors")
    network = build(BACKBONES, {"EdgeFace-XXS": {"weights": weights}}).eval()
    assert round(sum(parameter.numel() for parameter in network.parameters()) / 1e6, 2) == 1.24
    assert network.input_spec == InputSpec()
    with torch.no_grad():
        embedding = network(torch.rand(2, 3, 112, 112) * 2 - 1)
    assert embedding.shape == (2, 512)
