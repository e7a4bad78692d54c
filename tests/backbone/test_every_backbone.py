"""What holds for every registered backbone and for every entry of the shipped catalogue."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from facelab.backbone.base import BACKBONES, Backbone
from facelab.backbone.layers import fused_norm
from facelab.catalogue import build, entries, resolve
from facelab.citation import Citation
from facelab.engine import compilation
from facelab.engine.replica import replicate
from facelab.errors import ConfigError
from facelab.inputs import InputSpec

PREPROCESSING = Path(__file__).parents[1] / "golden" / "preprocessing" / "index.json"

SMALL: dict[str, dict[str, Any]] = yaml.safe_load((Path(__file__).parent / "small.yaml").read_text())
BF16_COSINE = 0.98  # of embeddings in bf16 to those in fp32
BF16_ERROR = 2**-6  # of a layer's output relative to its norm; the resolution of bf16 is 2^-8
SMALL_INPUT = {"height": 32, "width": 32}
CATALOGUE = entries(BACKBONES)
OURS = [name for name in BACKBONES.names() if BACKBONES.get(name).__module__.startswith("facelab.")]


def small(name: str, **options: Any) -> Backbone:
    torch.manual_seed(0)
    return BACKBONES.build(name, {"input_spec": SMALL_INPUT, "feat_dim": 16, **SMALL.get(name, {}), **options})


def small_entry(entry: str) -> Backbone:
    """A catalogue entry with its own options, but narrow, shallow and for small images."""
    torch.manual_seed(0)
    inline = {**SMALL.get(CATALOGUE[entry][0], {}), "input_spec": SMALL_INPUT}
    return build(BACKBONES, {entry: inline}, feat_dim=16)


def images(network: Backbone, batch: int = 4) -> torch.Tensor:
    return torch.rand(batch, 3, *network.input_spec.size, generator=torch.Generator().manual_seed(1)) * 2 - 1


def check_forward_and_backward(network: Backbone) -> None:
    embedding = network.train()(images(network))
    assert embedding.shape == (4, 16)
    (embedding * torch.linspace(-1, 1, 16)).square().sum().backward()
    without = [name for name, p in network.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
    assert all(bool(p.grad.isfinite().all()) for p in network.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", BACKBONES.names())
def test_every_trainable_parameter_gets_a_gradient(name: str) -> None:
    check_forward_and_backward(small(name))


@pytest.mark.cuda
@pytest.mark.parametrize("entry", CATALOGUE)
def test_a_gpu_gives_the_same(entry: str, gpu: torch.device) -> None:
    """In evaluation mode, where no batch is so small that its variance is all rounding; gradients of the input too."""

    def run(device: torch.device, layout: torch.memory_format) -> list[torch.Tensor]:
        network = small_entry(entry).eval().to(device=device, memory_format=layout)  # type: ignore[call-overload]
        image = images(network).to(device).contiguous(memory_format=layout).requires_grad_()
        embedding = network(image)
        (embedding * torch.linspace(-1, 1, 16, device=device)).sum().backward()
        assert image.grad is not None
        return [embedding.detach().cpu(), image.grad.cpu()]

    wanted = run(torch.device("cpu"), torch.contiguous_format)
    for layout in (torch.contiguous_format, torch.channels_last):
        for one, other in zip(run(gpu, layout), wanted, strict=True):
            assert float((one - other).norm()) <= 1e-3 * float(other.norm())


@pytest.mark.parametrize("entry", CATALOGUE)
def test_every_entry_trains(entry: str) -> None:
    check_forward_and_backward(small_entry(entry))


@pytest.mark.parametrize("entry", CATALOGUE)
def test_every_entry_builds_as_it_is_shipped(entry: str) -> None:
    with torch.device("meta"):
        network = build(BACKBONES, entry)
        features = network.eval().features(torch.zeros(2, 3, *network.input_spec.size))
    assert features.embedding.shape == (2, 512)


@pytest.mark.slow
@pytest.mark.parametrize("rows", [56, 60])
@pytest.mark.parametrize("entry", CATALOGUE)
def test_every_entry_takes_the_upper_part_of_faces(entry: str, rows: int) -> None:
    """Of 112 rows; of larger faces as large a part."""
    name, options = resolve(BACKBONES, entry)
    with torch.device("meta"):
        whole = BACKBONES.build(name, options).input_spec
        height = rows * whole.height // 112
        spec = {**options.get("input_spec", {}), "height": height, "width": whole.width, "face_height": whole.height}
        network = BACKBONES.build(name, {**options, "input_spec": spec}).eval()
        assert network(torch.zeros(2, 3, height, whole.width)).shape == (2, 512)


@pytest.mark.parametrize("name", BACKBONES.names())
def test_features_come_with_the_same_embedding(name: str) -> None:
    network = small(name).eval()
    with torch.no_grad():
        features, embedding = network.features(images(network)), network(images(network))
    torch.testing.assert_close(features.embedding, embedding)
    sizes = [tuple(stage.shape[2:]) for stage in features.maps]
    assert sizes == sorted(sizes, reverse=True)
    assert len(sizes) >= 4 or features.tokens is not None


@pytest.mark.parametrize("name", BACKBONES.names())
def test_bf16_is_close_to_fp32(name: str) -> None:
    network = small(name).to(memory_format=torch.channels_last).train()
    x = images(network, batch=8)
    with torch.autocast("cpu", torch.bfloat16):
        network(x).float().square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in network.parameters() if p.requires_grad)
    with torch.no_grad():
        exact = network.eval()(x)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = network(x).float()
    assert torch.cosine_similarity(rounded.flatten(), exact.flatten(), dim=0) > BF16_COSINE


@pytest.mark.parametrize("name", BACKBONES.names())
def test_no_layer_is_less_exact_than_bf16_in_training(name: str) -> None:
    # Layer by layer, as errors add up over the depth: after 50 layers in training mode, whose BatchNorm brings small
    # differences between images back to unit variance, even fp32 embeddings follow pixels moved by 2^-9 to 0.5.
    network = small(name).to(memory_format=torch.channels_last).train()
    seen: list[tuple[str, nn.Module, tuple[Any, ...]]] = []
    for path, module in network.named_modules():
        if path.count(".") == 2:
            module.register_forward_hook(lambda module, given, _, path=path: seen.append((path, module, given)))
    network(images(network, batch=8))
    calls, seen = seen, []
    assert calls
    for path, module, given in calls:
        exact, rounded = (_seeded(module, given, bf16=bf16) for bf16 in (False, True))
        assert (rounded - exact).norm() <= BF16_ERROR * exact.norm(), path


@torch.no_grad()
def _seeded(module: nn.Module, given: tuple[Any, ...], *, bf16: bool) -> torch.Tensor:
    """Output, concatenated if there are several, with the same branches dropped each time."""
    torch.manual_seed(5)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        output = module(*given)
    outputs = [output] if isinstance(output, torch.Tensor) else output
    return torch.cat([part.float().flatten() for part in outputs])


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKBONES.names())
def test_training_is_one_compiled_graph(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By torch's tracing alone, in fp32 without dropout."""
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(compilation, "OPTIONS", {"default": {"backend": backend}})
    found = []
    for how in ("off", "default"):
        network = small(name).train()
        for module in network.modules():
            if isinstance(module, nn.Dropout | nn.modules.batchnorm._BatchNorm):
                module.eval()
        torch.manual_seed(0)
        embedding = replicate(network, compile=how)(images(network))  # type: ignore[arg-type]
        embedding.square().sum().backward()
        found.append([embedding.detach(), *(one.grad for one in network.parameters() if one.grad is not None)])
    assert len(graphs) == 1
    whole = float(torch.stack([one.norm() for one in found[0]]).norm())
    for one, other in zip(*found, strict=True):
        assert float((one - other).norm()) <= 1e-3 * float(one.norm()) + 1e-4 * whole


