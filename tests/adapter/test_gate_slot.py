"""Layers find the gate of their own forward pass: in threads, in recomputing, under torch.compile, and no other one."""

import copy
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.backends.registry import lookup_backend

from facelab.adapter.base import ADAPTERS, AdaptedBackbone
from facelab.adapter.gate import GATES
from facelab.adapter.gate_slot import expert_weights, gate_of_forward, weighted, without_updates
from facelab.backbone.base import BACKBONES, Backbone, Features
from facelab.backbone.layers.recompute import Blocks
from facelab.catalogue import Spec, build
from facelab.engine import compilation
from facelab.engine.replica import replicate
from facelab.errors import DataError
from facelab.inputs import InputSpec
from facelab.quality.card import ScorerCard

# Small networks: tokens, and windows, of which each image has several rows.
FAMILIES: dict[str, dict[str, Any]] = {
    "ViT": {"patch": 8, "dim": 16, "depth": 1, "heads": 2, "mask_ratio": 0.0},
    "Swin": {"patch": 4, "dim": 16, "depths": [2], "heads": [2], "window": 2},
}
QUALITY = torch.tensor([0.1, 0.6, 0.9])


class Convolutions(Backbone):
    """Residual networks in small: convolutions with BatchNorm in blocks that can be recomputed."""

    def __init__(self, checkpointing: bool) -> None:
        super().__init__(InputSpec(32, 32), 16)
        blocks = [nn.Sequential(nn.Conv2d(n, 8, 3, 2), nn.BatchNorm2d(8), nn.PReLU(8)) for n in (3, 8)]
        self.blocks, self.fc = Blocks(*blocks, checkpointing=checkpointing), nn.Linear(8, 16)

    def features(self, image: Tensor) -> Features:
        return Features(self.fc(self.blocks(image).mean(dim=(2, 3))))


def base(family: str, checkpointing: bool = False) -> Backbone:
    torch.manual_seed(0)
    if family == "Convolutions":
        return Convolutions(checkpointing)
    common = {"feat_dim": 16, "input_spec": {"height": 32, "width": 32}, "checkpointing": checkpointing}
    return BACKBONES.build(family, {**FAMILIES[family], **common})


def adapted(family: str, checkpointing: bool = False, gate: str = "learned", **options: Any) -> AdaptedBackbone:
    """A network whose experts have learned something."""
    network = base(family, checkpointing)
    weighing = GATES.build(gate, {})
    weighing.calibrate([0.1, 0.2, 0.8, 0.9], ScorerCard(name="test", low=0, high=1))
    kinds = ["linear", "conv"] if family == "Convolutions" else ["linear"]
    dual = ADAPTERS.build("DualLoRA", {"rank": 2, "kinds": kinds, "initial": "trunc_normal", **options})
    return AdaptedBackbone(network, dual, weighing)


def images(count: int = 3) -> Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1


