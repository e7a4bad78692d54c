"""Ranks, open-set identification and average precision: by hand, against brute force, and refusals."""

import math
from typing import Any

import numpy as np
import pytest

from facelab.errors import ConfigError, DataError
from facelab.test_protocol.metrics.identification import (
    Search,
    average_precision,
    closed_set,
    cmc,
    mate_rank,
    open_set,
    rank_mates,
    search,
)

GALLERY = np.array([[0.9], [0.5], [0.5], [0.3], [0.7]], np.float32)
GALLERY_PERSON = np.array([2, 1, -1, 1, -1])


def _random(seed: int, probes: int = 37, entries: int = 53, dtype: Any = np.float32) -> tuple[Any, ...]:
    """Vectors of small whole numbers: scores are exact, and there are many ties."""
    random = np.random.default_rng(seed)
    sides = [random.integers(-2, 3, (count, 3)).astype(dtype) for count in (probes, entries)]
    people = [random.integers(-1, 12, count) for count in (probes, entries)]
    people[1][people[1] == 5] = 4  # person 5 has no mate
    return (*sides, *people)


def _found(mate: list[float], rival: list[float]) -> Search:
    zeros = np.zeros(len(mate), np.int64)
    return Search(np.array(mate), np.array(rival), zeros, zeros, zeros, zeros)


def test_one_probe_by_hand() -> None:
    found = search(np.ones((1, 1), np.float32), GALLERY, np.array([1]), GALLERY_PERSON)
    assert found.mate == pytest.approx([0.5])
    assert found.rival == pytest.approx([0.9])
    assert (found.above.tolist(), found.tied.tolist()) == ([2], [1])
    assert (found.mate_entry.tolist(), found.rival_entry.tolist()) == ([1], [0])
    assert mate_rank(found).tolist() == [4]  # the tie counts against it
    assert closed_set(found, [3, 4]) == [0.0, 1.0]


@pytest.mark.parametrize("block", [1, 2, 4096])
def test_of_equal_rivals_the_first_is_named(block: int) -> None:
    found = search(np.ones((2, 1)), np.ones((5, 1)), np.array([1, 7]), np.array([1, 2, 3, 1, 4]), block=block)
    assert found.rival_entry.tolist() == [1, 0]


@pytest.mark.parametrize("ranks", [[], [0], [5, 0], [-1, 3]])
def test_each_rank_is_one_at_least(ranks: list[int]) -> None:
    with pytest.raises(ConfigError, match="at least one is needed, and a rank is at least 1"):
        closed_set(_found([0.5], [0.9]), ranks)


def test_average_precision_by_hand() -> None:
    mean, each = average_precision(np.ones((2, 1), np.float32), GALLERY, np.array([1, 7]), GALLERY_PERSON)
    assert mean == pytest.approx((1 / 4 + 2 / 5) / 2)
    assert math.isnan(each[1])
    ranking = rank_mates(np.ones((1, 1), np.float32), GALLERY, np.array([2]), GALLERY_PERSON)
    assert ranking.trapezoid_precision() == pytest.approx([1.0])
    ranking = rank_mates(np.ones((1, 1), np.float32), GALLERY, np.array([1]), GALLERY_PERSON)
    assert ranking.place.tolist() == [[4, 5]]
    assert ranking.trapezoid_precision() == pytest.approx([((0 / 3 + 1 / 4) / 2 + (1 / 4 + 2 / 5) / 2) / 2])


@pytest.mark.parametrize("block", [1, 7, 16, 4096])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_any_block_gives_what_the_whole_matrix_gives(block: int, dtype: Any) -> None:
    probe, gallery, probe_person, gallery_person = _random(block, dtype=dtype)
    ranking = rank_mates(probe, gallery, probe_person, gallery_person, block=block)
    found = search(probe, gallery, probe_person, gallery_person, block=block)
    precision = ranking.average_precision()
    for row, (scores, person) in enumerate(zip(probe @ gallery.T, probe_person, strict=True)):
        own = (gallery_person == person) & (person >= 0)
        mates, others = np.sort(scores[own])[::-1], scores[~own]
        assert found.rival[row] == others.max() == scores[found.rival_entry[row]]
        assert not own[found.rival_entry[row]]
        places = [1 + number + int((others >= mate).sum()) for number, mate in enumerate(mates)]
        assert ranking.place[row, : len(mates)].tolist() == places
        assert not ranking.place[row, len(mates) :].any()
        if not len(mates):
            assert (found.mate[row], found.mate_entry[row], found.above[row], found.tied[row]) == (-np.inf, -1, 0, 0)
            assert math.isnan(precision[row])
            continue
        assert found.mate[row] == mates[0] == scores[found.mate_entry[row]]
        assert found.above[row] == (others > mates[0]).sum()
        assert found.tied[row] == (others == mates[0]).sum()
        assert precision[row] == pytest.approx(np.mean([n / place for n, place in enumerate(places, 1)]))


