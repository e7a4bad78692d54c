"""Golden adapted backbones: PETALface's transformers with single and dual updates, loaded under their own names."""

import gc
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from facelab.adapter.base import ADAPTERS, AdaptedBackbone
from facelab.adapter.gate import CompatGate
from facelab.adapter.import_names import load_petalface
from facelab.backbone.base import BACKBONES
from facelab.catalogue import build

pytestmark = pytest.mark.golden
SIDES = {"swin_256new": "PETALSwin", "vit_b": "vit_b"}
BASES = ("swin_256new", pytest.param("vit_b", marks=pytest.mark.slow))
FINAL = {"swin_256new": ["feature.2"], "vit_b": ["feature.0", "feature.2"]}
# Two updates are what one is and more.
KINDS = ("iqa_lora8", pytest.param("lora8", marks=pytest.mark.slow))


def adapted(name: str, size: int) -> AdaptedBackbone:
    base, kind = re.fullmatch(r"petalface__(swin_256new|vit_b)_(.*)", name).groups()  # type: ignore[union-attr]
    inline: dict[str, Any] = {"input_spec": {"height": size, "width": size}}
    if base == "swin_256new":
        inline["shift_mask"] = False
    network = build(BACKBONES, {SIDES[base]: inline})
    dual = kind.startswith("iqa")
    options: dict[str, Any] = {"rank": int(kind.rsplit("lora", 1)[1]), "targets": ["*.qkv"]}
    if dual:
        options["single"] = FINAL[base]
    gate = CompatGate(as_published=True) if dual else None
    return AdaptedBackbone(network, ADAPTERS.build("DualLoRA" if dual else "LoRA", options), gate).eval()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("base", BASES)
def test_equals_the_original(base: str, kind: str, golden_root: Path, golden_model: Any) -> None:
    name = f"petalface__{base}_{kind}"
    golden = golden_model(golden_root / "backbones", name)
    network = adapted(name, golden.manifest["input_size"])
    assert sum(parameter.numel() for parameter in network.parameters()) == golden.manifest["params"]
    load_petalface(network, golden.weights(), name)
    gate = golden.expected["alpha"].flatten().double() if "alpha" in golden.expected else None
    with torch.inference_mode():
        embedding = network.double().with_gate(golden.images(), gate)
    assert golden.relative_error(embedding, golden.expected["out0"]) < golden.tolerance
    gc.collect()
