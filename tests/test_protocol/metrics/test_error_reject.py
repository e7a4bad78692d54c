"""Error versus reject: by hand, properties, refusals, and its place in the report of a verification protocol."""

from pathlib import Path

import numpy as np
import pytest

from facelab.data.base import ImageSet
from facelab.errors import ConfigError, DataError
from facelab.quality.card import ScorerCard
from facelab.test_protocol.base import PROTOCOLS, Embeddings, Report
from facelab.test_protocol.metrics.error_reject import (
    ErrorReject,
    dropped,
    error_versus_reject,
    magface_error_reject,
    pair_quality,
)
from facelab.test_protocol.metrics.pair_scores import Rules
from facelab.test_protocol.protocols.verification import Verification

# From the worst pair to the best: a missed one, an impostor that sets the threshold, a missed one, and good ones.
SCORES = np.array([0.1, 0.6, 0.5, 0.9, 0.2, 0.8, 0.0, 0.7])
SAME = np.array([True, False, True, True, False, True, False, True])
QUALITY = np.arange(8.0)
RATES = (0.0, 0.125, 0.25, 0.375, 0.5)


def curve(**options: object) -> ErrorReject:
    settings: dict[str, object] = {"higher_is_better": True, "rates": RATES, **options}
    return error_versus_reject(SCORES, SAME, QUALITY, 0.2, **settings)  # type: ignore[arg-type]


def test_fixed_threshold_by_hand() -> None:
    found = curve()
    np.testing.assert_allclose(found.threshold, 0.7)  # one accepted impostor of three would be too many
    np.testing.assert_allclose(found.fnmr, [2 / 5, 1 / 4, 1 / 4, 0, 0])
    np.testing.assert_array_equal(found.fmr, np.zeros(5))
    assert found.area == pytest.approx(((0.4 + 0.25) / 2 + 0.25 + 0.125 + 0) / 4)


def test_refitted_threshold_by_hand() -> None:
    """Once the impostor of 0.6 is gone, 0.5 can be accepted: the error vanishes one step earlier."""
    found = curve(refit=True)
    np.testing.assert_allclose(found.fnmr, [2 / 5, 1 / 4, 0, 0, 0])
    np.testing.assert_allclose(found.threshold, [0.7, 0.7, 0.5, 0.7, 0.7])


def test_lower_is_better_turns_the_order() -> None:
    turned = error_versus_reject(SCORES, SAME, -QUALITY, 0.2, higher_is_better=False, rates=RATES)
    np.testing.assert_array_equal(turned.fnmr, curve().fnmr)
    assert curve(higher_is_better=False).fnmr[-1] == pytest.approx(2 / 3)  # two of the three left are missed


def test_quality_of_a_pair_is_that_of_its_worse_image() -> None:
    pairs = np.array([[0, 1], [2, 0]])
    assert pair_quality([3.0, 1.0, 5.0], pairs, higher_is_better=True).tolist() == [1.0, 3.0]
    assert pair_quality([3.0, 1.0, 5.0], pairs, higher_is_better=False).tolist() == [3.0, 5.0]


def test_perfect_quality_rejects_the_errors_first_and_useless_quality_does_not() -> None:
    random = np.random.default_rng(0)
    same = random.random(4000) < 0.5
    scores = np.where(same, random.normal(0.5, 0.25, 4000), random.normal(0.0, 0.1, 4000))
    perfect = error_versus_reject(scores, same, np.where(same, scores, 1.0), 0.01, higher_is_better=True)
    useless = error_versus_reject(scores, same, random.random(4000), 0.01, higher_is_better=True)
    assert perfect.fnmr[0] == useless.fnmr[0] > 0.1
    assert perfect.fnmr[4] == 0.0
    assert perfect.area < 0.3 * useless.area
    assert useless.area == pytest.approx(useless.fnmr[0], rel=0.2)


def test_numbers_dropped_are_exact() -> None:
    assert dropped((0.15, 0.3, 0.35, 0.7), 20).tolist() == [3, 6, 7, 14]
    assert dropped((0.7,), 90).tolist() == [63]  # 62.99999999999999 in floats
    assert dropped((0.29, 0.57, 0.58), 100).tolist() == [29, 57, 58]


def test_what_cannot_be_measured_counts_as_an_error() -> None:
    """Behind the first two pairs no impostor is left, then no genuine pair."""
    scores, quality = [0.9, 0.1, 0.8], [1.0, 0.0, 2.0]
    refit = error_versus_reject(
        scores, [True, False, True], quality, 1.0, higher_is_better=True, refit=True, rates=(0.0, 0.4)
    )
    assert refit.fnmr.tolist() == [0.0, 1.0]
    refit = error_versus_reject(
        scores, [False, True, False], quality, 1.0, higher_is_better=True, refit=True, rates=(0.0, 0.4)
    )
    assert (refit.fnmr[1], refit.fmr[1], refit.threshold[1]) == (1.0, 0.0, np.inf)
    fixed = error_versus_reject(scores, [True, False, False], quality, 1.0, higher_is_better=True, rates=(0.0, 0.7))
    assert fixed.fnmr.tolist() == [0.0, 1.0]


