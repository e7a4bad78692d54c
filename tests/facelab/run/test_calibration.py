"""Thresholds and probabilities measured on a protocol, into the card, and out again by ``facelab verify``."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import facelab
from facelab.catalogue import Spec
from facelab.cli import main as cli
from facelab.errors import ConfigError, DataError
from facelab.model.face_model import FaceModel
from facelab.run.calibration import Calibrated, calibrate
from facelab.test_protocol.base import Protocol
from facelab.test_protocol.protocols.reduced import open_protocol
from facelab.test_protocol.protocols.synthetic import SyntheticPairs

PAIRS: dict[str, Any] = {"identities": 60, "per_identity": 4, "folds": 3, "pairs": 420, "size": 32}
WORDS = [f"SyntheticPairs.{name}={value}" for name, value in PAIRS.items() if name != "size"]


def protocol(**options: Any) -> Protocol:
    spec: Spec = {"SyntheticPairs": PAIRS | options}
    return open_protocol(spec)


@pytest.fixture(scope="module")
def run(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the trained run, whose card may change."""
    return shutil.copytree(trained_run, tmp_path_factory.mktemp("calibrated") / "tiny")


@pytest.fixture(scope="module")
def model(trained_run: Path) -> FaceModel:
    return facelab.load(trained_run)


@pytest.fixture(scope="module")
def found(model: FaceModel) -> Calibrated:
    return calibrate(model, "pairs", protocol())


def test_a_threshold_keeps_to_its_rate_on_all_pairs_of_two_people(model: FaceModel, found: Calibrated) -> None:
    pairs = SyntheticPairs(**PAIRS).parts[0]
    rows = np.unique(pairs.pairs)
    embeddings = model.embed([pairs.images.read(int(row)) for row in rows])
    left, right = np.triu_indices(len(rows), 1)
    person = pairs.people[rows]
    cosine = np.sum(embeddings[left].astype(np.float64) * embeddings[right], axis=1)[person[left] != person[right]]
    calibration = found.calibration
    (threshold,) = calibration.thresholds
    assert (calibration.different, calibration.impostors, calibration.people) == (len(cosine), "all", 60)
    assert (threshold.fmr, len(found.refused)) == (1e-3, 3)
    allowed = int(1e-3 * len(cosine))
    assert np.sort(cosine)[::-1][allowed] < threshold.threshold <= np.sort(cosine)[::-1][allowed - 1] + 1e-6
    assert threshold.real_fmr == pytest.approx(allowed / len(cosine))
    assert threshold.fmr_low < threshold.real_fmr < threshold.fmr_high
    assert found.refused[0].startswith("1e-4: it needs 100,000 different pairs, 10 / FMR, and there are ")


def test_the_picture_shows_the_thresholds_and_both_maps_at_one_prior(found: Calibrated) -> None:
    histogram, probability = found.charts
    assert histogram.marks == probability.marks == (("FMR 1e-3", found.calibration.thresholds[0].threshold),)
    fitted, pooled = probability.lines
    np.testing.assert_allclose(fitted.y, 100 * found.calibration.probability(fitted.x))
    assert (np.diff(pooled.y) >= 0).all()
    # With as many same as different pairs the pooled rate is the posterior at a prior of one half.
    assert pooled.y.mean() == pytest.approx(50, abs=1e-6)


def test_listed_pairs_alone_are_too_few_and_give_the_same_probabilities(model: FaceModel, found: Calibrated) -> None:
    listed = calibrate(model, "pairs", protocol(), impostors="listed", fmrs=(1e-3, 0.2))
    assert listed.calibration.different == 210
    assert [one.fmr for one in listed.calibration.thresholds] == [0.2]
    assert listed.refused == ("1e-3: it needs 10,000 different pairs, 10 / FMR, and there are 210",)
    assert (listed.calibration.slope, listed.calibration.offset) == (found.calibration.slope, found.calibration.offset)
    assert found.calibration.min_cllr <= found.calibration.cllr
    assert (found.calibration.folds, calibrate(model, "p", protocol(folds=1)).calibration.folds) == (3, 0)


