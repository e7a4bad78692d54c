"""What `assemble` refuses before anything is trained, and what differs between processes."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from facelab.checkpoint import CheckpointStore
from facelab.distributed import run_processes
from facelab.errors import ConfigError
from facelab.iqa.base import SCORERS
from facelab.training_mode.assembly import assemble, restore
from facelab.training_mode.run import RunResult
from facelab.training_mode.settings import load_config

Run = Callable[..., RunResult]
TINY = str(Path(__file__).parent.parent / "tiny_run.yaml")
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


def first_random_numbers(checkpoint: str | None) -> list[float]:
    """Runs in each of several processes: what dropout would draw first, in a new run and in a resumed one."""
    found = []
    for _ in range(2):
        parts = assemble(load_config(TINY))
        if checkpoint is not None:
            restore(parts, Path(checkpoint))
        found.append(float(torch.rand(1)))
    return found


def test_processes_draw_different_dropout_and_the_same_again() -> None:
    (first, again), (other, other_again) = run_processes(first_random_numbers, 2, None)
    assert (first, other) == (again, other_again)
    assert first != other


def test_processes_that_join_draw_different_dropout(tmp_path: Path, run_tiny: Run) -> None:
    run_tiny(tmp_path / "run", "training.epochs=1")
    checkpoint = CheckpointStore(tmp_path / "run" / "checkpoints").find("last")
    (first, again), (other, other_again) = run_processes(first_random_numbers, 2, str(checkpoint))
    assert (first, other) == (again, other_again)
    assert first != other
