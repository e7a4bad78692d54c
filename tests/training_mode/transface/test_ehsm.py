"""Weights by entropy, and the weighted loss, equal those of the original and of the paper's formulas."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from facelab.backbone.base import Features
from facelab.backbone.vit import PatchGate
from facelab.head.margins.combined_margin import CombinedMargin
from facelab.head.rows.full_softmax import FullSoftmax
from facelab.training_mode.transface.ehsm import Entropy, entropy_weight, token_entropy

COPY = Path(__file__).resolve().parents[2] / "golden" / "transface"
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}
GRADIENT = {"rtol": 1e-4, "atol": 1e-6}


def read(folder: Path) -> dict[str, Tensor]:
    with np.load(folder / "ehsm.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays}


def deviation_of(tokens: Tensor, golden: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Gate (B, N) and deviation (B, N) of tokens before the gate."""
    gate = PatchGate(tokens.shape[1], tokens.shape[2]).to(tokens.dtype)
    gate.squeeze.weight.data.copy_(golden["se_w1"])
    gate.excite.weight.data.copy_(golden["se_w2"])
    weights = gate(tokens)
    deviation = Features(tokens[:, 0], tokens=weights.unsqueeze(2) * tokens).patch_deviation
    assert deviation is not None
    return weights, deviation


def weighted_loss(tokens: Tensor, golden: dict[str, Tensor], form: Entropy) -> Tensor:
    weight = entropy_weight(token_entropy(deviation_of(tokens, golden)[1], form), gamma=1.0)
    losses = F.cross_entropy(golden["logits"].to(tokens.dtype), golden["labels"], reduction="none")
    return (weight * losses).mean()


def check_weights(folder: Path) -> None:
    golden = read(folder)
    gate, deviation = deviation_of(golden["tokens"], golden)
    torch.testing.assert_close(gate.softmax(dim=1), golden["se_softmax"], **TOLERANCE)
    torch.testing.assert_close(gate.unsqueeze(2) * golden["tokens"], golden["weighted_tokens"], **TOLERANCE)
    torch.testing.assert_close(deviation, golden["token_std"], **TOLERANCE)
    weight = entropy_weight(token_entropy(deviation, "deviation"), gamma=1.0)
    torch.testing.assert_close(weight, golden["sample_weight"], **TOLERANCE)
    torch.testing.assert_close(weighted_loss(golden["tokens"], golden, "deviation"), golden["loss"], **TOLERANCE)


def check_head(folder: Path) -> None:
    golden = {key.removeprefix("head/"): value for key, value in read(folder).items() if key.startswith("head/")}
    margin = CombinedMargin(1.0, 0.5, 0.0, 64.0, None, "none", "straight_through")
    classes, dim = golden["weight"].shape
    classifier = FullSoftmax(classes, dim, margin)
    classifier.weight.data.copy_(golden["weight"])
    embedding = golden["embeddings"].requires_grad_()
    weight = entropy_weight(golden["token_std"], gamma=1.0)
    torch.testing.assert_close(weight, golden["sample_weight"], **TOLERANCE)
    output = classifier(embedding, golden["labels"], weight)
    output.loss.backward()
    torch.testing.assert_close(output.loss, golden["loss"], **TOLERANCE)
    torch.testing.assert_close(embedding.grad, golden["grad_embeddings"], **GRADIENT)
    torch.testing.assert_close(classifier.weight.grad, golden["grad_weight"], **GRADIENT)


def check_gradients(folder: Path) -> None:
    golden = read(folder)
    entropy = token_entropy(golden["token_std"].double(), "gaussian")
    torch.testing.assert_close(entropy, golden["paper/entropy"], **TOLERANCE)
    torch.testing.assert_close(entropy_weight(entropy, 1.0), golden["paper/sample_weight"], **TOLERANCE)
    forms: list[tuple[str, Entropy]] = [("paper", "gaussian"), ("code_with_gradient", "deviation")]
    for name, form in forms:
        tokens = golden["tokens"].double().requires_grad_()
        loss = weighted_loss(tokens, golden, form)
        loss.backward()
        torch.testing.assert_close(loss, golden[f"{name}/loss"], **TOLERANCE)
        torch.testing.assert_close(tokens.grad, golden[f"{name}/grad_tokens"], **GRADIENT)


CHECKS = [check_weights, check_head, check_gradients]


@pytest.mark.parametrize("check", CHECKS)
def test_they_equal_the_original(check: type) -> None:
    check(COPY)


@pytest.mark.golden
@pytest.mark.parametrize("check", CHECKS)
def test_they_equal_that_of_the_golden_folder(check: type, golden_root: Path) -> None:
    check(golden_root / "algorithms")


@pytest.mark.parametrize("form", ["deviation", "gaussian"])
def test_tokens_of_equal_numbers_give_finite_weights_and_gradients(form: Entropy) -> None:
    tokens = torch.ones(2, 3, 4, requires_grad=True)
    weight = entropy_weight(token_entropy(tokens.std(dim=2), form), gamma=1.0)
    weight.sum().backward()
    assert bool(weight.isfinite().all())
    assert tokens.grad is not None
    assert bool(tokens.grad.isfinite().all())


def test_the_more_a_sample_says_the_less_it_weighs() -> None:
    entropy = torch.linspace(-1, 3, 9).unsqueeze(1)
    weight = entropy_weight(entropy, gamma=2.0)
    assert bool((weight.diff() < 0).all())
    torch.testing.assert_close(weight[-1], 1 + torch.exp(torch.tensor(-6.0)))
