"""The joined embedding of both spaces, and crossing: by hand and on a network."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facelab.adapter.base import ADAPTERS, AdaptedBackbone
from facelab.adapter.gate import SigmoidGate
from facelab.adapter.two_spaces import add_spaces, join_spaces
from facelab.backbone.base import BACKBONES
from facelab.errors import ConfigError
from facelab.model.face_model import FaceModel
from facelab.quality.card import ScorerCard

GOOD, BAD = 0.9, 0.1


def network(adapter: str = "DualLoRA", crossing: float = 0.0, joined: float = 0.0) -> AdaptedBackbone:
    """A small network whose experts differ; dropout is off."""
    torch.manual_seed(0)
    options = {"width": 0.125, "feat_dim": 8, "input_spec": {"height": 32, "width": 32}}
    base = BACKBONES.build("MobileFaceNet", options).eval()
    more = {"crossing": crossing, "joined": joined} if adapter == "DualLoRA" else {}
    built = ADAPTERS.build(adapter, {"rank": 2, "dropout": 0.0, **more})
    gate = SigmoidGate(tau=0.5, temperature=0.1) if built.needs_gate else None
    if gate is not None:
        gate.calibrate([BAD, GOOD], ScorerCard(name="test", low=0, high=1))
    adapted = AdaptedBackbone(base, built, gate)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.5)
    return adapted.eval()


def images(count: int = 3) -> Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_cosines_by_hand() -> None:
    """Two spaces of two dimensions: cosines 0.6 in the low one and -0.8 in the high one; the share is 0.5."""
    low = torch.tensor([[2.0, 0.0], [0.6, 0.8]])
    high = torch.tensor([[0.0, 1.0], [0.6, -0.8]])
    cases = {(0.0, 1.0): (0.5**0.5, 0.0), (1.0, 1.0): (0.5, 0.5), (0.5, 1.0): (0.375**0.5, 0.125**0.5)}
    for gates, weights in cases.items():
        both = join_spaces(low, high, torch.tensor(gates), 0.5)
        assert both.norm(dim=1).tolist() == pytest.approx([1.0, 1.0])
        assert (both[0] @ both[1]).item() == pytest.approx(0.6 * weights[0] - 0.8 * weights[1])


def test_added_spaces_by_hand() -> None:
    """At gate 1 and share 0.36 the weights are 0.8 and 0.6."""
    found = add_spaces(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 5.0]]), torch.tensor([1.0]), 0.36)
    torch.testing.assert_close(found, torch.tensor([[0.8, 0.6]]))


def test_an_added_embedding_is_as_long_as_the_base_has_it() -> None:
    adapted, quality = network(joined=0.7), torch.tensor([BAD, 0.5, GOOD])
    low, high = adapted(images(), quality).chunk(2, dim=1)
    adapted.added = True
    assert adapted.embedding_dim == adapted.feat_dim == 8
    torch.testing.assert_close(adapted(images(), quality), F.normalize(low + high, dim=1))
    with pytest.raises(ConfigError, match="adds the spaces of a joined embedding, but joined is 0; set joined: 0.7"):
        ADAPTERS.build("DualLoRA", {"added": True})


def test_a_gate_beyond_its_ends_counts_as_the_end() -> None:
    low, high = torch.randn(2, 4), torch.randn(2, 4)
    assert torch.equal(
        join_spaces(low, high, torch.tensor([-3.0, 7.0]), 0.5), join_spaces(low, high, torch.tensor([0.0, 1.0]), 0.5)
    )


def test_the_spaces_are_those_of_the_experts() -> None:
    adapted, quality = network(joined=0.7), torch.tensor([BAD, 0.5, GOOD])
    found = adapted(images(), quality)
    gate = adapted.gate_of(quality)
    assert gate is not None
    for at, (expert, weight) in enumerate(((0.0, 1 - 0.7 * gate), (1.0, 0.7 * gate))):
        expected = weight.sqrt()[:, None] * F.normalize(adapted.with_gate(images(), torch.full((3,), expert)), dim=1)
        assert torch.allclose(found[:, 8 * at : 8 * at + 8], expected, atol=1e-6)


def test_training_sees_one_space() -> None:
    assert network(joined=0.7).train()(images(), torch.full((3,), GOOD)).shape == (3, 8)


def test_every_protocol_takes_it() -> None:
    """The extractor gives embeddings of twice the size."""
    pixels = [np.full((32, 32, 3), grey, np.uint8) for grey in (0, 100, 200)]
    model = FaceModel(network(joined=0.7), "joined", {}, torch.device("cpu"))
    assert model.embed(np.stack(pixels), quality=[BAD, 0.5, GOOD]).shape == (3, model.feat_dim) == (3, 16)


def test_crossed_images_go_through_the_low_expert_in_training_alone() -> None:
    good = torch.full((3,), GOOD)
    adapted = network(crossing=1.0)
    low = adapted.with_gate(images(), torch.zeros(3))
    assert not torch.allclose(adapted(images(), good), low)
    assert torch.allclose(adapted.train()(images(), good), low)


def test_some_images_cross() -> None:
    adapted = network(crossing=0.5).train()
    torch.manual_seed(0)
    gates = adapted.gate_of(torch.full((1000,), GOOD))
    assert gates is not None
    assert 400 < int((gates == 0).sum()) < 600


def test_crossing_is_a_probability() -> None:
    with pytest.raises(ConfigError, match="DualLoRA crossing"):
        network(crossing=1.5)


def test_the_share_is_one() -> None:
    with pytest.raises(ConfigError, match="DualLoRA joined"):
        network(joined=-0.1)
