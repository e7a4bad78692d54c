"""Configurations that fail in the original programs run here (../shared/reference is where they were tried)."""

from typing import Any

import pytest
import torch

from facelab.backbone.base import BACKBONES
from facelab.catalogue import build

UPPER_HALF = {"height": 60, "width": 112}


@pytest.mark.parametrize(
    ("entry", "options", "feat_dim"),
    [
        ("LightCNN-9", {}, 512),
        ("LightCNN-29", {"input_spec": UPPER_HALF}, 512),
        ("ResNeSt101", {}, 512),
        ("GhostNet-1.3", {}, 512),
        ("ReXNet_1.3", {}, 512),
        ("EfficientNet-B2", {}, 512),
        ("HRNet", {}, 256),
        ("HRNet", {"input_spec": UPPER_HALF}, 512),
        ("AttentionNet-56", {"input_spec": UPPER_HALF}, 512),
        ("ResNet50_ir", {"depth": 18}, 512),
        ("SwinTransformer-112", {}, 512),
        ("Swin-B", {}, 512),
        ("Swin-T", {}, 256),
    ],
)
def test_runs(entry: str, options: dict[str, Any], feat_dim: int) -> None:
    with torch.device("meta"):
        assert build(BACKBONES, {entry: options}, feat_dim=feat_dim).feat_dim == feat_dim
    network = build(BACKBONES, {entry: options}, feat_dim=feat_dim).eval()
    with torch.inference_mode():
        embedding = network(torch.rand(1, 3, *network.input_spec.size, generator=torch.Generator().manual_seed(0)))
    assert embedding.shape == (1, feat_dim)
    assert bool(embedding.isfinite().all())
