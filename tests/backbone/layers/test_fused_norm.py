"""The fused BatchNorm has the values, gradients and running statistics of PyTorch's, and is refused where it cannot be.

Its kernels run on a GPU, or in Triton's interpreter (the package ``triton``), which computes the same on a processor.
"""

import copy
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from facelab import distributed
from facelab.adapter.base import ADAPTERS, AdaptedBackbone
from facelab.backbone.base import BACKBONES, Backbone
from facelab.backbone.layers.activation import PReLU
from facelab.backbone.layers.fused_norm import NormBlock, fuse_norms, fused_norm
from facelab.distributed import run_processes
from facelab.engine.replica import replicate
from facelab.errors import ConfigError
from facelab.run.assembly import assemble
from facelab.run.settings import load_config

TINY = "tests/tiny_run.yaml"
SMALL: dict[str, dict[str, Any]] = {
    "IResNet": {"depth": 18, "width": 0.125},
    "MobileFaceNet": {"width": 0.125, "depths": (1, 1, 1, 1)},
}
# Shape, slope and residual: a number of channels that is no power of two, more than one program takes, several turns of
# each program with a rest at the end, few values.
CASES = [
    ((3, 24, 9, 7), True, True),
    ((2, 136, 5, 3), False, False),
    ((5, 16, 14, 13), True, False),
    ((4, 8, 2, 1), False, True),
]


def block_of(channels: int, device: torch.device, *, slope: bool) -> tuple[NormBlock, nn.BatchNorm2d, PReLU | None]:
    """A fused block, and layers whose weights are not those of the start."""
    generator = torch.Generator().manual_seed(1)
    norm, act = nn.BatchNorm2d(channels, eps=1e-4, momentum=0.3), PReLU(channels)
    for tensor in (norm.weight, norm.bias, act.weight, norm.running_mean, norm.running_var):
        assert tensor is not None
        tensor.data.copy_(torch.rand(channels, generator=generator) + 0.1)
    act.weight.data[0] = -0.5  # not the steeper side alone is possible
    block = NormBlock()
    block.fused_norm = True
    return block, norm.to(device), act.to(device) if slope else None


def step(
    block: NormBlock, norm: nn.Module, act: nn.Module | None, x: Tensor, residual: Tensor | None, gradient: Tensor
) -> dict[str, Tensor]:
    """Output, gradients and running statistics, in float64 on the CPU."""
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    added = None if residual is None else residual.detach().clone().requires_grad_()
    block.normed(x, norm, act, added).backward(gradient)
    with torch.no_grad():
        output = block.normed(x, norm, act, added)  # once more, as the statistics move each time
    found = {"output": output, "x": x.grad, "residual": None if added is None else added.grad}
    found |= {f"norm.{name}": one.grad for name, one in norm.named_parameters()}
    found |= dict(norm.named_buffers()) | ({} if act is None else {"slope": next(act.parameters()).grad})
    return {name: one.detach().cpu().double() for name, one in found.items() if one is not None}


def drawn(shape: tuple[int, ...], seed: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    # Means far from 0, as the variance must not be the difference of two large numbers.
    values = values * 0.5 + torch.linspace(-30, 30, shape[1]).view(1, -1, 1, 1) if seed == 2 else values
    return values.to(device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)


def half_ulp(exact: Tensor, dtype: torch.dtype) -> Tensor:
    """How far from a number the nearest one of a format may be."""
    return 2.0 ** exact.abs().clamp_min(torch.finfo(dtype).tiny).log2().floor() * torch.finfo(dtype).eps / 2


def rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt())