def learned(network: AdaptedBackbone, call: Callable[..., Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Embeddings, and gradients of two forward passes before one backward pass."""
    network.zero_grad()
    torch.manual_seed(3)
    first, second = call(images(), QUALITY), call(images(), QUALITY.flip(0))
    (first.square().sum() + 2 * second.square().sum()).backward()
    return first.detach(), [p.grad.clone() for p in network.parameters() if p.grad is not None]


class Compiler:
    """`torch.compile` that counts its graphs and refuses to leave one."""

    def __init__(self) -> None:
        torch._dynamo.reset()  # type: ignore[no-untyped-call]
        self.graphs = 0

    def __call__(self, program: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return torch.compile(program, backend=self.count, fullgraph=True, dynamic=False)

    def count(self, graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        self.graphs += 1
        compiled: Callable[..., Any] = lookup_backend("aot_eager")(graph, inputs)
        return compiled


@pytest.mark.parametrize(
    ("family", "checkpointing"),
    [("Convolutions", True), *(pytest.param(*one, marks=pytest.mark.slow) for one in (("ViT", True), ("Swin", False)))],
)
def test_one_graph_trains_as_the_network_does(family: str, checkpointing: bool) -> None:
    network = adapted(family, checkpointing, dropout_on="output", crossing=0.3).train()
    plain = learned(network, network)
    compiler = Compiler()
    torch.testing.assert_close(learned(network, compiler(network)), plain, rtol=1e-4, atol=1e-6)
    assert compiler.graphs == 1


@pytest.mark.parametrize("adapter", ["LoRA", "DualLoRA", "SilentExpert"])
def test_one_graph_through_the_replica_that_trains(adapter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec: Spec = {adapter: {"rank": 2, "kinds": ["linear", "conv"], "dropout": 0.0}}
    built = build(ADAPTERS, spec)
    weighing = GATES.build("learned", {}) if built.needs_gate else None
    if weighing is not None:
        weighing.calibrate([0.1, 0.2, 0.8, 0.9], ScorerCard(name="test", low=0, high=1))
    network = AdaptedBackbone(base("Convolutions"), built, weighing).train()
    plain = learned(network, network)
    compiler = Compiler()
    monkeypatch.setattr(compilation, "OPTIONS", {"default": {"backend": compiler.count}})
    torch.testing.assert_close(learned(network, replicate(network, compile="default")), plain, rtol=1e-4, atol=1e-6)
    assert compiler.graphs == 1


def test_one_graph_embeds_in_both_spaces() -> None:
    network, compiler = adapted("ViT", experts="low", joined=0.5).eval(), Compiler()
    program = compiler(network)
    for quality in (QUALITY, QUALITY.flip(0)):  # the gate is an input of the graph, not a constant in it
        torch.testing.assert_close(program(images(), quality), network(images(), quality), rtol=1e-5, atol=1e-6)
    assert compiler.graphs == 1


@pytest.mark.parametrize("checkpointing", [False, True])
def test_passes_in_threads_have_their_own_gates(checkpointing: bool) -> None:
    """Each thread is in the middle of the network while the other one is, forward and, recomputing, backward."""
    network = adapted("ViT", checkpointing, dropout=0.0).train()
    network.requires_grad_(False)

    def gradient(number: int) -> Tensor:
        picture = images().requires_grad_()
        embedding = network(picture, QUALITY if number else QUALITY.flip(0))
        return torch.autograd.grad(embedding.square().sum(), picture)[0]

    alone = [gradient(number) for number in (0, 1)]
    assert not torch.equal(alone[0], alone[1])
    meeting = threading.Barrier(2, timeout=60)

    def meet(*_: object) -> None:
        meeting.wait()

    network.network.get_submodule("blocks.0.mlp").register_forward_pre_hook(meet)
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(gradient, (0, 1)))
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("gate", ["sigmoid", "learned"])
def test_recomputing_in_another_thread_finds_the_gate_of_its_own_pass(gate: str) -> None:
    gradients = []
    for checkpointing in (False, True):
        network = adapted("ViT", checkpointing, gate, dropout=0.0).train()
        torch.manual_seed(3)
        loss = network(images(), QUALITY).square().sum()

        def backward(loss: Tensor = loss) -> None:
            with gate_of_forward(1 - QUALITY):  # of a pass that runs there meanwhile
                loss.backward()

        thread = threading.Thread(target=backward)
        thread.start()
        thread.join()
        gradients.append([p.grad for p in network.parameters() if p.requires_grad])
    assert all(gradient is not None for gradient in gradients[0])
    torch.testing.assert_close(gradients[1], gradients[0])


def test_copies_and_pickles_carry_no_gate() -> None:
    network = adapted("ViT").eval()
    with gate_of_forward(QUALITY):
        copies = [copy.deepcopy(network), pickle.loads(pickle.dumps(network))]
    for other in copies:
        assert other.state_dict().keys() == network.state_dict().keys()
        assert torch.equal(other(images(), QUALITY), network(images(), QUALITY))
        with pytest.raises(DataError, match="ran without a gate"):
            other.network(images())


def test_the_base_is_asked_without_updates_and_needs_no_gate() -> None:
    network, plain = adapted("Convolutions").train(), base("Convolutions").eval()
    expected = plain(images())
    assert torch.equal(network.base_embedding(images()), expected)
    with gate_of_forward(QUALITY):
        assert torch.equal(network.base_embedding(images()), expected)
    assert network.training
    assert not torch.equal(network.eval()(images(), QUALITY), expected)
    with without_updates():  # the innermost pass counts
        assert not torch.equal(network(images(), QUALITY), expected)


def test_a_part_of_the_network_without_a_gate_is_refused() -> None:
    network = adapted("ViT").eval()
    with pytest.raises(DataError, match="ran without a gate: call the adapted backbone itself"):
        network.network(images())
    network(images(), QUALITY)
    with pytest.raises(DataError, match="ran without a gate"):  # nothing of the last pass is left
        network.network(images())


@pytest.mark.parametrize("axis", [-1, 1])
def test_weights_of_layers_of_other_packages(axis: int) -> None:
    """`weighted` takes images, windows and tokens alike, also where a graph is made of it."""
    gate = torch.tensor([0.25, 1.0])
    narrow = torch.ones(4, 3, 4) if axis == -1 else torch.ones(4, 4, 3, 3)

    def pass_through(narrow: Tensor, gate: Tensor) -> Tensor:
        with gate_of_forward(gate):
            return weighted(narrow, 2, 2, axis)

    found = pass_through(narrow, gate)
    each = torch.tensor([[0.75, 0.75, 0.25, 0.25]] * 2 + [[0.0, 0.0, 1.0, 1.0]] * 2)
    assert torch.equal(found, (each[:, None] if axis == -1 else each[:, :, None, None]).expand_as(narrow))
    assert torch.equal(Compiler()(pass_through)(narrow, gate), found)


def test_layers_of_one_shape_share_the_weights_of_their_pass() -> None:
    gate = torch.tensor([0.25, 1.0])
    with gate_of_forward(gate):
        first = expert_weights(4, 2, 2, torch.float64)
        assert expert_weights(4, 2, 2, torch.float64) is first
        assert expert_weights(2, 1, 3, torch.float32).tolist() == [[0.75] * 3, [0.0] * 3]
        assert expert_weights(2, 2, 1, torch.float32, tokens=2).tolist() == [[0.75, 0.25]] * 2 + [[0.0, 1.0]] * 2
    assert first.tolist() == [[0.75, 0.75, 0.25, 0.25]] * 2 + [[0.0, 0.0, 1.0, 1.0]] * 2
    with gate_of_forward(1 - gate):
        assert expert_weights(4, 2, 2, torch.float64)[0].tolist() == [0.25, 0.25, 0.75, 0.75]


def test_rows_that_are_not_whole_images_are_refused() -> None:
    with gate_of_forward(torch.zeros(4)), pytest.raises(DataError, match="got 6 rows for 4 images"):
        expert_weights(6, 2, 1, torch.float32)