def test_only_probes_with_a_mate_count() -> None:
    probe, gallery, probe_person, gallery_person = _random(3)
    everyone = search(probe, gallery, probe_person, gallery_person)
    mated = np.isin(probe_person, gallery_person[gallery_person >= 0])
    assert everyone.mated.tolist() == np.flatnonzero(mated).tolist()
    known = search(probe[mated], gallery, probe_person[mated], gallery_person)
    assert closed_set(everyone, [1, 3, 9]) == closed_set(known, [1, 3, 9])
    rank, rate = cmc(everyone, 9)
    assert rank.tolist() == list(range(1, 10))
    assert rate.tolist() == sorted(rate)
    assert [rate[0], rate[2], rate[8]] == closed_set(everyone, [1, 3, 9])


def test_a_network_that_says_the_same_of_all_finds_nobody() -> None:
    found = search(np.ones((4, 2), np.float32), np.ones((8, 2), np.float32), np.arange(4), np.arange(8))
    assert closed_set(found, [1, 7, 8]) == [0.0, 0.0, 1.0]
    (point,) = open_set(found, [1.0])
    assert point.tpir == 0.0


def test_rates_without_probes_of_a_kind_are_nan() -> None:
    strangers, known = _found([-np.inf], [0.5]), _found([0.5], [0.2])
    assert math.isnan(closed_set(strangers, [1])[0])
    assert math.isnan(open_set(strangers, [1.0])[0].tpir)
    point = open_set(known, [0.5])[0]
    assert (point.tpir, point.threshold, point.measurable) == (1.0, -np.inf, False)
    assert math.isnan(point.fpir)


def test_open_set_by_hand() -> None:
    """Strangers reach 0.1 to 0.4; one probe in four may be accepted, so all above 0.3 is open."""
    mate = [-np.inf] * 4 + [0.35, 0.3, 0.9, 0.35]
    rival = [0.4, 0.1, 0.3, 0.2, 0.0, 0.0, 0.95, 0.34]
    point, closed, open_to_all = open_set(_found(mate, rival), [0.25, 0.2, 1.0])
    assert (point.fpir, point.tpir, point.measurable) == (0.25, 0.5, True)  # 0.3 is not above, 0.9 is no rank 1
    assert point.threshold == np.nextafter(0.3, 1.0)
    assert (closed.fpir, closed.tpir, closed.measurable) == (0.0, 0.0, False)
    assert (open_to_all.fpir, open_to_all.tpir) == (1.0, 0.75)


def test_tied_strangers_are_never_accepted_in_part() -> None:
    found = _found([-np.inf] * 4 + [0.5], [0.5, 0.5, 0.5, 0.1, 0.0])
    (point,) = open_set(found, [0.5])
    assert (point.fpir, point.tpir) == (0.0, 0.0)


@pytest.mark.parametrize("seed", range(3))
def test_open_set_against_every_threshold(seed: int) -> None:
    random = np.random.default_rng(seed)
    mate = np.where(random.random(80) < 0.5, -np.inf, random.normal(1.0, 1.0, 80).round(1))
    found = _found(mate.tolist(), random.normal(0.0, 1.0, 80).round(1).tolist())
    strangers, known = mate == -np.inf, mate > -np.inf
    for point in open_set(found, [0.03, 0.1, 0.5]):
        candidates = np.nextafter(np.unique(found.rival[strangers]), np.inf)
        allowed = [t for t in candidates if np.mean(found.rival[strangers] >= t) <= point.target]
        hits = (mate > found.rival) & (mate >= min(allowed))
        assert point.threshold == min(allowed)
        assert point.tpir == pytest.approx(hits[known].mean())
        assert point.fpir == np.mean(found.rival[strangers] >= point.threshold)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"probe": np.ones((0, 2))}, "the probe set is empty"),
        ({"gallery": np.ones((0, 2)), "gallery_person": np.ones(0, np.int64)}, "the gallery is empty"),
        ({"gallery": np.ones((3, 5))}, "their vectors have 2 and 5 numbers"),
        ({"gallery": np.array([[1, 1], [np.nan, 1], [1, 1]])}, r"gallery entry 1 \(from 0\) is not finite"),
        ({"gallery_person": np.zeros(2, np.int64)}, "one vector and one person for each entry"),
    ],
)
def test_refusals(change: dict[str, Any], sentence: str) -> None:
    given = {"probe": np.ones((2, 2)), "gallery": np.ones((3, 2)), "gallery_person": np.arange(3)} | change
    with pytest.raises(DataError, match=sentence):
        search(given["probe"], given["gallery"], np.arange(len(given["probe"])), given["gallery_person"])


def test_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(ConfigError, match="block is 0"):
        search(GALLERY, GALLERY, GALLERY_PERSON, GALLERY_PERSON, block=0)
    with pytest.raises(ConfigError, match="a rank is at least 1"):
        closed_set(_found([1.0], [0.0]), [0])
    with pytest.raises(ConfigError, match="a target FPIR"):
        open_set(_found([1.0], [0.0]), [0.0])
