"""VarGFaceNet against its MXNet symbol: embeddings, parameters and multiplications."""

import json
import math
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from facelab.backbone.base import BACKBONES
from facelab.backbone.names.import_names import our_names
from facelab.backbone.vargfacenet import VarGFaceNet
from facelab.catalogue import build
from facelab.inputs import InputSpec, normalise

SMALL_COPY = Path(__file__).parents[1] / "golden" / "vargfacenet"
TOLERANCE = 1e-5  # of what the symbol gave in fp32 from what ours gives in float64


def published(name: str, shape: list[int]) -> Tensor:
    """The weight rule of the golden folder: values follow from the name."""
    noise = torch.from_numpy(np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)).float()
    if name.endswith("running_var"):
        return noise.abs() * 0.5 + 0.5
    if name.endswith("slope"):
        return 0.25 + 0.1 * noise
    if len(shape) >= 2:
        return noise / math.sqrt(math.prod(shape[1:]))
    centre = 1.0 if name.endswith("weight") else 0.0
    return centre + 0.1 * noise


def loaded(options: dict[str, Any]) -> VarGFaceNet:
    network = VarGFaceNet()
    state = {name: published(name, shape) for name, shape in options["manifest"]}
    ours = our_names(network, state)
    counters = {key: value for key, value in network.state_dict().items() if key.endswith("num_batches_tracked")}
    network.load_state_dict({**ours, **counters})
    return network.eval()


def check(folder: Path) -> None:
    options = json.loads((folder / "index.json").read_text())["vargfacenet"]["options"]
    with np.load(folder / "vargfacenet.npz") as arrays:
        pixels, expected = torch.from_numpy(arrays["images"]), torch.from_numpy(arrays["embedding"])
    network = loaded(options).double()
    assert sum(parameter.numel() for parameter in network.parameters()) == options["parameters"]
    assert network.last_norm.eps == options["bn_eps"]
    maps = inner_maps(network, options["block_statistics"])
    with torch.inference_mode():
        embedding = network(normalise(pixels.permute(0, 3, 1, 2).contiguous(), network.input_spec).double())
    assert float(((embedding - expected).norm(dim=1) / expected.norm(dim=1)).max()) < TOLERANCE
    for name, expected_block in options["block_statistics"].items():
        assert list(maps[name].shape[1:]) == expected_block["shape"]
        found = (float(maps[name].mean()), float(maps[name].std()))
        assert found == pytest.approx((expected_block["mean"], expected_block["std"]), rel=TOLERANCE), name


def inner_maps(network: VarGFaceNet, names: Iterable[str]) -> dict[str, Tensor]:
    """Filled by the next forward pass: the outputs of the activations that the symbol calls so."""
    maps: dict[str, Tensor] = {}
    for name in names:
        (slope,) = our_names(network, {f"{name}.slope": torch.zeros(1)})
        activation = network.get_submodule(slope.removesuffix(".weight"))
        activation.register_forward_hook(lambda _, __, output, name=name: maps.update({name: output}))
    return maps


def test_equals_the_symbol() -> None:
    check(SMALL_COPY)


@pytest.mark.golden
def test_equals_the_symbol_in_the_golden_folder(golden_root: Path) -> None:
    check(golden_root / "algorithms")


def test_multiplications() -> None:
    macs = json.loads((SMALL_COPY / "index.json").read_text())["vargfacenet"]["options"]["macs"]
    with torch.device("meta"):
        network, image = VarGFaceNet().eval(), torch.zeros(1, 3, 112, 112)
        with FlopCounterMode(display=False) as counter:
            network(image)
    assert counter.get_total_flops() == 2 * macs


def test_the_last_kernel_is_as_large_as_the_map() -> None:
    with torch.device("meta"):
        network = build(BACKBONES, "VarGFaceNet-112x96")
    assert tuple(network.global_grouped.conv.kernel_size) == (7, 6)
    assert VarGFaceNet(InputSpec(60, 112), width=0.2).global_grouped.conv.kernel_size == (4, 7)
