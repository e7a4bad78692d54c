"""Gradient checkpointing of every backbone that has it: nothing changes but what is kept in memory."""

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from facelab.backbone.base import BACKBONES, Backbone
from facelab.backbone.layers.recompute import Blocks

SMALL: dict[str, dict[str, Any]] = yaml.safe_load((Path(__file__).parents[1] / "small.yaml").read_text())
NAMES = [name for name in BACKBONES.names() if "checkpointing" in inspect.signature(BACKBONES.get(name)).parameters]
SHALLOW = {"Timm"}  # its own checkpointing counts a batch twice in running statistics and knows no adapters


def built(name: str, *, checkpointing: bool) -> Backbone:
    torch.manual_seed(0)
    options = {"input_spec": {"height": 32, "width": 32}, "feat_dim": 16, **SMALL[name], "checkpointing": checkpointing}
    return BACKBONES.build(name, options).train()


def trained(network: Backbone) -> tuple[Tensor, list[Tensor | None], dict[str, Tensor], int]:
    """Embedding, gradients and buffers after one pass, and the number of values kept for the backward pass."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    image = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(2)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        embedding = network(image)
    weights = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    (embedding * torch.linspace(-1, 1, 16)).square().sum().backward()
    size = sum(count for place, count in kept.items() if place not in weights)
    return embedding, [parameter.grad for parameter in network.parameters()], dict(network.named_buffers()), size


def test_deep_networks_have_it() -> None:
    ours = {
        name for name in BACKBONES.names() if BACKBONES.get(name).__module__.startswith("facelab.")
    }  # other tests register some of their own
    assert ours - set(NAMES) == SHALLOW


@pytest.mark.parametrize("name", NAMES)
def test_embeddings_gradients_and_statistics_are_equal(name: str) -> None:
    plain, frugal = built(name, checkpointing=False), built(name, checkpointing=True)
    assert frugal.state_dict().keys() == plain.state_dict().keys()
    embedding, gradients, buffers, size = trained(plain)
    same_embedding, same_gradients, same_buffers, smaller = trained(frugal)
    torch.testing.assert_close(same_embedding, embedding, rtol=0, atol=0)
    torch.testing.assert_close(same_gradients, gradients, rtol=0, atol=0)
    torch.testing.assert_close(same_buffers, buffers, rtol=0, atol=0)
    assert smaller < 0.75 * size


def test_in_evaluation_and_without_gradients_nothing_is_computed_twice() -> None:
    calls = []

    class Counted(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            calls.append(1)
            return x.square()  # which needs x again

    blocks = Blocks(Counted(), checkpointing=True)
    x = torch.ones(1, requires_grad=True)
    blocks.eval()(x).backward()
    with torch.no_grad():
        blocks.train()(x)
    assert len(calls) == 2
    blocks(x).backward()
    assert len(calls) == 4