def test_mirrored_images_are_part_of_it(model: FaceModel, found: Calibrated) -> None:
    flipped = calibrate(model, "pairs", protocol(flip=True)).calibration
    assert flipped.flip
    assert flipped.thresholds[0].threshold != found.calibration.thresholds[0].threshold
    with pytest.raises(ConfigError, match=r"pairs joins mirrored images by normalised_sum.* set pairs.fusion=sum"):
        calibrate(model, "pairs", protocol(flip=True, fusion="normalised_sum"))


@pytest.mark.parametrize("options", [{"resolution": [16]}, {"occlude": "mouth"}])
def test_scores_that_are_not_those_of_two_photos_are_refused(model: FaceModel, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="SyntheticPairs does not compare pairs of single images as they are"):
        calibrate(model, "SyntheticPairs", protocol(**options))


def test_without_the_people_of_one_fold_there_may_be_nobody(model: FaceModel) -> None:
    pairs = SyntheticPairs(**PAIRS).parts[0]
    pairs.fold[:] = np.arange(len(pairs.fold)) % 2  # all people are in both
    with pytest.raises(DataError, match="cross-validated: without the people of one fold, there are no pairs.* Take a"):
        calibrate(model, "pairs", pairs)


def said(*words: str) -> str:
    result = CliRunner().invoke(cli.app, list(words))
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    return result.output


def refusal(*words: str) -> str:
    result = CliRunner().invoke(cli.app, list(words))
    assert isinstance(result.exception, ConfigError), result.output
    return str(result.exception)


def test_the_commands_from_pairs_to_a_verdict(run: Path, photos: list[Path], tmp_path: Path) -> None:
    two = [*map(str, photos), "--model", str(run)]
    assert "No verdict: 'tiny' has no thresholds and no probabilities yet" in said("verify", *two)
    assert "facelab calibrate" in refusal("verify", *two, "--fmr", "1e-3")
    written = said("calibrate", str(run), *WORDS, "--plot", str(tmp_path / "plots" / "calibration.png"))
    assert (tmp_path / "plots" / "calibration.png").stat().st_size > 10_000
    assert "every pair of two people), 60 people" in written
    assert "No threshold for FMR 1e-6: it needs 10,000,000 different pairs" in written
    assert "cross-validated over 3 folds" in written
    assert f"try: facelab verify A B --model {run} --fmr 1e-3\n" in written
    for words in ((), ("--fmr", "1e-3")):
        verdict = said("verify", *two, *words)
        assert "person at FMR 1e-3: threshold 0." in verdict
        assert "of the same person, if half of all pairs" in verdict
    assert "No verdict: the thresholds were calibrated without --flip" in said("verify", *two, "--flip")
    assert "calibrated without --flip" in refusal("verify", *two, "--flip", "--fmr", "1e-3")
    assert "--threshold and --fmr both say" in refusal("verify", *two, "--threshold", "0.3", "--fmr", "1e-3")
    first = ["--checkpoint", "step-4"]
    assert "has no thresholds" in refusal("verify", *two, *first, "--fmr", "1e-3")  # another checkpoint of the run
    said("export", str(run), "--out", str(tmp_path / "model"))
    assert facelab.load(tmp_path / "model").calibration == facelab.load(run).calibration
    similarity = facelab.load(run).similarity(*photos)
    assert f"probability {float(facelab.load(run).probability(similarity)):.4f}" in verdict
    without = said("calibrate", str(run), *WORDS, "--impostors", "listed")  # which are too few for any threshold
    assert f"try: facelab verify A B --model {run}\n" in without


def test_one_protocol_is_chosen(run: Path) -> None:
    words = ["calibrate", str(run), *WORDS, "LFW.root=nowhere", "LFW.pairs=nothing"]
    assert refusal("calibrate", str(run), *WORDS, "--protocol", "LFW") == (
        "there is no protocol 'LFW'; there are: SyntheticPairs."
    )
    assert isinstance(CliRunner().invoke(cli.app, words).exception, DataError)


def test_the_run_and_its_card_are_whole_afterwards(run: Path) -> None:
    card = json.loads((run / "checkpoints" / "step-00000008" / "model.json").read_text())
    assert card["calibration"]["version"] == 1
    assert facelab.load(run).calibration is not None