@pytest.mark.parametrize("name", BACKBONES.names())
def test_fused_norms_are_taken_or_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused_norm, "require_compiler", lambda *_: None)
    network = small(name)
    if name in ("IResNet", "MobileFaceNet"):
        fused_norm.fuse_norms(network, torch.device("cuda"))
        assert any(getattr(module, "fused_norm", False) for module in network.modules())
        return
    with pytest.raises(
        ConfigError, match=r"for the BatchNorms of IResNet and MobileFaceNet, and this network \(.*none"
    ):
        fused_norm.fuse_norms(network, torch.device("cuda"))


@pytest.mark.parametrize("name", BACKBONES.names())
def test_bf16_weights_work(name: str) -> None:
    network = small(name).bfloat16().train()
    embedding = network(images(network).bfloat16())
    embedding.float().square().sum().backward()
    assert embedding.dtype == torch.bfloat16


@pytest.mark.parametrize("name", BACKBONES.names())
def test_float64_stays_float64(name: str) -> None:
    network = small(name).double().train()
    assert network(images(network).double()).dtype == torch.float64


@pytest.mark.parametrize("name", BACKBONES.names())
def test_state_dict_round_trip(name: str) -> None:
    first, second = small(name).eval(), small(name)
    with torch.no_grad():
        first.train()(images(first))  # moves the running statistics away from those of a new network
    second.load_state_dict(first.state_dict())
    x = images(first)
    assert torch.equal(first.eval()(x), second.eval()(x))


