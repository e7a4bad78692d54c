"""Golden ``algorithms/dual_lora`` and ``alpha``: layers, their gradients, merged weights and the published gate.

Ours are float64, which depends on no processor; the stored originals are fp32.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from facelab.adapter.gate import CompatGate
from facelab.adapter.gate_slot import gate_of_forward
from facelab.adapter.low_rank import LowRankConv2d, LowRankLayer, LowRankLinear, LowRankOptions
from facelab.quality.card import ScorerCard

pytestmark = pytest.mark.golden
TOLERANCE = 1e-6  # of a whole tensor: 2.0e-7 is the most that an original is off, in a gradient


def assert_near(found: Tensor, expected: Tensor, what: str) -> None:
    assert found.dtype == torch.float64, "compared in a precision that depends on the machine"
    error = float((found - expected).norm() / expected.norm())
    assert error < TOLERANCE, f"{what}: relative error {error:.2e}"


class Golden:
    """Arrays of one file, and what the index says of them."""

    def __init__(self, root: Path, name: str) -> None:
        folder = root / "algorithms"
        self.options: dict[str, Any] = json.loads((folder / "index.json").read_text())[name]["options"]
        with np.load(folder / f"{name}.npz") as arrays:
            self.arrays: dict[str, NDArray[Any]] = dict(arrays)

    def __getitem__(self, name: str) -> Tensor:
        return torch.from_numpy(self.arrays[name]).double()


def fill(layer: LowRankLayer, downs: list[Tensor], ups: list[Tensor]) -> None:
    layer.low_rank_down.data.copy_(torch.cat(downs))
    layer.low_rank_up.data.copy_(torch.cat([up.flatten(1) for up in ups], dim=1))
    layer.double()


def linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias is not None)
    layer.weight.data.copy_(weight)
    if bias is not None:
        layer.bias.data.copy_(bias)
    return layer


def test_dual_layers_with_gradients_and_merged_weights(golden_root: Path) -> None:
    golden = Golden(golden_root, "dual_lora")
    for case in golden.options["cases"]:
        name = case["name"]
        base = linear(golden[f"{name}/W"], golden[f"{name}/b"] if case["bias"] else None)
        layer = LowRankLinear(base, "dual", LowRankOptions(golden.options["rank"], case["scale"])).eval()
        fill(layer, [golden[f"{name}/D1"], golden[f"{name}/D2"]], [golden[f"{name}/U1"], golden[f"{name}/U2"]])
        x = golden["x"].clone().requires_grad_()
        with gate_of_forward(golden["alpha_per_image"]):
            y = layer(x)
        assert_near(y.detach(), golden[f"{name}/y"], f"output of {name}")
        y.backward(golden[f"{name}/grad_y"])
        assert x.grad is not None
        assert_near(x.grad, golden[f"{name}/grad_x"], f"gradient of the input of {name}")
        check_gradients(layer, golden, name, golden.options["rank"])
        for key in (key for key in golden.arrays if key.startswith(f"{name}/merged_alpha_")):
            merged = layer.merged_weight(float(key.rsplit("_", 1)[1]))
            assert_near(merged.detach(), golden[key], key)


def check_gradients(layer: LowRankLinear, golden: Golden, name: str, rank: int) -> None:
    down, up = layer.low_rank_down.grad, layer.low_rank_up.grad
    assert down is not None
    assert up is not None
    assert layer.weight.grad is not None
    found = {"W": layer.weight.grad, "D1": down[:rank], "D2": down[rank:], "U1": up[:, :rank], "U2": up[:, rank:]}
    if f"{name}/grad/b" in golden.arrays:
        found["b"] = layer.bias.grad
    for key, gradient in found.items():
        assert_near(gradient, golden[f"{name}/grad/{key}"], f"gradient of {key} of {name}")


def test_single_layer(golden_root: Path) -> None:
    golden = Golden(golden_root, "dual_lora")
    base = linear(golden["single/W"], golden["single/b"])
    layer = LowRankLinear(base, "single", LowRankOptions(golden.options["rank"], golden.options["single_scale"])).eval()
    fill(layer, [golden["single/D"]], [golden["single/U"]])
    assert_near(layer(golden["x"]).detach(), golden["single/y"], "output")
    assert_near(layer.merged_weight(0.3).detach(), golden["single/merged"], "merged weight")


def test_convolutions(golden_root: Path) -> None:
    golden = Golden(golden_root, "dual_lora")
    for name, description in golden.options["conv_cases"].items():
        layer = convolution(golden, f"conv/{name}", description)
        assert_near(layer(golden["conv/x"]).detach(), golden[f"conv/{name}/y"], f"output of {name}")
        if f"conv/{name}/merged" in golden.arrays:
            merged = layer.merged_weight(0.5).detach()
            assert_near(merged, golden[f"conv/{name}/merged"], f"merged weight of {name}")


def convolution(golden: Golden, name: str, description: str) -> LowRankConv2d:
    words = description.split()
    said = {word: int(words[place + 1]) for place, word in enumerate(words) if word in ("stride", "padding", "groups")}
    weight = golden[f"{name}/W"]
    groups, bias = said.get("groups", 1), f"{name}/b" in golden.arrays
    base = nn.Conv2d(
        weight.shape[1] * groups,
        weight.shape[0],
        (weight.shape[2], weight.shape[3]),
        stride=said.get("stride", 1),
        padding=said.get("padding", 0),
        groups=groups,
        bias=bias,
    )
    base.weight.data.copy_(weight)
    if bias and base.bias is not None:
        base.bias.data.copy_(golden[f"{name}/b"])
    rank, scale = len(golden[f"{name}/D"]), golden.options["conv_scale"]
    layer = LowRankConv2d(base, "single", LowRankOptions(rank, scale)).eval()
    fill(layer, [golden[f"{name}/D"]], [golden[f"{name}/U"]])
    return layer


def test_published_gate(golden_root: Path) -> None:
    golden = Golden(golden_root, "alpha")
    for tau in golden.options["tau"]:
        gate = CompatGate(tau, as_published=True)
        gate.calibrate(golden.arrays["q"], ScorerCard(name="any"))
        expected = golden[f"alpha_tau_{tau:g}"].flatten()
        found = gate(golden["q"].float())  # single additions, which every processor rounds alike
        torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-6)
