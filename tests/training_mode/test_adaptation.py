"""Adaptation: learns without touching the base, resumes to the same bits, is loaded back, refuses what cannot work."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import facelab
from facelab.adapter.base import ADAPTERS, AdaptedBackbone
from facelab.backbone.base import BACKBONES, Backbone, Features
from facelab.catalogue import build
from facelab.data.base import SOURCES
from facelab.errors import CheckpointError, ConfigError
from facelab.inputs import InputSpec
from facelab.model.face_model import load_model
from facelab.quality.card import ScorerCard
from facelab.quality.table import write_scores
from facelab.run.run import RunResult
from facelab.training_mode.adaptation.mode import Adaptation
from facelab.training_mode.base import Supplies
from facelab.weights.checkpoint import CheckpointStore
from facelab.weights.snapshot import read_model
from facelab.weights.tensor_files import read_tree

Run = Callable[..., RunResult]
Cut = Callable[[Path, Path, int], Path]
CARD = ScorerCard(name="made", low=0.0, high=1.0)


@pytest.fixture
def base(tmp_path: Path, run_tiny: Run) -> Path:
    """A trained run to go on from."""
    return run_tiny(tmp_path / "base", "training.epochs=2").folder


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Scores of the tiny run's images: every second one is good."""
    source = build(SOURCES, {"SyntheticFaces": {"identities": 8, "per_identity": 8}}, size=32)
    values = np.where(np.arange(len(source)) % 2, 0.9, 0.1).astype(np.float32)
    write_scores(tmp_path / "scores.csv", source, values, CARD)
    return tmp_path / "scores.csv"


def settings(base: Path, table: Path, *more: str) -> list[str]:
    words = [
        "mode=adaptation",
        "backbone=null",
        f"base={base}",
        "adapter={DualLoRA: {rank: 2}}",
        "gate=sigmoid",
        f"data.quality={table}",
        "optimizer.lr=0.2",
        *more,
    ]
    last = {word.split("=", 1)[0]: word for word in words}  # a later word replaces an earlier one
    return list(last.values())


def weights(run: Path) -> dict[str, torch.Tensor]:
    return read_model(CheckpointStore(run / "checkpoints").find("last"))


def test_the_base_stays_and_the_adapters_learn(tmp_path: Path, run_tiny: Run, base: Path, table: Path) -> None:
    run = run_tiny(tmp_path / "adapted", *settings(base, table, "training.epochs=4")).folder
    before, after = weights(base), weights(run)
    for name, tensor in before.items():
        assert torch.equal(after[f"network.{name}"], tensor), name
    assert any(bool(tensor.any()) for name, tensor in after.items() if name.endswith("low_rank_up"))
    assert 0.1 < float(after["gate.tau"]) < 0.9, "between the two scores of the table"
    assert float(after["gate.tau"]) == pytest.approx(0.5, abs=0.01), "the middle of the gap"


def test_the_training_state_holds_the_base_by_hash_alone(
    tmp_path: Path, run_tiny: Run, base: Path, table: Path
) -> None:
    run = run_tiny(tmp_path / "adapted", *settings(base, table)).folder
    stored = read_tree(CheckpointStore(run / "checkpoints").find("last") / "training.pt")["mode"]["network"]
    assert any("low_rank" in name for name in stored)
    assert all("low_rank" in name or name.startswith("gate.") for name in stored)
    model = load_model(run)
    assert isinstance(model.network, AdaptedBackbone)
    assert model.card["base_hash"] == model.network.base_hash
    assert model.card["adapter"] == {"DualLoRA": {"rank": 2}}


@pytest.mark.parametrize("adapter", ["{DualLoRA: {rank: 2}}", "Full"])
def test_resumed_equals_uninterrupted(
    tmp_path: Path, run_tiny: Run, cut_back: Cut, base: Path, table: Path, adapter: str
) -> None:
    gate = [] if adapter == "Full" else ["gate={learned: {}}"]
    more = [f"adapter={adapter}", "mode={adaptation: {distillation: 0.5}}", "checkpoint.keep_every_epochs=1", *gate]
    whole = run_tiny(tmp_path / "whole", *settings(base, table, *more)).folder
    cut = cut_back(whole, tmp_path / "cut", 4)
    run_tiny(cut, *settings(base, table, *more), resume=True)
    expected, found = weights(whole), weights(cut)
    assert expected.keys() == found.keys()
    assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())


def test_the_state_of_moving_statistics_holds_no_table_that_is_computed() -> None:
    """Swin's index of relative positions is a buffer that no state dict has."""
    small = {"patch": 4, "dim": 16, "depths": [1], "heads": [2], "window": 2, "feat_dim": 8}
    network = BACKBONES.build("Swin", {**small, "input_spec": {"height": 16, "width": 16}})
    adapter = ADAPTERS.build("LoRA", {"rank": 2, "moving_statistics": True})
    mode = Adaptation(Supplies(AdaptedBackbone(network, adapter), 3, "CosFace"))
    mode.load_state(mode.state())
    moving = {name for name in mode.state()["network"] if name.endswith("running_mean")}
    assert moving == {name for name in network.state_dict(prefix="network.") if name.endswith("running_mean")} != set()


