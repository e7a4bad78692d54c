"""Bytes that training keeps, by hand and as real tensors show them."""

import torch
from torch import Tensor, nn

from facelab.backbone.base import BACKBONES
from facelab.catalogue import build
from facelab.cost.activation_memory import activation_bytes

FLOAT = 4


def small() -> nn.Sequential:
    layers = nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 64, 2), nn.Sigmoid()
    return nn.Sequential(*layers)


def test_by_hand() -> None:
    # The convolution keeps the image, ReLU its output, which the linear layer keeps too, the sigmoid its output.
    network = small().eval()
    assert activation_bytes(network, (8, 8)) == FLOAT * (3 * 64 + 5 * 64 + 2)
    assert not network.training
    assert activation_bytes(network.bfloat16(), (8, 8)) is None  # an image in float32 does not fit


def test_frozen_layers_keep_nothing() -> None:
    network = small()
    network[0].requires_grad_(False)
    assert activation_bytes(network, (8, 8)) == FLOAT * (5 * 64 + 2)


def test_what_a_batch_has_once_is_not_counted() -> None:
    # BatchNorm keeps its input, and mean and deviation of the batch.
    assert activation_bytes(nn.Sequential(nn.BatchNorm2d(3)), (8, 8)) == FLOAT * 3 * 64


def test_recomputed_blocks_keep_less() -> None:
    options = {"dim": 16, "depth": 3, "heads": 2, "mask_ratio": 0.0, "input_spec": {"height": 36, "width": 36}}
    kept, recomputed = (
        activation_bytes(build(BACKBONES, {"ViT": {**options, "checkpointing": again}}), (36, 36))
        for again in (False, True)
    )
    tokens = FLOAT * 16 * 16
    assert kept is not None
    assert recomputed is not None
    assert 3 * tokens <= recomputed < kept / 2


def test_real_tensors_are_as_large() -> None:
    network = build(BACKBONES, {"MobileFaceNet": {"width": 0.25, "input_spec": {"height": 32, "width": 32}}}).train()
    own = {tensor.data_ptr() for tensor in (*network.parameters(), *network.buffers())}

    def saved(images: int) -> int:
        found: dict[int, Tensor] = {}

        def keep(tensor: Tensor) -> Tensor:
            found[tensor.untyped_storage().data_ptr()] = tensor
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            network(torch.zeros(images, 3, 32, 32))
        return sum(tensor.untyped_storage().nbytes() for place, tensor in found.items() if place not in own)

    assert activation_bytes(network, (32, 32)) == saved(5) - saved(4)
