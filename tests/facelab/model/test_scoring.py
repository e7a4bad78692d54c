"""Scorers in the place of tables: every set is scored once, protocols take the scorer of the training images."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from facelab.cli import main as cli
from facelab.data.base import Pixels
from facelab.data.synthetic.source import SyntheticFaces
from facelab.distributed import run_processes
from facelab.errors import ConfigError, CorruptImage
from facelab.iqa.sharpness import Sharpness
from facelab.model.face_model import network_of
from facelab.model.scoring import Scoring
from facelab.quality.table import ScoreTable, write_scores
from facelab.run.assembly import assemble
from facelab.run.run import RunResult
from facelab.run.settings import load_config
from facelab.test_protocol.base import PROTOCOLS
from facelab.test_protocol.report.report_store import read_reports
from facelab.test_protocol.report.run_report import write_run_report
from facelab.weights.checkpoint import CheckpointStore
from facelab.weights.snapshot import read_card

Run = Callable[..., RunResult]
PAIRS = "{SyntheticPairs: {identities: 20, per_identity: 4, folds: 2, pairs: 40, resolution: [8]}}"
CPU = torch.device("cpu")
TINY = str(Path(__file__).parents[2] / "tiny_run.yaml")


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[int]:
    """Number of images of each batch that a scorer gets, with a cache of this test's own."""
    monkeypatch.setenv("FACELAB_CACHE", str(tmp_path / "cache"))
    batches: list[int] = []
    measure = Sharpness.measure

    def counted(scorer: Sharpness, pixels: torch.Tensor) -> torch.Tensor:
        batches.append(len(pixels))
        return measure(scorer, pixels)

    monkeypatch.setattr(Sharpness, "measure", counted)
    return batches


class Mended(SyntheticFaces):
    """One image cannot be read at first."""

    broken = 2

    def read(self, index: int) -> Pixels:
        if index == self.broken:
            raise CorruptImage("is broken.")
        return super().read(index)


def settings(base: Path, *more: str) -> list[str]:
    words = ["mode=adaptation", "backbone=null", "adapter={DualLoRA: {rank: 2}}", "gate=sigmoid", *more]
    return [*words, f"base={base}", "data.quality={Sharpness: {}}", f"evaluation.protocols.synthetic={PAIRS}"]


def test_a_run_scores_each_image_once_and_so_does_every_later_one(
    tmp_path: Path, run_tiny: Run, scored: list[int]
) -> None:
    base = run_tiny(tmp_path / "base", "training.epochs=1").folder
    result = run_tiny(tmp_path / "run", *settings(base, "training.epochs=1"))
    assert sum(scored) == 64 + 2 * 80  # training images, and test images at two resolutions
    assert result.reports[0].options["quality"]["scorer"] == "Sharpness"
    run_tiny(tmp_path / "other", *settings(base, "training.epochs=1", "adapter={DualLoRA: {rank: 3}}"))
    assert sum(scored) == 224
    write_run_report(result.folder, {"run": list(result.reports)})
    card = read_card(CheckpointStore(result.folder / "checkpoints").find("last"))
    expected = {"spec": {"Sharpness": {}}, "base": str(base), "card": Sharpness().card.model_dump()}
    assert card["scorer"] == expected
    words = ["test", str(result.folder), "SyntheticPairs.identities=10", "SyntheticPairs.per_identity=2"]
    more = ["SyntheticPairs.folds=2", "SyntheticPairs.pairs=20", "--out", str(tmp_path / "out")]
    tested = CliRunner().invoke(cli.app, [*words, *more])
    assert tested.exit_code == 0, tested.output
    assert sum(scored) == 244
    assert read_reports(tmp_path / "out")["run"][0].options["quality"]["scorer"] == "Sharpness"


