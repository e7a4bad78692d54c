"""Swin and ViT: token masking, shifted windows, padding, checkpointing, stochastic depth, numbers of parameters."""

from typing import Any

import pytest
import torch
from torch import Tensor

from facelab.backbone.base import BACKBONES, Backbone
from facelab.backbone.layers.transformer import DropPath
from facelab.backbone.swin import Swin, from_windows, relative_positions, to_windows
from facelab.backbone.vit import ViT
from facelab.catalogue import build
from facelab.errors import ConfigError
from facelab.inputs import InputSpec

SMALL_VIT: dict[str, Any] = {
    "input_spec": InputSpec(40, 40),
    "feat_dim": 8,
    "patch": 4,
    "dim": 16,
    "depth": 2,
    "heads": 2,
}
SMALL_SWIN: dict[str, Any] = {
    "input_spec": InputSpec(36, 36),
    "feat_dim": 8,
    "patch": 4,
    "dim": 16,
    "depths": (2, 2),
    "heads": (2, 2),
    "window": 3,
}


def images(network: Backbone, batch: int = 4) -> Tensor:
    return torch.rand(batch, 3, *network.input_spec.size, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize(
    ("entry", "count"), [("PETALSwin", 213_666_768), ("vit_b", 113_833_472), ("TransFace-S", 86_660_864)]
)
def test_numbers_of_parameters(entry: str, count: int) -> None:
    with torch.device("meta"):
        network = build(BACKBONES, entry)
    assert sum(parameter.numel() for parameter in network.parameters()) == count


@pytest.mark.parametrize(
    ("entry", "dim", "depth"),
    [("vit_t", 256, 12), ("vit_s", 512, 12), ("vit_b", 512, 24), ("vit_l", 768, 24), ("vit_h", 1024, 48)],
)
def test_every_size_of_vit_has_the_parameters_of_its_width_and_depth(entry: str, dim: int, depth: int) -> None:
    """Patches of 9, 144 of them, no bias in qkv; the output is linear - BatchNorm - linear - BatchNorm."""
    tokens, output = 144, 512
    patches = 3 * 9 * 9 * dim + dim + tokens * dim + dim  # projection, positions, masked token
    block = 3 * dim**2 + dim**2 + dim + 2 * 4 * dim**2 + 4 * dim + dim + 2 * 2 * dim
    head = tokens * dim * dim + 2 * dim + dim * output + 2 * output
    with torch.device("meta"):
        network = build(BACKBONES, entry)
    assert sum(parameter.numel() for parameter in network.parameters()) == patches + depth * block + 2 * dim + head


@pytest.mark.parametrize("ratio", [0.0, 0.05, 0.4])
def test_the_share_of_hidden_tokens_is_the_ratio_that_was_asked_for(ratio: float) -> None:
    network = ViT(**SMALL_VIT, mask_ratio=ratio, drop_path_rate=0.0).train()
    with torch.no_grad():
        network.mask_token.fill_(7.0)
        network.norm.weight.zero_()  # all tokens that went through the blocks come out as zeros
        network.norm.bias.zero_()
        tokens = network.features(images(network)).tokens
    assert tokens is not None
    hidden = (tokens == 7.0).all(dim=2)
    assert hidden.sum(dim=1).tolist() == [100 - int(100 * (1 - ratio))] * 4
    assert ratio == 0 or not torch.equal(hidden[0], hidden[1])


def test_hidden_tokens_keep_the_others_in_their_places() -> None:
    torch.manual_seed(0)
    network = ViT(**SMALL_VIT, mask_ratio=0.5, drop_path_rate=0.0).train()
    with torch.no_grad():
        network.mask_token.zero_()
        for block in network.blocks:  # blocks that change nothing
            for layer in (block.attn.proj, block.mlp.fc2):  # type: ignore[union-attr]
                layer.weight.zero_()
                layer.bias.zero_()
        picture = images(network)
        some = network.features(picture).tokens
        every = network.eval().features(picture).tokens
    assert some is not None
    assert every is not None
    seen = (some != 0).any(dim=2)
    torch.testing.assert_close(some[seen], every[seen])


def test_the_patch_gate_weighs_the_tokens() -> None:
    network = ViT(**SMALL_VIT, patch_gate=True).eval()
    features = network.features(images(network))
    assert features.patch_gate is not None
    assert features.patch_gate.shape == (4, 100)
    assert bool(((features.patch_gate > 0) & (features.patch_gate < 1)).all())


def test_windows_come_back_to_their_places() -> None:
    plane = torch.arange(2 * 6 * 4 * 3).view(2, 6, 4, 3).float()
    windows = to_windows(plane, (3, 2))
    assert windows.shape == (8, 6, 3)
    assert torch.equal(windows[0, :2, 0], plane[0, 0, :2, 0])
    assert torch.equal(from_windows(windows, (3, 2), (6, 4)), plane)


def test_relative_positions_by_hand() -> None:
    # a window of 1 x 2: the same place is number 1, to the left of it 0, to the right 2
    assert relative_positions((1, 2)).tolist() == [[1, 0], [2, 1]]


def test_the_mask_hides_the_opposite_border() -> None:
    """A change at the upper left corner must not reach the lower right one through the shifted windows."""
    changed = []
    for shift_mask in (True, False):
        torch.manual_seed(0)
        network = Swin(**SMALL_SWIN | {"depths": (2,), "heads": (2,)}, shift_mask=shift_mask).eval()
        first = images(network, 1)
        second = first.clone()
        second[:, :, :4, :4] += 1.0
        (before,), (after,) = network.features(first).maps, network.features(second).maps
        changed.append(bool(((before - after)[0, :, -1, -1].abs() > 1e-7).any()))
    assert changed == [False, True]


@pytest.mark.parametrize("side", [36, 52, 60])  # grids 9, 13 (padded and odd), 15
def test_any_grid_works(side: int) -> None:
    network = Swin(**SMALL_SWIN | {"input_spec": InputSpec(side, 44)}).eval()
    assert network(images(network)).shape == (4, 8)


@pytest.mark.parametrize("network", [ViT, Swin])
def test_computing_again_gives_the_same_gradients(network: type[Backbone]) -> None:
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        options = SMALL_VIT if network is ViT else SMALL_SWIN
        built = network(**options, checkpointing=checkpointing, drop_path_rate=0.2).train()
        torch.manual_seed(1)
        built(images(built)).square().sum().backward()
        gradients.append([p.grad for p in built.parameters() if p.requires_grad])
    for kept, again in zip(*gradients, strict=True):
        torch.testing.assert_close(kept, again)


def test_dropped_branches_keep_the_mean() -> None:
    torch.manual_seed(0)
    branch = DropPath(0.3).train()(torch.ones(20000, 1, 1))
    assert branch.unique().tolist() == pytest.approx([0.0, 1 / 0.7])
    assert float(branch.mean()) == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"patch": 50}, "patches of 50 pixels do not fit into images of 40x40"),
        ({"heads": 3}, "attention of width 16 cannot be cut into 3 heads"),
        ({"mask_ratio": 0.999}, "mask_ratio 0.999 leaves none of 100 patches"),
        ({"mask_ratio": 1.0}, "ViT mask_ratio"),
    ],
)
def test_what_cannot_work_is_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        ViT(**SMALL_VIT | options)


def test_stages_without_heads_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"Swin needs heads for each stage: depths \[2, 2\], heads \[2\]"):
        Swin(**SMALL_SWIN | {"heads": (2,)})


def test_transface_gives_embedding_gate_and_deviation_of_each_patch() -> None:
    network = ViT(**SMALL_VIT, patch_gate=True).eval()
    with torch.no_grad():
        features = network.features(images(network))
    assert features.tokens is not None
    assert features.patch_gate is not None
    assert features.patch_deviation is not None
    assert features.patch_gate.shape == features.patch_deviation.shape == features.tokens.shape[:2]
    torch.testing.assert_close(features.patch_deviation, features.tokens.var(dim=2).sqrt())
