"""The embeddings of the original implementations, from weights that follow from the names of their tensors."""

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from facelab.backbone.base import BACKBONES, Backbone
from facelab.backbone.names.import_names import our_names
from facelab.catalogue import build

ENTRIES = {
    "facexzoo__MobileFaceNet": "MobileFaceNet",
    "facexzoo__ResNet50_ir": "ResNet50_ir",
    "facexzoo__ResNet152_ir_se": "ResNet152_ir_se",
    "facexzoo__RepVGG": "RepVGG",
    "facexzoo__GhostNet": "GhostNet",
    "facexzoo__LightCNN29": "LightCNN-29",
    "facexzoo__ReXNet_1.0": "ReXNet_1.0",
    "facexzoo__EfficientNet_B0": "EfficientNet-B0",
    "facexzoo__TF-NAS-A": "TF-NAS-A",
    "facexzoo__ResNeSt50": "ResNeSt50",
    "facexzoo__AttentionNet56": "AttentionNet-56",
    "facexzoo__AttentionNet92": "AttentionNet-92",
    "facexzoo__HRNet": "HRNet",
    "facexzoo__SwinTransformer": "SwinTransformer",
    "arcface_torch__mbf": "mbf",
    "arcface_torch__mbf_large": "mbf_large",
    "arcface_torch__r18": "r18",
    "arcface_torch__r34": "r34",
    "arcface_torch__r50": "r50",
    "arcface_torch__r100": "r100",
    "arcface_torch__r200": "r200",
    "adaface__ir_18": "AdaFace-IR18",
    "adaface__ir_50": "AdaFace-IR50",
    "adaface__ir_101": "AdaFace-IR101",
    "adaface__ir_se_50": "AdaFace-IR-SE50",
    "magface__iresnet100": "MagFace-iResNet100",
    "arcface_torch__vit_t": "vit_t",
    "arcface_torch__vit_s": "vit_s",
    "arcface_torch__vit_b": "vit_b",
    "petalface__vit_b": "vit_b",
    "petalface__swin_256new": "PETALSwin",
    "transface__vit_s_dp005_mask_0": "TransFace-S",
    "transface__vit_b_dp005_mask_005": "TransFace-B",
    "transface__vit_l_dp005_mask_005": "TransFace-L",
}
AS_PUBLISHED: dict[str, dict[str, Any]] = {  # options that only released weights need
    "PETALSwin": {"shift_mask": False},  # the original computes the mask and does not use it
    "EfficientNet-B0": {"published_extras": True},  # ImageNet's classifier, which the original carries
    "AttentionNet-56": {"published_extras": True},  # projections that the originals carry and never use
    "AttentionNet-92": {"published_extras": True},
}
SMALL_COPIES = Path(__file__).parents[1] / "golden" / "backbones"

Read = Callable[[Path, str], Any]


def built(entry: str, size: int, feat_dim: int) -> Backbone:
    """The catalogue entry at the size of the golden images."""
    inline = {"input_spec": {"height": size, "width": size}, **AS_PUBLISHED.get(entry, {})}
    return build(BACKBONES, {entry: inline}, feat_dim=feat_dim).eval()


def check(golden: Any, entry: str) -> None:
    network = built(entry, golden.manifest["input_size"], golden.manifest["outputs"]["out0"][1])
    assert sum(parameter.numel() for parameter in network.parameters()) == golden.manifest["params"]
    network.load_state_dict(our_names(network, golden.weights()))
    with torch.inference_mode():
        features = network.double().features(golden.images())
    embedding = features.embedding
    if (
        features.patch_gate is not None and features.patch_deviation is not None
    ):  # TransFace gives both beside the embedding
        assert golden.relative_error(features.patch_gate.softmax(dim=1), golden.expected["out1"]) < golden.tolerance
        assert golden.relative_error(features.patch_deviation, golden.expected["out2"]) < golden.tolerance
    elif "out1" in golden.expected:  # AdaFace returns the unit embedding and its norm, ours is their product
        norm = embedding.norm(dim=1, keepdim=True)
        assert golden.relative_error(norm, golden.expected["out1"]) < golden.tolerance
        embedding = embedding / norm
    assert golden.relative_error(embedding, golden.expected["out0"]) < golden.tolerance


# Seconds each; a smaller network of the same class is in the usual tests, or the same one with adapters.
LONG = {
    "adaface__ir_101",
    "arcface_torch__r100",
    "arcface_torch__r200",
    "arcface_torch__vit_b",
    "facexzoo__AttentionNet92",
    "facexzoo__ResNet152_ir_se",
    "petalface__swin_256new",
    "petalface__vit_b",
    "transface__vit_b_dp005_mask_005",
    "transface__vit_l_dp005_mask_005",
}


@pytest.mark.parametrize("name", sorted(path.stem for path in SMALL_COPIES.glob("*.json") if path.stem in ENTRIES))
def test_equals_the_original(name: str, golden_model: Read) -> None:
    check(golden_model(SMALL_COPIES, name), ENTRIES[name])


@pytest.mark.golden
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in ENTRIES]
)
def test_equals_the_original_in_the_golden_folder(name: str, golden_root: Path, golden_model: Read) -> None:
    check(golden_model(golden_root / "backbones", name), ENTRIES[name])
    gc.collect()  # one large model in memory at a time
