"""Compiled networks: one graph a method, equal outputs and gradients, names as they were, refusals, two processes."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.backends.registry import lookup_backend

from facelab import distributed
from facelab.backbone.base import Backbone, Features
from facelab.compiler import require_compiler
from facelab.engine import compilation
from facelab.engine.replica import replicate
from facelab.errors import ConfigError
from facelab.inputs import InputSpec
from facelab.run.assembly import assemble
from facelab.run.network import replicate_of
from facelab.run.run import RunResult
from facelab.run.settings import load_config

Run = Callable[..., RunResult]
TINY = str(Path(__file__).parents[2] / "tiny_run.yaml")


class Small(Backbone):
    """A network with BatchNorm and one map, which `features` alone shows."""

    def __init__(self) -> None:
        super().__init__(InputSpec(height=4, width=4), 5)
        self.stem = nn.Conv2d(3, 4, 3, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.output = nn.Linear(16, 5)

    def features(self, image: Tensor) -> Features:
        maps = self.norm(self.stem(image)).tanh()
        return Features(self.output(maps.flatten(1)), maps=(maps,))


class Looking(Small):
    """A network that asks the processor for a number, which ends a graph."""

    def features(self, image: Tensor) -> Features:
        return super().features(image * 2 if image.sum().item() > 0 else image)


class Choosing(Small):
    """A network whose shapes follow from numbers."""

    def features(self, image: Tensor) -> Features:
        chosen = image[image.mean(dim=(1, 2, 3)) > 0]
        return super().features(torch.cat([image[1:], chosen[:1]]) if len(chosen) else image)


def graphs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Compile by torch's tracing alone, without code of its own, and collect the size of each graph."""
    torch._dynamo.reset()  # type: ignore[no-untyped-call]
    sizes: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        sizes.append(len(graph.graph.nodes))
        made: Callable[..., Any] = lookup_backend("aot_eager")(graph, inputs)
        return made

    monkeypatch.setattr(compilation, "OPTIONS", {"default": {"backend": backend}})
    return sizes


def images() -> Tensor:
    """This process's part of the global batch."""
    whole = torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    start, stop = distributed.class_range(6, distributed.rank(), distributed.world_size())
    return whole[start:stop]


def trained(compile: compilation.Compile, network: type[Small] = Small) -> tuple[Small, list[Tensor]]:
    """A network after two passes, and what they gave: embeddings, maps, gradients and statistics."""
    torch.manual_seed(0)
    net = network()
    net.norm.eval()  # of a part of the batch it would differ from that of the whole
    replica = replicate(net, compile=compile)
    embedding, features = replica(images()), replica.features(images().flip(3))
    (embedding.square().mean() + features.maps[0].exp().mean() + features.embedding.mean()).backward()
    found = [embedding.detach(), features.maps[0].detach(), features.embedding.detach()]
    return net, [*found, *(one.grad for one in net.parameters() if one.grad is not None)]


def test_each_method_is_one_graph_that_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    net, plain = trained("off")
    found = graphs(monkeypatch)
    compiled, same = trained("default")
    torch.testing.assert_close(same, plain)
    assert len(found) == 2
    assert list(compiled.state_dict()) == list(net.state_dict())
    assert [name for name, _ in compiled.named_parameters()] == [name for name, _ in net.named_parameters()]


@pytest.mark.parametrize("network", [Looking, Choosing])
def test_what_is_no_whole_graph_is_refused(network: type[Small], monkeypatch: pytest.MonkeyPatch) -> None:
    graphs(monkeypatch)
    said = rf"^training.compile=default cannot make one graph of {network.__name__}: .*compile=off"
    with pytest.raises(ConfigError, match=said):
        trained("default", network)


def test_the_network_alone_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not what a loss learns beside it, such as a map to a teacher's channels."""
    asked: list[str] = []
    monkeypatch.setattr("facelab.run.network.replicate", lambda net, gradients, compile="off": asked.append(compile))
    net = Small()
    replicate = replicate_of(load_config(TINY, ["training.compile=default"]), net)
    replicate(net)
    replicate(nn.Linear(2, 2))
    assert asked == ["default", "off"]


def test_each_run_of_a_process_has_room_for_its_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A study trains one network after another; torch keeps so many programs of a function, and refuses another."""
    found = graphs(monkeypatch)
    monkeypatch.setattr(torch._dynamo.config, "recompile_limit", 2)
    for layers in range(3):
        net = Small()
        net.output = nn.Sequential(*(nn.Linear(16, 16) for _ in range(layers)), nn.Linear(16, 5))
        with torch.no_grad():
            replicate(net, compile="default")(images())
    assert len(found) == 3


def test_other_methods_are_called_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    found = graphs(monkeypatch)
    assert compilation.method_caller("default")(Small(), "state_dict").keys() == Small().state_dict().keys()
    assert not found


def test_it_is_refused_where_a_part_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setenv("CXX", "my-g++")
    with pytest.raises(ConfigError, match=r"compile=default needs a C\+\+ compiler, and there is no my-g\+\+; install"):
        assemble(load_config(TINY, ["training.compile=default"]))
    monkeypatch.delenv("CXX")
    with pytest.raises(ConfigError, match=r"no g\+\+; install one, name it in the variable CXX, or set compile=off"):
        require_compiler("compile=max", torch.device("cpu"), "compile=off")
    with pytest.raises(ConfigError, match="compile: max cannot see the functions that amp: apex changes"):
        load_config(TINY, ["training.compile=max", "training.amp=apex"])


def test_yaml_reads_off_as_false() -> None:
    assert load_config(TINY, ["training.compile=off"]).training.compile == "off"
    with pytest.raises(ConfigError, match=r"training\.compile' is 'on'"):
        load_config(TINY, ["training.compile='on'"])


@pytest.mark.slow
def test_two_processes_have_the_gradients_of_one() -> None:
    """By the compiler itself, on each process."""
    torch._dynamo.reset()  # type: ignore[no-untyped-call]
    _, plain = trained("off")
    for _, found in distributed.run_processes(trained, 2, "default"):
        torch.testing.assert_close(found[3:], plain[3:], rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_a_run_that_goes_on_ends_as_one_that_was_not_stopped(
    tmp_path: Path, run_tiny: Run, cut_back: Callable[[Path, Path, int], Path]
) -> None:
    words = ["training.compile=default", "backbone={MobileFaceNet: {width: 0.125, feat_dim: 16}}", "training.epochs=2"]
    run_tiny(tmp_path / "whole", *words, "checkpoint.keep_every_epochs=1")
    stopped = cut_back(tmp_path / "whole", tmp_path / "resumed", 4)
    run_tiny(stopped, *words, "checkpoint.keep_every_epochs=1", resume=True)
    ends = [tmp_path / name / "checkpoints" / "step-00000008" / "model.safetensors" for name in ("whole", "resumed")]
    assert ends[0].read_bytes() == ends[1].read_bytes()
    assert b"_orig_mod" not in ends[0].read_bytes()


@pytest.mark.cuda
@pytest.mark.parametrize("how", ["default", "max"])
def test_a_gpu_compiles_what_it_computes(how: compilation.Compile) -> None:
    torch._dynamo.reset()  # type: ignore[no-untyped-call]
    found = []
    for compile in ("off", how):
        torch.manual_seed(0)
        net = Small().cuda()
        embedding = replicate(net, compile=compile)(images().cuda())
        embedding.square().mean().backward()
        found.append([embedding.detach(), *(one.grad for one in net.parameters())])
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)
