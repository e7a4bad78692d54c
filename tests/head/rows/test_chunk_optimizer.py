"""Rows whose gradient is made chunk by chunk against those of a whole gradient: the same bits."""

from typing import Any

import pytest
import torch
from torch.optim import SGD, AdamW, Optimizer

from facelab.catalogue import build
from facelab.engine.optimizers import guarded_step
from facelab.head import fused_product
from facelab.head.base import HEADS
from facelab.head.classifier import LARGEST_WHOLE, UpdateRule
from facelab.head.rows.chunk_optimizer import ChunkOptimizer
from facelab.head.rows.full_softmax import FullSoftmax

BATCH, DIM, CLASSES = 8, 16, 61  # so many numbers that every chunk ends where a vector of the processor does


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks for any size, of eight rows."""
    monkeypatch.setitem(fused_product.CHUNK, "cpu", 8 * BATCH)
    monkeypatch.setattr("facelab.head.classifier.LARGEST_WHOLE", 0)
    assert LARGEST_WHOLE > 0


def rule(name: str, nesterov: bool = False, momentum: float = 0.9) -> UpdateRule:
    return UpdateRule(name, 0.1, 0.05, momentum, nesterov, (0.9, 0.999), 1e-8)  # type: ignore[arg-type]


def torchs(model: FullSoftmax, given: UpdateRule) -> Optimizer:
    """The optimiser of a run."""
    if given.name == "adamw":
        return AdamW([model.weight], lr=given.lr, weight_decay=given.weight_decay, fused=True)
    sgd = SGD(
        [model.weight],
        lr=given.lr,
        momentum=given.momentum,
        nesterov=given.nesterov,
        weight_decay=given.weight_decay,
        fused=True,
    )
    if given.momentum:
        sgd.state[model.weight]["momentum_buffer"] = torch.zeros_like(model.weight)
    return sgd


def trained(
    gradient: str, head: str, given: UpdateRule, sizes: tuple[int, ...] = (BATCH, BATCH), **options: Any
) -> tuple[FullSoftmax, Optimizer]:
    """Four updates of some passes each, of which the third is called off."""
    scale, skip, beside = (
        options.pop(name, default) for name, default in (("scale", 1.0), ("skip", 0.0), ("beside", 0.0))
    )
    made = build(HEADS, head, num_classes=CLASSES)
    model = FullSoftmax(CLASSES, DIM, made, seed=1, gradient=gradient, **options)  # type: ignore[arg-type]
    model.class_skip = skip
    optimizer = model.optimizer(given) or torchs(model, given)
    generator = torch.Generator().manual_seed(0)
    for update in range(4):
        for group in optimizer.param_groups:
            group["lr"] = 0.1 / (1 + update)
        for size in sizes:
            features = torch.randn(size, DIM, generator=generator).requires_grad_()
            labels = torch.randint(CLASSES, (size,), generator=generator)
            (scale * model(features, labels).loss).backward()
        if beside:  # a loss that reads the rows themselves
            (scale * beside * model.weight.square().sum()).backward()
        if model.weight.grad is not None:
            model.weight.grad /= scale  # as a run does
        guarded_step(optimizer, torch.tensor(float(update == 2)), torch.tensor(scale))
        optimizer.zero_grad()
    return model, optimizer


RULES = {
    "sgd": rule("sgd"),
    "nesterov": rule("sgd", nesterov=True),
    "no momentum": rule("sgd", momentum=0.0),
    "adamw": rule("adamw"),
}


@pytest.mark.parametrize(
    ("name", "head", "options"),
    [
        *((name, "CosFace", {}) for name in RULES),
        ("sgd", "CosFace", {"scale": 1024.0}),
        ("sgd", "CosFace", {"rows_per_class": 2}),
        ("sgd", "CosFace", {"skip": 0.5}),
        *(("sgd", head, {}) for head in ("CurricularFace", "AdaM-Softmax", "UniFace", "Softmax")),
    ],
)
def test_rows_and_state_are_those_of_the_whole_gradient(name: str, head: str, options: dict[str, Any]) -> None:
    results = [trained(gradient, head, RULES[name], **options) for gradient in ("whole", "chunks")]
    (whole, torchs_optimizer), (chunks, ours) = results
    assert chunks.weight.equal(whole.weight)
    assert chunks.weight.grad is None
    for key, value in torchs_optimizer.state[whole.weight].items():
        assert ours.state[chunks.weight][key].equal(value), key
    assert ours.state[chunks.weight].keys() == torchs_optimizer.state[whole.weight].keys()


@pytest.mark.parametrize("options", [{"sizes": (BATCH, BATCH // 2)}, {"beside": 0.1, "scale": 16.0}])
def test_passes_of_several_sizes_and_losses_that_read_the_rows_add_up(options: dict[str, Any]) -> None:
    whole, chunks = (trained(gradient, "CosFace", RULES["sgd"], **options)[0] for gradient in ("whole", "chunks"))
    torch.testing.assert_close(chunks.weight, whole.weight, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("gradient", ["whole", "chunks"])
def test_only_chunks_spare_a_gradient_as_large_as_the_rows(gradient: Any) -> None:
    model = FullSoftmax(CLASSES, DIM, build(HEADS, "CosFace"), gradient=gradient)
    own = model.optimizer(RULES["sgd"])
    assert isinstance(own, ChunkOptimizer) is (gradient == "chunks")
    model(torch.randn(BATCH, DIM), torch.arange(BATCH)).loss.backward()
    assert (model.weight.grad is None) is (gradient == "chunks")


def test_an_optimiser_of_somebody_else_finds_a_whole_gradient() -> None:
    made = build(HEADS, "CosFace", num_classes=CLASSES)
    model = FullSoftmax(CLASSES, DIM, made, gradient="chunks")
    model(torch.randn(BATCH, DIM), torch.arange(BATCH)).loss.backward()
    assert model.weight.grad is not None