@pytest.mark.parametrize("name", BACKBONES.names())
@pytest.mark.parametrize(("height", "width"), [(60, 112), (56, 112), (112, 96), (112, 112), (120, 120), (224, 224)])
def test_sizes_follow_from_the_input(name: str, height: int, width: int) -> None:
    with torch.device("meta"):
        network = small(name, input_spec={"height": height, "width": width}, feat_dim=24).eval()
        assert network.input_spec.size == (height, width)
        assert network(torch.zeros(2, 3, height, width)).shape == (2, 24)


@pytest.mark.parametrize("name", BACKBONES.names())
def test_an_image_too_small_is_refused_with_the_reason(name: str) -> None:
    if name == "Timm":
        pytest.skip("timm's networks set no lower limit")
    with pytest.raises(ConfigError, match=r"needs images of at least|do not fit into images of 3x112"):
        small(name, input_spec={"height": 3, "width": 112})


@pytest.mark.parametrize("name", BACKBONES.names())
def test_memory_format_does_not_change_the_embedding(name: str) -> None:
    network = small(name).eval()
    x = images(network)
    with torch.no_grad():
        expected = network(x)
        actual = network.to(memory_format=torch.channels_last)(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", BACKBONES.names())
def test_the_input_is_left_alone(name: str) -> None:
    network = small(name).train()
    x = images(network)
    network(x)
    assert torch.equal(x, images(network))


@pytest.mark.parametrize("name", OURS)
def test_network_of_ours_has_a_citation(name: str) -> None:
    assert isinstance(BACKBONES.get(name).citation, Citation)


@pytest.mark.parametrize("name", BACKBONES.names())
def test_an_embedding_needs_a_dimension(name: str) -> None:
    with pytest.raises(ConfigError, match="feat_dim is 0, but must lie in"):
        small(name, feat_dim=0)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "ResNeSt",
            {"radix": 3},
            "ResNeSt radix is 3, but 8 channels are no multiple of that; 1, 2, 4 and 8 always fit",
        ),
        ("Swin", {"dim": 0}, "width of a token, dim, is 0, but must lie in"),
        ("ViT", {"dim": -1}, "width of a token, dim, is -1, but must lie in"),
        ("Swin", {"depths": [2, 0]}, r"Swin depths is 0, but must lie in \[1, 1000\]"),
        ("Swin", {"heads": [0, 2]}, "attention of width 16 cannot be cut into 0 heads"),
        ("ViT", {"heads": -1}, "attention of width 16 cannot be cut into -1 heads"),
        ("Swin", {"mlp_ratio": -1}, r"mlp_ratio is -1.0, but must lie in \(0, 64\]"),
        ("ViT", {"mlp_ratio": 0}, r"mlp_ratio is 0.0, but must lie in \(0, 64\]"),
        ("ViT", {"mlp_ratio": float("nan")}, "option 'mlp_ratio' is nan, but must be a finite number"),
        ("Timm", {"input_spec": {"height": -5}}, r"input_spec height is -5, but must lie in \[1, 1024\]"),
        ("Timm", {"input_spec": {"std": 0}}, r"input_spec std is 0.0, but must lie in \(0, inf\)"),
        ("IResNet", {"input_spec": {"mean": float("nan")}}, "'input_spec.mean' is nan, but must be a finite number"),
    ],
)
def test_sizes_that_cannot_work_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        small(name, **options)


@pytest.mark.parametrize(
    ("entry", "project"),
    [
        ("MobileFaceNet", "facexzoo"),
        ("ResNet152_ir_se", "facexzoo"),
        ("r50", "arcface_torch"),
        ("AdaFace-IR101", "adaface"),
        ("MagFace-iResNet100", "magface"),
    ],
)
def test_entries_have_the_input_of_their_project(entry: str, project: str) -> None:
    option = json.loads(PREPROCESSING.read_text())["preprocessing"]["options"][project]
    with torch.device("meta"):
        spec = build(BACKBONES, entry).input_spec
    low, high = option["range"]
    assert spec.colour == option["order"]
    assert ((0 - spec.mean) / spec.std, (255 - spec.mean) / spec.std) == pytest.approx((low, high), abs=1e-9)


def test_changing_the_size_of_an_entry_keeps_its_colour_and_range() -> None:
    with torch.device("meta"):
        network = build(BACKBONES, {"MobileFaceNet": {"input_spec": {"height": 64, "width": 64}}})
    assert network.input_spec == InputSpec(64, 64, colour="BGR", mean=127.5, std=128.0)