def test_what_the_command_scored_is_not_scored_by_a_run(tmp_path: Path, run_tiny: Run, scored: list[int]) -> None:
    data = "{SyntheticFaces: {identities: 8, per_identity: 8, size: 32}}"
    words = ["iqa", "score", data, "-s", "Sharpness", "--out", str(tmp_path / "table.csv")]
    assert CliRunner().invoke(cli.app, words).exit_code == 0
    assert sum(scored) == 64
    base = run_tiny(tmp_path / "base", "training.epochs=1").folder
    words = ["mode=adaptation", "backbone=null", "adapter={DualLoRA: {rank: 2}}", "gate=sigmoid", f"base={base}"]
    run_tiny(tmp_path / "run", *words, "data.quality={Sharpness: {}}", "training.epochs=1")
    (kept,) = (tmp_path / "cache" / "scores").iterdir()
    assert sum(scored) == 64
    assert kept.read_text() == (tmp_path / "table.csv").read_text()


def test_augmented_images_are_scored_as_the_network_sees_them(tmp_path: Path, run_tiny: Run, scored: list[int]) -> None:
    base = run_tiny(tmp_path / "base", "training.epochs=1").folder
    cropped = settings(base, "training.epochs=2", "data.augment={flip: 0, crop: {probability: 0.5}}")
    config = load_config(TINY, [*cropped, "data.online_quality=true"])
    plain = load_config(TINY, settings(base, "data.augment.flip=0"))
    (batch, *_), (whole, *_) = (list(assemble(one).feed.batches(0, 0)) for one in (config, plain))
    assert batch.quality is not None
    assert whole.quality is not None
    torch.testing.assert_close(batch.quality, Sharpness().score(batch.image), rtol=0, atol=0)
    torch.testing.assert_close(whole.quality, Sharpness().score(whole.image))
    left = (batch.image == whole.image).flatten(1).all(dim=1)
    assert 0 < int(left.sum()) < len(left)
    assert torch.equal(torch.isclose(batch.quality, whole.quality), left)
    before = sum(scored)
    run_tiny(tmp_path / "run", *cropped, "data.online_quality=true")
    assert sum(scored) - before == 2 * 64 + 2 * 80  # every image of two epochs, and those of the test; no other


def test_an_image_that_was_mended_is_scored_and_no_other(scored: list[int]) -> None:
    faces = Mended(2, 2, size=32)
    table = Scoring(None, CPU).table({"Sharpness": {}}, faces, "")
    assert (sum(scored), np.isnan(ScoreTable(table).values).tolist()) == (3, [False, False, True, False])
    faces.broken = -1
    assert Scoring(None, CPU).table({"Sharpness": {}}, faces, "") == table
    assert (sum(scored), np.isnan(ScoreTable(table).values).any()) == (4, False)
    table.write_text("damaged")
    Scoring(None, CPU).table({"Sharpness": {}}, faces, "")
    assert sum(scored) == 8
    write_scores(table, faces, np.zeros(4, np.float32), Sharpness().card.model_copy(update={"name": "Other"}))
    Scoring(None, CPU).table({"Sharpness": {}}, faces, "")
    assert sum(scored) == 12


def test_a_scorer_may_be_named_for_a_test_of_any_model(tmp_path: Path, run_tiny: Run, scored: list[int]) -> None:
    base = run_tiny(tmp_path / "base", "training.epochs=1", f"evaluation.protocols.synthetic={PAIRS}").folder
    for word in ("{Sharpness: {}}", "synthetic={Sharpness: {}}"):
        out = tmp_path / "out"
        tested = CliRunner().invoke(cli.app, ["test", str(base), "--out", str(out), "--quality", word])
        assert tested.exit_code == 0, tested.output
        assert read_reports(out)["base"][0].options["quality"]["scorer"] == "Sharpness"
    assert sum(scored) == 160