@pytest.mark.parametrize(("shape", "slope", "residual"), CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("reference", [torch.float64, torch.float32])
def test_it_is_pytorchs_but_for_one_rounding(
    shape: tuple[int, ...], slope: bool, residual: bool, dtype: torch.dtype, reference: torch.dtype, place: torch.device
) -> None:
    """From the same numbers, of half precision or not: what is stored in ``dtype`` lies no further from PyTorch's than
    the nearest number of that format may, and 1e-4 of the tensor's RMS; sums and statistics have that alone.
    """
    block, norm, act = block_of(shape[1], place, slope=slope)
    exact, act_of_exact = (copy.deepcopy(one).cpu().to(reference) if one else None for one in (norm, act))
    assert exact is not None
    x, gradient = drawn(shape, 2, dtype, place), drawn(shape, 3, dtype, place)
    added = drawn(shape, 4, dtype, place) if residual else None
    found = step(block, norm, act, x, added, gradient)
    given = [None if one is None else one.cpu().to(reference) for one in (x, added, gradient)]
    wanted = step(NormBlock(), exact, act_of_exact, *given)  # type: ignore[arg-type]
    assert found.keys() == wanted.keys()
    for name, one in wanted.items():
        # Gradients of x cancel where a channel has few values: what is left is rounding.
        scale = max(rms(one), 1e-2 * rms(gradient.double()) if name == "x" else 1e-3)
        is_stored = name in ("output", "x")
        rounding = half_ulp(one, dtype) if is_stored else torch.zeros(())
        assert bool(((found[name] - one).abs() <= rounding + 1e-4 * scale).all()), name
        # All in all, it is the reference rounded: at the middle between two numbers a few fall to the other side.
        rounded = one.to(dtype).double() if is_stored else one
        assert rms(found[name] - rounded) <= 1e-3 * scale, name


def test_results_repeat_in_bits(place: torch.device) -> None:
    shape = CASES[2][0]
    x, gradient = drawn(shape, 2, torch.bfloat16, place), drawn(shape, 3, torch.bfloat16, place)
    runs = [step(*block_of(shape[1], place, slope=True), x, None, gradient) for _ in range(2)]
    assert all(torch.equal(one, runs[1][name]) for name, one in runs[0].items())


def test_the_operation_keeps_the_rules_of_torch(place: torch.device) -> None:
    """Its schema, what it says of its results without computing them, and its gradient under a compiler."""
    x = drawn((3, 8, 3, 3), 0, torch.float32, place).requires_grad_()
    weight, bias, slope = (torch.rand(8, device=place, requires_grad=True) for _ in range(3))
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(fused_norm, (x, weight, bias, slope, x.detach(), 1e-5), test_utils=checks)
    other = torch.randn(4, 8, 1, 1, device=place)  # a layout that has two names
    torch.library.opcheck(fused_norm, (other, weight, bias, None, None, 1e-5), test_utils=checks)
    other = torch.randn(3, 8, 2, 2, device=place)  # in another layout
    torch.library.opcheck(fused_norm, (other, weight, bias, None, None, 1e-5), test_utils=checks)


@pytest.mark.parametrize("residual", [False, True])
def test_a_compiler_takes_it_as_it_is(residual: bool, place: torch.device) -> None:
    """One graph forward and one backward, in which running statistics move too."""
    x, gradient = (drawn((3, 8, 4, 4), seed, torch.float32, place) for seed in (2, 3))
    added = drawn((3, 8, 4, 4), 4, torch.float32, place) if residual else None
    results = []
    for compiled in (False, True):
        block, norm, act = block_of(8, place, slope=True)
        if compiled:
            block.normed = torch.compile(block.normed, backend="aot_eager", fullgraph=True)  # type: ignore[method-assign]
        results.append(step(block, norm, act, x, added, gradient))
    for name, one in results[0].items():
        torch.testing.assert_close(results[1][name], one, msg=name)


@pytest.mark.cuda
def test_a_cuda_graph_repeats_it(gpu: torch.device) -> None:
    if gpu.type == "cpu":
        pytest.skip("graphs are CUDA's")
    block, norm, act = block_of(64, gpu, slope=True)
    x, gradient = (drawn((4, 64, 14, 14), seed, torch.bfloat16, gpu) for seed in (2, 3))
    x.requires_grad_()

    def both() -> tuple[Tensor, Tensor]:
        output = block.normed(x, norm, act)
        return output, torch.autograd.grad(output, x, gradient)[0]

    wanted = [one.clone() for one in both()]
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        both()
    torch.cuda.current_stream().wait_stream(stream)
    graph, counted = torch.cuda.CUDAGraph(), int(norm.num_batches_tracked or 0)
    with torch.cuda.graph(graph):
        held = both()
    for _ in range(3):
        graph.replay()
    assert all(torch.equal(one, other) for one, other in zip(held, wanted, strict=True))
    assert int(norm.num_batches_tracked or 0) == counted + 3


def of_a_process(fused: bool) -> list[Tensor]:
    """Gradients of a replicated network, each process with images of its own."""
    network = network_of("MobileFaceNet").to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for module in network.modules():
        if isinstance(module, NormBlock):
            module.fused_norm = fused
    replica = replicate(network.train())
    image = drawn((8, 3, 16, 16), 7 + distributed.rank(), torch.float32, torch.device("cpu"))
    (replica(image) * torch.linspace(-1, 1, 8)).square().sum().backward()
    return [one.grad for one in network.parameters() if one.grad is not None]


def of_both(_: int) -> list[list[Tensor]]:
    return [of_a_process(fused) for fused in (False, True)]


@pytest.mark.extras
def test_two_processes_average_its_gradients() -> None:
    pytest.importorskip("triton")
    for plain, fused in run_processes(of_both, 2, 0):
        whole = float(torch.stack([one.norm() for one in plain]).norm())
        for one, other in zip(fused, plain, strict=True):
            assert float((one - other).norm()) <= 1e-3 * float(other.norm()) + 1e-4 * whole


COMPILE = """
import itertools
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from facelab.triton_kernels import batch_norm as kernels

def made(kernel, dtype, capability, constants):
    kinds = dict.fromkeys(("x", "y", "residual", "gradient", "of_x"), "*" + dtype)
    kinds |= dict.fromkeys(("rows", "channels", "splits"), "i32") | {"eps": "fp32"}
    kinds |= dict.fromkeys(constants, "constexpr")
    signature = {name: kinds.get(name, "*fp32") for name in kernel.arg_names}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
    asm = compile(source, target=GPUTarget("cuda", capability, 32)).asm
    stores_half = kernel in (kernels._apply, kernels._input_gradient)
    assert not stores_half or f"cvt.rn.{dtype.replace('fp', 'f')}" in asm["ptx"], "rounds to the nearest"
    return asm["cubin"]

for dtype, capability, columns in itertools.product(("bf16", "fp16"), (80, 90), (64, 128)):
    tile = {"ROWS": kernels.TILE // columns, "COLUMNS": columns}
    merged = {"SPLITS": kernels.MERGED_SPLITS, "COLUMNS": kernels.MERGED_COLUMNS}
    assert made(kernels._moments, dtype, capability, tile) and made(kernels._merge, dtype, capability, merged)
    assert made(kernels._apply, dtype, capability, {"SLOPE": True, "RESIDUAL": True, **tile})
    for kernel in (kernels._slopes, kernels._input_gradient):
        assert made(kernel, dtype, capability, {"SLOPE": True, **tile})
"""


@pytest.mark.extras
def test_the_kernels_compile_for_gpus_without_one(tmp_path: Path) -> None:
    """As Triton compiles them for an A100 and an H100; the interpreter takes more than its compiler."""
    pytest.importorskip("triton")
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def network_of(name: str) -> Backbone:
    torch.manual_seed(0)
    return BACKBONES.build(name, {"input_spec": {"height": 16, "width": 16}, "feat_dim": 8, **SMALL[name]})


def gradients(network: Backbone, image: Tensor) -> dict[str, Tensor]:
    weight = torch.randn(len(image), 8, generator=torch.Generator().manual_seed(5)).to(image.device)
    (network.train()(image) * weight).sum().backward()
    state = {f"state {name}": one.detach().clone() for name, one in network.state_dict().items()}
    return state | {name: one.grad for name, one in network.named_parameters() if one.grad is not None}


@pytest.mark.parametrize("name", SMALL)
def test_networks_train_alike(name: str, place: torch.device) -> None:
    plain = network_of(name).to(device=place, memory_format=torch.channels_last)  # type: ignore[call-overload]
    fused = copy.deepcopy(plain)
    for module in fused.modules():
        if isinstance(module, NormBlock):
            module.fused_norm = True
    image = drawn((8, 3, 16, 16), 0, torch.float32, place)
    wanted, found = gradients(plain, image), gradients(fused, image)
    assert wanted.keys() == found.keys()
    whole = float(torch.stack([one.float().norm() for key, one in wanted.items() if "state" not in key]).norm())
    for key, one in wanted.items():
        # Beside the whole, because gradients of layers in front of a BatchNorm may be nothing but rounding.
        assert float((found[key] - one).float().norm()) <= 1e-3 * float(one.float().norm()) + 1e-4 * whole, key


def calls_of(norm: nn.Module) -> list[int]:
    calls: list[int] = []
    norm.register_forward_hook(lambda *_: calls.append(1))
    return calls


@pytest.mark.parametrize(
    "change",
    [
        lambda norm: norm.eval(),
        lambda norm: norm.double(),
        lambda norm: setattr(norm, "momentum", None),
        lambda norm: norm.register_parameter("weight", None) or setattr(norm, "affine", False),
    ],
)
def test_what_the_kernels_do_not_know_takes_the_plain_path(change: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("facelab.backbone.layers.fused_norm._batch_norm", None)
    block, norm, _ = block_of(4, torch.device("cpu"), slope=False)
    change(norm)
    x = torch.randn(2, 4, 3, 3, dtype=norm.bias.dtype)
    twin = copy.deepcopy(norm)
    assert torch.equal(block.normed(x, norm, nn.ReLU()), twin(x).relu())
    assert torch.equal(block.normed(x, norm), twin(x))


def test_layers_with_hooks_are_called() -> None:
    for hooked in ("norm", "act"):
        block, norm, act = block_of(4, torch.device("cpu"), slope=True)
        calls = calls_of({"norm": norm, "act": act}[hooked])  # type: ignore[arg-type]
        block.normed(torch.randn(2, 4, 3, 3), norm, act)
        assert calls == [1]


def test_the_plain_path_is_the_layers_in_turn() -> None:
    block, norm, act = block_of(4, torch.device("cpu"), slope=True)
    block.fused_norm = False
    twin = copy.deepcopy(norm)
    x, added, calls = torch.randn(2, 4, 3, 3), torch.randn(2, 4, 3, 3), calls_of(norm)
    assert act is not None
    assert torch.equal(block.normed(x, norm, act, added), act(twin(x)) + added)
    assert torch.equal(block.normed(x, nn.Identity(), None, None), x)
    assert calls == [1]


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["training.fused_norm=true", "training.device=cpu"]
    with pytest.raises(ConfigError, match=r"training.fused_norm is for GPUs, but the network is on the CPU; set tr"):
        assemble(load_config(TINY, words))
    with pytest.raises(ConfigError, match="fused_norm reads maps channel by channel: it needs channels_last: true"):
        load_config(TINY, [*words, "training.channels_last=false"])
    gpu = torch.device("cuda")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="training.fused_norm needs Triton, which is not installed"):
        fuse_norms(network_of("IResNet"), gpu)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    monkeypatch.setattr(shutil, "which", lambda name: name)
    with pytest.raises(ConfigError, match=r"and this network \(Linear\) has none of their blocks; set training.fused"):
        fuse_norms(nn.Linear(2, 2), gpu)
    frozen = AdaptedBackbone(network_of("IResNet"), ADAPTERS.build("LoRA", {"rank": 2}), None)
    with pytest.raises(ConfigError, match="that look at the batch, and the adapter keeps all of this network as they"):
        fuse_norms(frozen, gpu)


@pytest.mark.parametrize("name", SMALL)
def test_every_batchnorm_before_a_prelu_is_reached(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("facelab.backbone.layers.fused_norm.require_compiler", lambda *_: None)
    ran: list[tuple[bool, bool]] = []

    def spy(x: Tensor, norm: nn.BatchNorm2d, slope: Tensor | None, residual: Tensor | None) -> Tensor:
        ran.append((slope is not None, residual is not None))
        return x

    monkeypatch.setattr("facelab.backbone.layers.fused_norm._batch_norm", spy)
    network = network_of(name)
    names = list(network.state_dict())
    fuse_norms(network, torch.device("cuda"))
    assert list(copy.deepcopy(network).state_dict()) == names
    network.train()(torch.randn(4, 3, 16, 16))
    assert sum(slope for slope, _ in ran) == sum(isinstance(module, PReLU) for module in network.modules())
    assert any(residual for _, residual in ran)
    ran.clear()
    network.eval()(torch.randn(4, 3, 16, 16))
    assert ran == []
