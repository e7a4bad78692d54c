"""Compiled passes over chunks against those that are written out: uncompiled in float64, compiled on a GPU."""

import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from facelab.catalogue import build
from facelab.errors import ConfigError
from facelab.head import compiled_loss, fused_product
from facelab.head.base import HEADS
from facelab.head.class_precision import ClassPrecision
from facelab.head.classifier import UpdateRule
from facelab.head.compiled_loss import can_be_compiled, check_class_compile
from facelab.head.rows import chunk_optimizer
from facelab.head.rows.full_softmax import FullSoftmax
from facelab.run.assembly import assemble
from facelab.run.settings import load_config

TINY = str(Path(__file__).parents[1] / "tiny_run.yaml")
BATCH, DIM, CLASSES = 8, 16, 23
RULE = UpdateRule("sgd", 0.1, 0.05, 0.9, False, (0.9, 0.999), 1e-8)
PLAIN = {"CosFace": {}, "ArcFace": {}, "Softmax": {"bias": False}, "MagFace": {}}
CHANGED = ("CurricularFace", "SphereFace2")  # that change negatives, and are left as they are


def step(
    head: str, compiled: bool, gradient: str, device: str, dtype: torch.dtype, precision: ClassPrecision = "fp32"
) -> list[Tensor]:
    """Loss, accuracy, and after two updates the rows, beside the gradient of the features."""
    made = build(HEADS, {head: PLAIN.get(head, {})}, num_classes=CLASSES)
    model = FullSoftmax(CLASSES, DIM, made, seed=1, gradient=gradient).to(device, dtype)  # type: ignore[arg-type]
    model.class_precision, model.class_compile = precision, compiled
    optimizer = model.optimizer(RULE) or torch.optim.SGD([model.weight], lr=0.1, momentum=0.9, weight_decay=0.05)
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(2):
        features = torch.randn(BATCH, DIM, generator=generator).to(device, dtype).requires_grad_()
        output = model(features, torch.randint(CLASSES, (BATCH,), generator=generator).to(device))
        output.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        assert features.grad is not None
        found += [output.loss, output.metrics["accuracy"], features.grad]
    return [one.detach().cpu().double() for one in (*found, model.weight)]


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of six classes, the last one of five."""
    monkeypatch.setitem(fused_product.CHUNK, "cpu", 6 * BATCH)
    monkeypatch.setattr(fused_product, "CHUNK_ELSEWHERE", 6 * BATCH)
    monkeypatch.setattr(fused_product, "CHUNK_COMPILED", 6 * BATCH)
    monkeypatch.setattr("facelab.head.classifier.LARGEST_WHOLE", 0)


@pytest.mark.parametrize("gradient", ["whole", "chunks"])
@pytest.mark.parametrize("head", [*PLAIN, *CHANGED])
def test_what_is_compiled_is_what_is_written_out(
    monkeypatch: pytest.MonkeyPatch, small_chunks: None, head: str, gradient: str
) -> None:
    called: list[str] = []
    for module in (compiled_loss, chunk_optimizer):
        monkeypatch.setattr(module, "compiled", lambda function: called.append(function.__name__) or function)
    plain, found = (step(head, one, gradient, "cpu", torch.float64) for one in (False, True))
    torch.testing.assert_close(found, plain, rtol=1e-12, atol=1e-12)
    updated = {"_move"} if gradient == "chunks" else set()
    assert set(called) == updated | (set() if head in CHANGED else {"_number", "_slopes"})


def test_a_bias_and_centres_are_left_as_they_are() -> None:
    for head, options in (("UniFace", {}), ("CosFace", {"rows_per_class": 2})):
        made = build(HEADS, head, num_classes=CLASSES)
        model = FullSoftmax(CLASSES, DIM, made, **options)
        candidates = model.candidates(torch.zeros(1, DIM), torch.zeros(1, dtype=torch.int64))
        assert not can_be_compiled(made, candidates)


def test_it_is_refused_where_it_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"training.class_compile is for GPUs, but the class rows are on the CPU"):
        assemble(load_config(TINY, ("training.class_compile=true", "training.device=cpu")))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="needs Triton, which is not installed"):
        check_class_compile(torch.device("cuda"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(ConfigError, match="needs a C compiler, and there is no cc or gcc or clang; install one"):
        check_class_compile(torch.device("cuda"))


@pytest.mark.cuda
@pytest.mark.parametrize("gradient", ["whole", "chunks"])
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("tf32", 5e-3), ("bf16", 2e-2)])
def test_a_gpu_gives_the_same(
    small_chunks: None, precision: ClassPrecision, tolerance: float, compiled: bool, gradient: str, gpu: torch.device
) -> None:
    found = step("CosFace", compiled, gradient, gpu.type, torch.float32, precision)
    wanted = step("CosFace", False, gradient, "cpu", torch.float64)
    for one, other in zip(found, wanted, strict=True):
        assert float((one - other).norm()) <= tolerance * float(other.norm().clamp_min(0.1))