def test_the_table_that_is_given_goes_before_the_usual_scorer(
    scored: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("facelab.model.scoring.takes_quality", lambda network: True)
    options = {"identities": 4, "per_identity": 2, "folds": 2, "pairs": 8, "size": 32}
    pairs = PROTOCOLS.build("SyntheticPairs", options)
    given = {"a": tmp_path / "mine.csv"}
    tables = Scoring(None, CPU).tables(given, [("a", pairs), ("b", pairs)], torch.nn.Identity(), {"Sharpness": {}})
    assert tables["a"] == given["a"]
    assert sum(scored) == len(ScoreTable(tables["b"]).values) == len(pairs.images)


def test_images_are_scored_in_the_size_of_the_network(scored: list[int]) -> None:
    faces = SyntheticFaces(2, 2, size=32)
    as_stored = ScoreTable(Scoring(None, CPU).table({"Sharpness": {}}, faces, "")).of(faces).values
    resized = ScoreTable(Scoring(None, CPU, size=(64, 64)).table({"Sharpness": {}}, faces, "")).of(faces).values
    assert (resized < as_stored).all()


def test_tables_of_others_are_looked_up_anew(tmp_path: Path, scored: list[int]) -> None:
    faces = SyntheticFaces(2, 2, size=32)
    file = tmp_path / "made.csv"
    for value in (0.25, 0.75):
        write_scores(file, faces, np.full(4, value, np.float32), Sharpness().card)
        table = Scoring(None, CPU).table({"Table": {"path": str(file)}}, faces, "")
        assert ScoreTable(table).of(faces).values.tolist() == [value] * 4
    other = shutil.copy(file, tmp_path / "other.csv")
    assert Scoring(None, CPU).table({"Table": {"path": str(other)}}, faces, "") != table


def test_refusals(tmp_path: Path, run_tiny: Run, scored: list[int]) -> None:
    faces = SyntheticFaces(2, 2, size=32)
    with pytest.raises(ConfigError, match="the scorer 'FeatureNorm' asks a trained network, but the settings name no"):
        Scoring(None, CPU).table({"FeatureNorm": {}}, faces, "")
    with pytest.raises(ConfigError, match="unknown scorer 'Sharpnes'. Did you mean 'Sharpness'"):
        run_tiny(tmp_path / "run", "data.quality={Sharpnes: {}}")
    with pytest.raises(ConfigError, match="a quality table for 'synthetc', but no such protocol. Did you mean 'synth"):
        run_tiny(
            tmp_path / "run", f"evaluation.protocols.synthetic={PAIRS}", "evaluation.quality.synthetc={Sharpness: {}}"
        )


def test_a_scorer_may_ask_the_base_model(tmp_path: Path, run_tiny: Run, scored: list[int]) -> None:
    base = run_tiny(tmp_path / "base", "training.epochs=1").folder
    faces = SyntheticFaces(2, 2, size=32)
    table = ScoreTable(Scoring(network_of(str(base), CPU), CPU).table({"FeatureNorm": {}}, faces, ""))
    assert table.scorer.name == "FeatureNorm"
    assert (table.values > 0).all()


def share_of_training_scores(cache: str) -> tuple[int, list[float]]:
    """How many images this process scores of a training set, and the scores of all."""
    scored: list[int] = []
    measure = Sharpness.measure

    def counted(scorer: Sharpness, pixels: torch.Tensor) -> torch.Tensor:
        scored.append(len(pixels))
        return measure(scorer, pixels)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Sharpness, "measure", counted)
        patch.setenv("FACELAB_CACHE", cache)
        faces = SyntheticFaces(3, 3, size=32)
        table = Scoring(None, CPU).table({"Sharpness": {}}, faces, "")
        return sum(scored), ScoreTable(table).of(faces).values.tolist()


def test_processes_share_the_images_of_a_set(tmp_path: Path) -> None:
    alone = share_of_training_scores(str(tmp_path / "one"))
    first, second = run_processes(share_of_training_scores, 2, str(tmp_path / "two"))
    assert (alone[0], first[0], second[0]) == (9, 5, 4)
    assert first[1] == second[1] == alone[1]
    assert [share[0] for share in run_processes(share_of_training_scores, 2, str(tmp_path / "two"))] == [0, 0]
    assert len(list((tmp_path / "two" / "scores").iterdir())) == 1