class Dropping(Backbone):
    """A linear map of pixels, half of which it drops in training."""

    def __init__(self) -> None:
        super().__init__(InputSpec(8, 8), 4)
        self.drop, self.linear = nn.Dropout(0.5), nn.Linear(3 * 8 * 8, 4)

    def features(self, image: torch.Tensor) -> Features:
        return Features(self.linear(self.drop(image.flatten(1))))


def test_the_teacher_drops_nothing() -> None:
    student = AdaptedBackbone(Dropping(), ADAPTERS.build("Full", {}), None)
    mode = Adaptation(Supplies(student, 2, "CosFace"), distillation=0.5)
    assert mode.teacher is not None
    image = torch.randn(2, 3, 8, 8)
    assert student.training
    assert not torch.equal(student(image), student(image))
    assert not mode.teacher.training
    assert torch.equal(mode.teacher(image), mode.teacher(image))
    assert not any(parameter.requires_grad for parameter in mode.teacher.parameters())


def test_a_run_is_not_resumed_on_another_base(
    tmp_path: Path, run_tiny: Run, cut_back: Cut, base: Path, table: Path
) -> None:
    """Its checkpoints hold the base by hash alone."""
    words = settings(base, table, "checkpoint.keep_every_epochs=1")
    whole = run_tiny(tmp_path / "whole", *words).folder
    cut = cut_back(whole, tmp_path / "cut", 4)
    shutil.rmtree(base)
    run_tiny(base, "training.epochs=1", "seed=1")
    with pytest.raises(CheckpointError, match=r"was trained on the base model [0-9a-f]+, but '.*base' is [0-9a-f]+ no"):
        run_tiny(cut, *words, resume=True)


def test_a_loaded_model_asks_for_quality_and_obeys_it(tmp_path: Path, run_tiny: Run, base: Path, table: Path) -> None:
    run = run_tiny(tmp_path / "adapted", *settings(base, table, "training.epochs=4")).folder
    model = facelab.load(run)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    with pytest.raises(ConfigError, match="quality"):
        model.embed(pixels)
    low, high = (model.embed(pixels, quality=[score, score]) for score in (0.1, 0.9))
    assert low.shape == (2, 16)
    assert not np.allclose(low, high)


def test_a_model_of_joined_spaces_is_trained_tested_and_loaded(
    tmp_path: Path, run_tiny: Run, base: Path, table: Path
) -> None:
    """Its embeddings are twice as long, and of length 1."""
    adapter = "adapter={DualLoRA: {rank: 2, experts: low, crossing: 1.0, joined: 0.7}}"
    run = run_tiny(tmp_path / "joined", *settings(base, table, adapter)).folder
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    found = facelab.load(run).embed(pixels, quality=[0.1, 0.9])
    assert found.shape == (2, 32)
    assert np.linalg.norm(found, axis=1) == pytest.approx([1.0, 1.0], abs=1e-5)


def test_distillation_holds_good_images_at_the_base(tmp_path: Path, run_tiny: Run, base: Path, table: Path) -> None:
    """The stronger it is, the nearer the embeddings of all images (gate 1 everywhere) stay to those of the base."""
    source: Any = build(SOURCES, {"SyntheticFaces": {"identities": 8, "per_identity": 8}}, size=32)
    pixels = np.stack([source.read(index) for index in range(16)])
    old = facelab.load(base).embed(pixels)
    similar = []
    for weight in (0.0, 20.0):
        more = ["adapter={LoRA: {rank: 4}}", "gate=null", f"mode={{adaptation: {{distillation: {weight}}}}}"]
        run = run_tiny(tmp_path / f"at-{weight:g}", *settings(base, table, *more, "training.epochs=6")).folder
        similar.append(float((facelab.load(run).embed(pixels) * old).sum(axis=1).mean()))
    assert similar[0] < similar[1] - 0.005


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (["data.quality=null"], "data.quality names no table; make one with `facelab iqa score DATA`"),
        (["gate=null"], "DualLoRA needs a gate"),
        (["adapter=LoRA", "gate=learned"], "the gate 'learned' is trained with experts, and the adapter LoRA has none"),
        (["adapter=null"], "trains adapters; name one"),
        (
            ["adapter=LoRA", "gate=null", "mode={adaptation: {alignment: 1}}"],
            "adaptation alignment tells low from high images by a gate, and there is none; name one",
        ),
        (
            ["mode={adaptation: {alignment: 1}}", "training.batch_size=1"],
            r"the first 64 batches hold only 0 such pairs; draw several images of each person, data\.sampler: {Class",
        ),
        (["backbone=MobileFaceNet"], "names? a base model and a backbone"),
        (
            ["data.size=48", "data.quality=null", "gate=null", "adapter=Full"],
            r"takes 32x32 images, but data\.size is 48; set data\.size: 32",
        ),
    ],
)
def test_what_cannot_work_is_refused(
    tmp_path: Path, run_tiny: Run, base: Path, table: Path, change: list[str], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        run_tiny(tmp_path / "bad", *settings(base, table, *change))


def test_an_adapted_base_is_refused(tmp_path: Path, run_tiny: Run, base: Path, table: Path) -> None:
    run = run_tiny(tmp_path / "adapted", *settings(base, table)).folder
    with pytest.raises(ConfigError, match="has adapters already"):
        run_tiny(tmp_path / "again", *settings(run, table))
