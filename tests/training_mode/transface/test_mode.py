"""The mode: what it changes and weighs, rankings that leave no trace, two processes, refusals."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import Tensor

from facelab import distributed
from facelab.adapter.base import ADAPTERS, AdaptedBackbone
from facelab.backbone.base import BACKBONES, PatchGrid
from facelab.catalogue import build
from facelab.data.base import Batch
from facelab.errors import ConfigError
from facelab.inputs import InputSpec
from facelab.run.assembly import RunParts, assemble
from facelab.run.run import RunResult, run_training
from facelab.run.settings import load_config
from facelab.training_mode.transface import TransFace
from facelab.training_mode.transface.ranking import DECAY, MeanGate
from facelab.weights.checkpoint import CheckpointStore
from facelab.weights.snapshot import read_model
from facelab.weights.tensor_files import read_tree

Run = Callable[..., RunResult]
Cut = Callable[[Path, Path, int], Path]
TINY = str(Path(__file__).parents[2] / "tiny_run.yaml")
VIT = "{ViT: {patch: 8, dim: 16, depth: 1, heads: 2, feat_dim: 16, patch_gate: true, drop_path_rate: 0, mask_ratio: 0}}"


def words(options: str, *more: str) -> list[str]:
    return [f"backbone={VIT}", f"mode={{transface: {options}}}", *more]


def parts_of(options: str, *more: str) -> RunParts:
    return assemble(load_config(TINY, words(options, *more)))


def mode_and_batch(options: str, *more: str) -> tuple[TransFace, Batch]:
    parts = parts_of(options, *more)
    assert isinstance(parts.mode, TransFace)
    return parts.mode, next(iter(parts.feed.batches(0, 0)))


def changed_patches(mode: TransFace, batch: Batch) -> Tensor:
    """Which patches differ afterwards, (B, N)."""
    found = mode._perturbed(batch).image
    return (found != batch.image).any(dim=1).unfold(1, 8, 8).unfold(2, 8, 8).flatten(3).any(dim=3).flatten(1)


def test_the_grid_is_that_of_the_network() -> None:
    mode, _ = mode_and_batch("{}")
    assert mode.grid == PatchGrid(4, 4, 8)
    published = build(BACKBONES, {"TransFace-S": {"depth": 1, "dim": 8}})
    assert published.gated_patches == PatchGrid(12, 12, 9)
    assert build(BACKBONES, {"vit_s": {"depth": 1, "dim": 8}}).gated_patches is None


def test_a_network_with_adapters_has_the_patches_of_its_base() -> None:
    options = {"patch": 8, "dim": 16, "depth": 1, "heads": 2, "feat_dim": 16, "patch_gate": True}
    network = build(BACKBONES, {"ViT": {**options, "input_spec": InputSpec(32, 32)}})
    assert AdaptedBackbone(network, build(ADAPTERS, "LoRA")).gated_patches == PatchGrid(4, 4, 8)


def test_fresh_changes_the_patches_of_each_image_with_the_largest_gates() -> None:
    mode, batch = mode_and_batch("{ranking: fresh, patches: 3, probability: 1}")
    with torch.no_grad():
        gate = mode.network.eval().features(*mode.inputs(batch)).patch_gate
    assert gate is not None
    expected = torch.zeros_like(gate, dtype=torch.bool).scatter(1, gate.topk(3, dim=1).indices, True)
    assert torch.equal(changed_patches(mode, batch), expected)


def test_stale_changes_the_positions_with_the_largest_running_means() -> None:
    mode, batch = mode_and_batch("{patches: 2, probability: 1}")
    first = changed_patches(mode, batch)
    assert torch.equal(first.sum(dim=1), torch.full((16,), 2))
    assert len(first.unique(dim=0)) > 8, "before the first step all are equal, and the ranking is random"
    assert mode.mean_gate is not None
    mode.mean_gate.mean[[3, 9]] = torch.tensor([0.6, 0.7])
    later = changed_patches(mode, batch)
    assert torch.equal(later.nonzero()[:, 1].unique(), torch.tensor([3, 9]))


def test_the_running_mean_follows_the_gates() -> None:
    mean = MeanGate(3)
    for _ in range(2):
        mean.update(torch.tensor([[0.0, 0.5, 1.0], [0.5, 0.5, 1.0]]))
    torch.testing.assert_close(mean.mean, (1 - DECAY**2) * torch.tensor([0.25, 0.5, 1.0]))


def test_a_fresh_ranking_leaves_no_trace() -> None:
    network = VIT.replace("mask_ratio: 0", "mask_ratio: 0.2")
    mode, batch = mode_and_batch("{ranking: fresh, probability: 1}", f"backbone={network}")
    mode.network.blocks.eval()
    modes = [module.training for module in mode.network.modules()]
    buffers = {name: buffer.clone() for name, buffer in mode.network.named_buffers()}
    random = torch.get_rng_state()
    mode._perturbed(batch)
    assert [module.training for module in mode.network.modules()] == modes
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in mode.network.named_buffers())
    assert torch.equal(torch.get_rng_state(), random)


def test_the_same_rows_of_the_same_step_change_in_the_same_way() -> None:
    mode, batch = mode_and_batch("{probability: 0.5}")
    once, again = mode._perturbed(batch).image, mode._perturbed(batch).image
    assert torch.equal(once, again)
    assert not torch.equal(once, batch.image)
    assert batch.draws is not None
    other = mode._perturbed(replace(batch, draws=batch.draws + 1)).image
    assert not torch.equal(once, other)


@pytest.mark.parametrize("form", ["deviation", "gaussian"])
def test_the_loss_is_weighed_and_the_weight_has_a_gradient_if_asked(form: str) -> None:
    grads = {}
    for gradient in (False, True):
        mode, batch = mode_and_batch(f"{{entropy: {form}, entropy_gradient: {gradient}, probability: 0}}")
        for module in mode.trained_modules():
            module.eval()
        output = mode.step(batch)
        output.loss.backward()
        assert float(output.metrics["sample_weight"]) > 1
        assert {"token_entropy", "accuracy"} <= output.metrics.keys()
        features = mode.network.features(*mode.inputs(batch))
        alone = [mode.classifier(features.embedding[i : i + 1], batch.label[i : i + 1]).loss for i in range(16)]
        assert features.patch_deviation is not None
        sigma = features.patch_deviation
        entropy = sigma if form == "deviation" else sigma.log() + 0.5 * torch.log(torch.tensor(2 * torch.pi * torch.e))
        expected = ((1 + torch.exp(-entropy.mean(dim=1))) * torch.stack(alone)).mean()
        torch.testing.assert_close(output.loss, expected)
        grads[gradient] = mode.network.gate.squeeze.weight.grad
    assert not torch.allclose(grads[False], grads[True], rtol=1e-3)


OTHERS = ["{ranking: fresh, probability: 0.5, entropy: gaussian, entropy_gradient: true, ema: 0.9}", "{entropy: null}"]


@pytest.mark.parametrize("options", OTHERS)
def test_a_killed_run_ends_with_the_same_bits(options: str, tmp_path: Path, run_tiny: Run, cut_back: Cut) -> None:
    settings = words(options, "training.epochs=2", "checkpoint.keep_every_epochs=1", "training.accumulate=2")
    settings[0] = settings[0].replace("drop_path_rate: 0, mask_ratio: 0", "drop_path_rate: 0.2, mask_ratio: 0.2")
    whole = run_tiny(tmp_path / "whole", *settings).folder
    cut = cut_back(whole, tmp_path / "cut", 4)
    run_tiny(cut, *settings, resume=True)
    expected, found = (read_model(CheckpointStore(run / "checkpoints").find("last")) for run in (whole, cut))
    assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())


def train_and_remember(folder: str) -> tuple[Tensor, float]:
    config = load_config(TINY, words("{patches: 3, probability: 0.5}", "training.epochs=6"))
    result = run_training(config, Path(folder), Console(quiet=True))
    assert result.progress.complete
    state = read_tree(CheckpointStore(Path(folder) / "checkpoints").find("last") / "training.pt")["mode"]
    parts = assemble(config)
    parts.mode.step(next(iter(parts.feed.batches(0, 0))))
    assert isinstance(parts.mode, TransFace)
    assert parts.mode.mean_gate is not None
    return parts.mode.mean_gate.mean, float(state["mean_gate"]["mean"].amax())


@pytest.mark.slow  # that they follow the gates of all: test_two_processes.py
def test_two_processes_rank_alike(tmp_path: Path) -> None:
    (first, largest), (second, _) = distributed.run_processes(train_and_remember, 2, str(tmp_path / "run"))
    assert torch.equal(first, second)
    assert bool((first > 0).all())
    assert largest > float(first.amax()), "24 updates are remembered"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("{patches: 17}", r"transface patches, of 16, is 17"),
        ("{patches: 0}", r"transface patches, of 16, is 0"),
        ("{probability: 1.5}", "transface probability is 1.5"),
        ("{strength: 0}", "transface strength is 0"),
        ("{gamma: 0}", "transface gamma is 0"),
        ("{entropy: null, entropy_gradient: true}", "entropy_gradient is true, but there are no weights: name an ent"),
        ("{ranking: old}", "option 'ranking' is 'old'"),
    ],
)
def test_refused_options(options: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        parts_of(options)


@pytest.mark.parametrize("backbone", ["{MobileFaceNet: {width: 0.25}}", VIT.replace("patch_gate: true, ", "")])
def test_a_network_without_a_gate_is_refused(backbone: str) -> None:
    with pytest.raises(ConfigError, match=r"needs a network with a gate .* has none; choose backbone: TransFace-S, or"):
        assemble(load_config(TINY, [f"backbone={backbone}", "mode=transface"]))