def test_magface_stops_where_its_index_is_used_up() -> None:
    random = np.random.default_rng(1)
    same = np.arange(400) % 2 == 0
    scores = np.where(same, 0.6, 0.0) + random.normal(0, 0.2, 400)
    found = magface_error_reject(scores.clip(-1, 1), same, random.random(400), 1e-3)
    assert 0 < len(found.rate) < 20
    left = [int(400 * (1 - rate) / 2) for rate in found.rate]
    assert min(left) > 60  # places 100 and more are divided by 10 three times
    assert np.isnan(ErrorReject(*(np.zeros(1),) * 4).area)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"quality": QUALITY[:3]}, DataError, "8 pairs need as many qualities"),
        ({"quality": np.full(8, np.nan)}, DataError, "the quality of pair 0"),
        ({"scores": np.full(8, np.nan)}, DataError, "the score of pair 0"),
        ({"same": np.ones(8, bool)}, DataError, "needs both same and different pairs"),
        ({"target": 0.0}, ConfigError, "a target FMR is 0.0"),
        ({"rates": (0.0, 1.0)}, ConfigError, "a reject rate is 1.0"),
        ({"rates": (0.5, 0.2)}, ConfigError, "reject rates must rise"),
        ({"rates": (0.2, 0.2)}, ConfigError, "reject rates must rise"),
        ({"rates": ()}, ConfigError, "reject rates must rise"),
    ],
)
def test_refusals(change: dict[str, object], error: type[Exception], message: str) -> None:
    given = {"scores": SCORES, "same": SAME, "quality": QUALITY, "target": 0.2, "higher_is_better": True, **change}
    with pytest.raises(error, match=message):
        error_versus_reject(**given)  # type: ignore[arg-type]


def test_magface_knows_three_targets() -> None:
    with pytest.raises(ConfigError, match=r"FMRs 0.1, 0.01 and 0.001, not 0.05"):
        magface_error_reject(SCORES, SAME, QUALITY, 0.05)


def reported(small_lfw: tuple[Path, Path], quality: np.ndarray | None, **options: object) -> tuple[Report, np.ndarray]:
    """Report on embeddings whose noise falls with their quality."""
    protocol = PROTOCOLS.build("LFW", {"root": small_lfw[0], "pairs": small_lfw[1], "fars": (0.5,), **options})
    random = np.random.default_rng(0)
    values = random.normal(size=(len(protocol.images), 8)).astype(np.float32)
    card = ScorerCard(name="Blur", higher_is_better=False)
    return protocol.evaluate(Embeddings(values, quality_scores=quality, scorer=card)), values


def test_reports_have_the_curve_where_there_is_quality(small_lfw: tuple[Path, Path]) -> None:
    plain, values = reported(small_lfw, None)
    assert "reject" not in plain.curves
    norms = np.linalg.norm(values, axis=1)
    by_norm, _ = reported(small_lfw, None, reject="norm")
    by_score, _ = reported(small_lfw, -norms)  # its scorer says that lower is better
    areas = [
        {metric.name: metric.value for metric in report.metrics if "reject" in metric.name}
        for report in (by_norm, by_score)
    ]
    assert list(areas[0]) == ["error-versus-reject area@FMR=0.5", "error-versus-reject area@FMR=0.5 (refitted)"]
    assert areas[0] == areas[1]
    assert {metric.better for metric in by_norm.metrics if "reject" in metric.name} == {"low"}
    assert len(by_norm.curves["reject"]) == len(by_norm.curves["fnmr"]) == 20
    assert by_norm.options["reject"] == "norm"


def test_magfaces_curve_stands_beside_the_clean_one(tiny_images: ImageSet) -> None:
    random = np.random.default_rng(0)
    pairs = np.array([(a, b) for a in range(11) for b in range(a)])
    same, fold = np.arange(len(pairs)) % 2 == 0, np.arange(len(pairs)) % 5
    embeddings = Embeddings(random.normal(size=(11, 8)).astype(np.float32))
    found = {}
    for far in (0.1, 0.2):  # its program does not know 0.2
        rules = Rules(thresholds="magface", fars=(far,), reject="norm")
        found[far] = Verification("x", tiny_images, pairs, same, fold, rules).evaluate(embeddings).curves
    assert 0 < len(found[0.1]["fnmr_magface"]) <= len(found[0.1]["fnmr"])
    assert "fnmr_magface" not in found[0.2]


def test_mistyped_options() -> None:
    with pytest.raises(ConfigError, match="takes away; take fusion: sum"):
        Rules(flip=True, fusion="normalised_sum", reject="norm")
    with pytest.raises(ConfigError, match="Did you mean 'norm'"):
        Rules(reject="norms")  # type: ignore[arg-type]


def test_too_few_pairs_are_said(small_lfw: tuple[Path, Path]) -> None:
    report, _ = reported(small_lfw, None, reject="norm", fars=(1e-3,))
    (area,) = [metric for metric in report.metrics if "reject" in metric.name]
    assert area.value is None
    assert "there are 6 same and 6 different pairs" in area.note
    with pytest.raises(DataError, match="need as many quality scores, got 2"):
        reported(small_lfw, np.ones(2, np.float32))
