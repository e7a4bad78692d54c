"""What `assemble` refuses before anything is trained, and what differs between processes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from facelab.data.synthetic.source import SyntheticFaces
from facelab.distributed import run_processes
from facelab.errors import ConfigError
from facelab.iqa.base import SCORERS
from facelab.quality.card import ScorerCard
from facelab.quality.table import write_scores
from facelab.run.assembly import assemble, supplied_size
from facelab.run.run import RunResult
from facelab.run.settings import load_config

Run = Callable[..., RunResult]
TINY = str(Path(__file__).parents[2] / "tiny_run.yaml")
SHARPNESS = "data.quality={Sharpness: {}}"
WITHOUT_BATCHNORM = "backbone={Timm: {model: test_vit, output: classifier, feat_dim: 16}}"
SHORT = ("training.epochs=1", "data.source.SyntheticFaces.per_identity=1")
UNIT_NORM = "backbone={ResNeSt: {width: 0.125, feat_dim: 16}}"


@pytest.mark.parametrize("head", ["MagFace", "AdaFace"])
def test_a_head_that_reads_norms_is_refused_over_a_backbone_of_norm_1(head: str) -> None:
    with pytest.raises(ConfigError, match=f"the head {head} reads quality from the norm .* gives embeddings of norm 1"):
        assemble(load_config(TINY, [UNIT_NORM, f"head={head}"]))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([SHARPNESS], "data.quality .* neither of the mode 'conventional' as it is set and its network reads scores"),
        (
            [SHARPNESS, "gate=sigmoid"],
            "there is a gate, but neither of the mode 'conventional' .* take it back by gate: null",
        ),
        (["mode=adaptation", "adapter={LoRA: {rank: 2}}", SHARPNESS], "neither of the mode 'adaptation' as it is set"),
        (
            ["mode={adaptation: {distillation: 0}}", "adapter={LoRA: {rank: 2}}", SHARPNESS, "gate=sigmoid"],
            "there is a gate, but neither of the mode 'adaptation' as it is set and LoRA reads it",
        ),
    ],
)
def test_scores_that_nothing_reads_are_refused_before_anything_is_scored(
    words: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SCORERS, "build", lambda *_, **__: pytest.fail("it scores"))
    with pytest.raises(ConfigError, match=sentence):
        assemble(load_config(TINY, words))


@pytest.mark.parametrize(
    "words",
    [
        ["adapter={DualLoRA: {rank: 2}}", "gate=sigmoid"],
        ["mode={adaptation: {distillation: 0.5}}", "adapter={LoRA: {rank: 2}}", "gate=sigmoid"],
    ],
    ids=["experts", "distillation"],
)
def test_scores_that_are_read_are_not_refused(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACELAB_CACHE", str(tmp_path))
    assemble(load_config(TINY, [*words, SHARPNESS]))


def test_a_table_of_scores_may_stand_in_settings_whose_network_reads_none(tmp_path: Path) -> None:
    faces = SyntheticFaces(identities=8, per_identity=8, size=32)
    write_scores(tmp_path / "table.csv", faces, np.ones(len(faces), np.float32), ScorerCard(name="made", low=0, high=1))
    assemble(load_config(TINY, [f"data.quality={tmp_path / 'table.csv'}"]))


@pytest.mark.parametrize("words", [("training.batch_size=1",), ("training.batch_size=6", "training.accumulate=6")])
def test_one_image_in_a_pass_is_refused_where_there_is_batchnorm(words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="has BatchNorm, which needs at least two images .* raise training.batch"):
        assemble(load_config(TINY, words))
    assemble(load_config(TINY, ["training.batch_size=2"]))


def test_one_image_in_a_pass_is_enough_without_batchnorm(tmp_path: Path, run_tiny: Run) -> None:
    run_tiny(tmp_path / "run", WITHOUT_BATCHNORM, "data.size=160", "data.resize=true", "training.batch_size=1", *SHORT)


def test_two_processes_need_two_images_each() -> None:
    assert all("has BatchNorm" in sentence for sentence in run_processes(assembled_alone, 2))


def test_a_base_that_goes_on_is_trained_as_a_new_network_is(tmp_path: Path, run_tiny: Run) -> None:
    base = run_tiny(tmp_path / "base", "training.epochs=1").folder
    mode = assemble(load_config(TINY, ["backbone=null", f"base={base}"])).mode
    assert all(part.training for module in mode.trained_modules() for part in module.modules())


def assembled_alone() -> str:
    """Runs in each of several processes."""
    try:
        assemble(load_config(TINY, ["training.batch_size=2"]))
    except ConfigError as error:
        return str(error)
    return ""


def first_random_numbers() -> list[float]:
    """Runs in each of several processes: what dropout would draw first in a new run, twice."""
    found = []
    for _ in range(2):
        assemble(load_config(TINY))
        found.append(float(torch.rand(1)))
    return found


def test_processes_draw_different_dropout_and_the_same_again() -> None:
    (first, again), (other, other_again) = run_processes(first_random_numbers, 2)
    assert (first, other) == (again, other_again)
    assert first != other


def test_a_run_that_began_with_scores_that_nothing_reads_goes_on(
    tmp_path: Path, run_tiny: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACELAB_CACHE", str(tmp_path / "cache"))
    with monkeypatch.context() as earlier:
        earlier.setattr("facelab.run.assembly.refuse_unread_scores", lambda *_: None)
        run_tiny(tmp_path / "run", "training.epochs=1", SHARPNESS)
    assert run_tiny(tmp_path / "run", "training.epochs=1", SHARPNESS, resume=True).progress.complete


def test_passes_that_fill_no_update_are_left_out() -> None:
    words = ["data.source.SyntheticFaces.per_identity=10", "training.batch_size=32", "training.accumulate=2"]
    parts = assemble(load_config(TINY, words))  # 80 images in 5 passes of 16
    assert parts.progress.updates_per_epoch == 2
    assert [len(batch.label) for batch in parts.feed.batches(0, 0)] == [16] * 4
    whole, rest = list(parts.feed.batches(0, 0)), list(parts.feed.batches(0, 1))
    assert [batch.index.tolist() for batch in rest] == [batch.index.tolist() for batch in whole[2:]]


def test_an_update_that_needs_more_passes_than_an_epoch_has_is_refused() -> None:
    words = ["training.batch_size=128", "training.accumulate=2"]
    with pytest.raises(ConfigError, match="training.batch_size is 128, but the data set has only 64 images; lower it"):
        assemble(load_config(TINY, words))


def test_a_batch_that_passes_cannot_share_is_named_by_both_settings() -> None:
    words = ["training.batch_size=12", "training.accumulate=4", "data.sampler=PairsAndInstances"]
    said = "training.batch_size / training.accumulate is 3, but the rows of PairsAndInstances come in groups of 2"
    with pytest.raises(ConfigError, match=said):
        assemble(load_config(TINY, words))


def test_sources_that_draw_get_the_size_of_square_networks_alone() -> None:
    assert supplied_size(load_config(TINY, ["data.size=48"])) == {"size": 48}
    assert supplied_size(load_config(TINY, ["data.size=[32, 24]"])) == {}


def test_heads_that_learn_and_class_rows_have_the_rates_of_the_settings() -> None:
    words = ["head=AdaM-Softmax", "optimizer.lr=0.5", "optimizer.class_lr=0.25", "schedule.name=constant"]
    groups = assemble(load_config(TINY, words)).optim.optimizers[0].param_groups
    rates = {bool(group.get("sharded")): group["lr"] for group in groups}
    assert rates == {False: 0.5, True: 0.25}
    parameters = [id(parameter) for group in groups for parameter in group["params"]]
    assert len(parameters) == len(set(parameters)), "none is moved twice"
