"""PETALface's released files: what they hold is told from them; tensors that do not fit are named; golden values."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from facelab.adapter.base import ADAPTERS, AdaptedBackbone
from facelab.adapter.gate import CompatGate
from facelab.adapter.petalface import import_petalface
from facelab.backbone.base import BACKBONES, Backbone
from facelab.catalogue import build
from facelab.errors import CheckpointError, ConfigError
from facelab.weights.published_file import read_state

SMALL: dict[str, Any] = {
    "Swin": {
        "patch": 4,
        "dim": 16,
        "depths": [2, 1],
        "heads": [2, 2],
        "window": 2,
        "shift_mask": False,
        "feat_dim": 8,
        "input_spec": {"height": 32, "width": 32},
    }
}


def small(adapter: str | None) -> Backbone:
    torch.manual_seed(0)
    network = BACKBONES.build("Swin", SMALL["Swin"]).eval()
    if adapter is None:
        return network
    options: dict[str, Any] = {"rank": 3, "targets": ["*.qkv"], "initial": "trunc_normal"}
    if adapter == "LoRA":
        return AdaptedBackbone(network, ADAPTERS.build("LoRA", options)).eval()
    gate = CompatGate(as_published=True)
    return AdaptedBackbone(network, ADAPTERS.build("DualLoRA", {**options, "single": ["feature.2"]}), gate).eval()


def their_name(name: str) -> str:
    return name.replace("stages.", "layers.", 1).replace("feature.", "feature_layer.", 1)


def their_state(network: Backbone) -> dict[str, Tensor]:
    """The network's tensors as PETALface writes them, with the buffers that it keeps."""
    inner = network.network if isinstance(network, AdaptedBackbone) else network
    state: dict[str, Tensor] = {"layers.0.blocks.1.attn_mask": torch.zeros(4, 4)}
    for name, tensor in inner.state_dict().items():
        layer, _, last = their_name(name).rpartition(".")
        if not last.startswith("low_rank"):
            state[their_name(name)] = tensor
            continue
        parts = tensor.chunk(
            2 if layer.endswith("qkv") and network.needs_quality else 1, dim=int(last == "low_rank_up")
        )
        for number, part in enumerate(parts):
            state[f"{layer}.trainable_lora_{last[9:]}{'2' if number else ''}.weight"] = part.clone()
    return state


@pytest.mark.parametrize("adapter", [None, "LoRA", "DualLoRA"])
def test_a_file_tells_what_it_holds(adapter: str | None, tmp_path: Path) -> None:
    original = small(adapter)
    torch.save(their_state(original), tmp_path / "model.pt")
    state = read_state(str(tmp_path / "model.pt"))
    network, card = import_petalface(SMALL, state, "model.pt")
    image = torch.rand(2, 3, 32, 32) * 2 - 1
    if not isinstance(original, AdaptedBackbone):
        assert torch.equal(network.eval()(image), original(image))
        assert "adapter" not in card
        return
    assert isinstance(network, AdaptedBackbone)
    gate = torch.tensor([0.2, 1.4]) if adapter == "DualLoRA" else None
    assert torch.equal(network.with_gate(image, gate), original.with_gate(image, gate))
    assert next(iter(card["adapter"])) == adapter
    if network.gate is not None:
        assert network.gate(torch.tensor([0.5, 0.9])).tolist() == pytest.approx([0.5, 0.9])
        assert card["gate"] == {"compat": {"tau": 0.5}}


def test_the_scale_is_the_one_that_is_given() -> None:
    """Twice the scale is twice the update; a file says nothing of it."""
    original, image = small("LoRA"), torch.rand(2, 3, 32, 32) * 2 - 1
    network, card = import_petalface(SMALL, their_state(original), "model.pt", scale=2.0)
    assert card["adapter"]["LoRA"]["scale"] == 2.0
    assert isinstance(original, AdaptedBackbone)
    for layer in original.low_rank_layers().values():
        layer.low_rank_up.data *= 2
    torch.testing.assert_close(network(image), original(image))


def test_what_does_not_fit_is_named() -> None:
    state = their_state(small("DualLoRA"))
    with pytest.raises(ConfigError, match=r"have rank 3, not 8; leave --rank out"):
        import_petalface(SMALL, state, "model.pt", rank=8)
    del state["norm.weight"]
    state["extra"] = torch.zeros(1)
    state["norm.bias"] = torch.zeros(5)
    with pytest.raises(CheckpointError) as refused:
        import_petalface(SMALL, state, "model.pt")
    assert "'model.pt'" in str(refused.value)
    assert "1 missing ('norm.weight'), 1 unknown ('extra'), 1 of another shape ('norm.bias' 5 instead of 32)" in str(
        refused.value
    )


@pytest.mark.parametrize(
    ("entry", "adapter", "options", "added"),
    [
        ("PETALSwin", "DualLoRA", {"rank": 8, "single": ["feature.2"]}, 1_441_792),
        ("PETALSwin", "DualLoRA", {"rank": 32, "single": ["feature.2"]}, 5_767_168),
        ("PETALSwin", "LoRA", {"rank": 8}, 565_248),
        ("vit_b", "DualLoRA", {"rank": 8, "single": ["feature.0", "feature.2"]}, 1_388_544),
    ],
)
def test_as_many_parameters_as_the_original_adds(entry: str, adapter: str, options: dict[str, Any], added: int) -> None:
    with torch.device("meta"):
        network = build(BACKBONES, entry)
        before = sum(parameter.numel() for parameter in network.parameters())
        ADAPTERS.build(adapter, {"targets": ["*.qkv"], **options}).inject(network)
    assert sum(parameter.numel() for parameter in network.parameters()) - before == added


@pytest.mark.parametrize("adapter", ["LoRA", "DualLoRA"])
def test_adapters_go_on_as_published(adapter: str) -> None:
    """Statistics of BatchNorm move when training goes on, outputs are dropped, and further factors would be drawn."""
    network, card = import_petalface(SMALL, their_state(small(adapter)), "a.pt")
    ((name, options),) = card["adapter"].items()
    assert name == adapter
    assert {"moving_statistics": True, "dropout_on": "output", "initial": "trunc_normal"}.items() <= options.items()
    assert isinstance(network, AdaptedBackbone)
    norms = [layer for layer in network.train().modules() if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm)]
    assert norms
    before = [norm.running_mean.clone() for norm in norms if norm.running_mean is not None]
    network(torch.rand(4, 3, 32, 32), *([torch.full((4,), 0.5)] if network.needs_quality else []))
    after = [norm.running_mean for norm in norms if norm.running_mean is not None]
    assert not any(torch.equal(old, new) for old, new in zip(before, after, strict=True))
